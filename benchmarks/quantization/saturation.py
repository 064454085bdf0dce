"""What int8 loses on a CPU without VNNI, and what safety from that costs: fidelity here and in QEMU, time here.

    python benchmarks/quantization/saturation.py [CASE …] [--mode static] [--cpu Haswell] [--samples 100]

Each case is quantized for CPUs with VNNI, for all CPUs (the default), with weights of 7 bits, and with uint8 weights.
All are compared with the float model over the same test samples, on this machine and by onnxruntime's own kernels in
QEMU, and timed against it in pairs. Needs ``qemu-x86_64`` (Debian: ``apt-get install qemu-user``), else its column
stays empty.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from cases import Arrays, Case, cases

from onnxpress import artifact
from onnxpress.bench.inputs import prepare as prepare_inputs
from onnxpress.evaluation.fidelity import Fidelity
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.auto.race import Race
from onnxpress.quantization.quantize import quantize
from onnxpress.session import SessionOptions, open_session, run

WAYS: dict[str, dict[str, Any]] = {
    "vnni": {"target_cpu": "vnni"},
    "any": {},
    "7 bits": {"bits": 7},
    "uint8 weights": {"weights": "uint8"},
}


def main() -> None:
    """Compare what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["kws", "resnet20", "mnist"])
    parser.add_argument("--mode", default="static", choices=["static", "dynamic"])
    parser.add_argument("--cpu", default="Haswell", help="a CPU that QEMU knows (qemu-x86_64 -cpu help)")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)  # inside QEMU
    asked = parser.parse_args()
    if asked.run:
        execute(asked.run)
        return
    print(f"| case | {asked.mode}, for | layers made safe | here | {asked.cpu} | of float's time here |")
    print("|---" * 6 + "|")
    for name in asked.cases:
        with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
            lines = rows(cases()[name], Path(folder), asked.mode, asked.cpu, asked.samples)
            print("\n".join(lines), flush=True)


def rows(case: Case, folder: Path, mode: str, cpu: str, samples: int) -> list[str]:
    """Return the lines of one case."""
    model = prepare(artifact.load(case.model)).model
    artifact.save(model, folder / "float.onnx")
    safe: dict[str, str] = {}
    for way, values in WAYS.items():
        options = QuantizeOptions.model_validate({**values, "mode": mode, "verify": False})
        edit = quantize(model, options, case.data("calibration"))
        artifact.save(edit.model, folder / f"{way}.onnx")
        safe[way] = f"{len(edit.facts['saturation_avoided'])} of {edit.facts['int8_nodes']}"
    feeds = list(islice(case.feeds("test"), samples))
    stacked: dict[str, Any] = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    np.savez(folder / "feeds.npz", **stacked)
    execute(folder)
    here = read(folder)
    times = {}
    with Race(
        prepare_inputs({"float": model}, baseline="float", data=case.data("test"), seed=0),
        SessionOptions(threads=1),
        folder,
    ) as race:
        reference = race.start(folder / "float.onnx")
        for way in safe:
            runner = race.start(folder / f"{way}.onnx")
            times[way] = race.ratio(reference, runner)
            race.stop(runner)
    there = read(folder) if in_qemu(folder, cpu) else {}
    return [
        f"| {case.name} | {way} | {safe[way]} | {score(here['float'], here[way])} | "
        f"{score(here['float'], there.get(way))} | {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] |"
        for way, ratio in times.items()
    ]


def in_qemu(folder: Path, cpu: str) -> bool:
    """Run the models of a folder on another CPU; tell whether there is QEMU."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        return False
    command = [qemu, "-cpu", cpu, sys.executable, __file__, "--run", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{cpu}: {done.stderr.strip().splitlines()[-1]}")
    return True


def execute(folder: Path) -> None:
    """Run every model of a folder over the feeds and write its outputs."""
    with np.load(folder / "feeds.npz") as file:
        arrays = dict(file)
    count = len(next(iter(arrays.values())))
    for path in folder.glob("*.onnx"):
        session = open_session(path)
        results = [run(session, {name: value[index] for name, value in arrays.items()}) for index in range(count)]
        stacked: dict[str, Any] = {name: np.stack([one[name] for one in results]) for name in results[0]}
        np.savez(folder / f"{path.stem}-outputs.npz", **stacked)


def read(folder: Path) -> dict[str, Arrays]:
    """Return the outputs that `execute` wrote, by model."""
    return {
        path.name.removesuffix("-outputs.npz"): dict(np.load(path).items()) for path in folder.glob("*-outputs.npz")
    }


def score(expected: Arrays, given: Arrays | None) -> str:
    """Return SQNR and agreement."""
    if given is None:
        return "-"
    fidelity = Fidelity()
    for index in range(len(next(iter(expected.values())))):
        fidelity.update(*({name: value[index] for name, value in one.items()} for one in (expected, given)))
    noise = "exact" if fidelity.sqnr_db is None else f"{fidelity.sqnr_db:.1f} dB"
    return f"{noise}, {fidelity.agreement_pct:.0f} %" if fidelity.agreement_pct is not None else noise


if __name__ == "__main__":
    main()
