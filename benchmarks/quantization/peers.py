"""Quantize the real models with other tools, each in an environment of its own.

    python benchmarks/quantization/peers.py [PEER …] [--cases NAME …] [--again]

Environments and results stay under ``ONNXPRESS_BENCHMARK_CACHE`` (default ``~/.cache/onnxpress-benchmarks``): per peer
and case ``peers/PEER/CASE.onnx`` and ``CASE.json`` with seconds (the peer's own work, without its imports), peak memory
and, where it failed, the error. Whatever a peer does is recorded, never repaired; ``compare.py`` loads and judges it.
`-op17` stands for a model that was first converted to opset 17, as an expert would.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
from cases import Case, cases

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("ONNXPRESS_BENCHMARK_CACHE", Path.home() / ".cache" / "onnxpress-benchmarks")).absolute()
TIMEOUT_S = 600
TORCH = "torch==2.13.0"
RUNTIME = ("onnxruntime==1.31.1", "onnx==1.23.2", "numpy")
REQUIREMENTS = {
    "onnxruntime": (*RUNTIME, "sympy"),
    "nncf": ("nncf==3.4.0", TORCH, *RUNTIME),
    "modelopt": ("nvidia-modelopt[onnx]==0.47.0", TORCH, "onnx", "numpy"),
    "onnxsim": ("onnxsim==0.8.1", *RUNTIME),
    "olive": ("olive-ai==0.13.0", "requests", TORCH, *RUNTIME),  # it forgets requests
}
OLD_OPSETS = ("mnist", "fastestdet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A tool with its settings."""

    tool: str
    """Environment in `REQUIREMENTS` and script ``peers/with_TOOL.py`` (a script named like the tool would hide it)."""
    mode: str
    """What the script is asked for."""


PEERS = {
    "ort-minmax": Peer(tool="onnxruntime", mode="MinMax"),
    "ort-percentile": Peer(tool="onnxruntime", mode="Percentile"),
    "ort-entropy": Peer(tool="onnxruntime", mode="Entropy"),
    "ort-dynamic": Peer(tool="onnxruntime", mode="dynamic"),
    "nncf": Peer(tool="nncf", mode="performance"),
    "nncf-mixed": Peer(tool="nncf", mode="mixed"),
    "nncf-transformer": Peer(tool="nncf", mode="transformer"),
    "modelopt": Peer(tool="modelopt", mode="entropy"),
    "modelopt-max": Peer(tool="modelopt", mode="max"),
    "onnxsim": Peer(tool="onnxsim", mode="static"),
    "onnxsim-full": Peer(tool="onnxsim", mode="full"),
    "olive": Peer(tool="olive", mode="static"),
}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", help=f"default: {' '.join(PEERS)}")
    parser.add_argument("--cases", nargs="+", default=list(cases()))
    parser.add_argument("--again", action="store_true", help="also what has a result already")
    asked = parser.parse_args()
    for name in asked.peers or PEERS:
        python = environment(PEERS[name].tool)
        for case in (cases()[each] for each in asked.cases):
            for suffix in ("", "-op17") if case.name in OLD_OPSETS else ("",):
                result = result_path(name, case.name + suffix)
                if asked.again or not result.exists():
                    print(name, case.name + suffix, flush=True)
                    print("  ", run(PEERS[name], python, case, suffix, result), flush=True)


def result_path(peer: str, case: str) -> Path:
    """Return where a peer's result for a case is; the model lies beside it."""
    return CACHE / "peers" / peer / f"{case}.json"


def environment(tool: str) -> Path:
    """Return the Python of a tool's environment; it is made when it is not there."""
    home = CACHE / tool
    python = home / "bin" / "python"
    done = home / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS[tool])
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[tool]], check=True)
        done.write_text(wanted)
    return python


def run(peer: Peer, python: Path, case: Case, suffix: str, result: Path) -> str:
    """Let a peer quantize one case; return and store what came of it."""
    result.parent.mkdir(parents=True, exist_ok=True)
    output = result.with_suffix(".onnx")
    output.unlink(missing_ok=True)
    request = {
        "mode": peer.mode,
        "model": str(_model(case, suffix)),
        "samples": str(samples_path(case)),
        "output": str(output),
    }
    command = [str(python), "-P", str(HERE / "peers" / f"with_{peer.tool}.py"), json.dumps(request)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:  # some leave files where they run
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, cwd=folder, check=False
            )
    except subprocess.TimeoutExpired:
        found = {"error": f"took more than {TIMEOUT_S} s"}
    else:
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        words = " ".join((done.stderr.strip().splitlines() or ["no message"])[-1].split())
        found = json.loads(lines[-1].removeprefix("RESULT ")) if lines else {"error": words[:300]}
    if not output.exists() and "error" not in found:
        found["error"] = "wrote no model"
    result.write_text(json.dumps(found, indent=1) + "\n")
    return str(found)


def samples_path(case: Case) -> Path:
    """Write the calibration feeds once: array ``I.NAME`` is input ``NAME`` of run ``I``."""
    path = CACHE / "samples" / f"{case.name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        feeds = list(case.feeds("calibration"))
        if case.streams:
            feeds = [feed | {"state": feed["state"][0], "sr": feed["sr"][0]} for feed in feeds]
        np.savez(path, **{f"{i}.{name}": value for i, feed in enumerate(feeds) for name, value in feed.items()})
    return path


def _model(case: Case, suffix: str) -> Path:
    """Return a copy of the model (some peers write over their input), converted where the suffix asks for it."""
    path = CACHE / "models" / f"{case.name}{suffix}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.load(case.model)
    onnx.save(onnx.version_converter.convert_version(model, 17) if suffix else model, path)
    return path


if __name__ == "__main__":
    main()
