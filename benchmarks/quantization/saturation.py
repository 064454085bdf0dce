"""Our int8 models on a CPU without VNNI: predicted by the emulator, run for real in QEMU, and made safe.

    python benchmarks/quantization/saturation.py [CASE …] [--cpu Haswell] [--samples 100]

Each case is quantized for CPUs with VNNI and for all CPUs (`--target-cpu`), and both models are compared with the float
model over the same test samples: on this machine, in the emulation, and by onnxruntime's own kernels in QEMU. Needs
``qemu-x86_64`` (Debian: ``apt-get install qemu-user``); without it the last columns stay empty.
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
from onnxpress.evaluation.fidelity import Fidelity
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.emulation import emulate
from onnxpress.quantization.quantize import quantize
from onnxpress.session import open_session, run

MODELS = ("float", "vnni", "any")


def main() -> None:
    """Compare what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["kws", "resnet20", "mnist"])
    parser.add_argument("--cpu", default="Haswell", help="a CPU that QEMU knows (qemu-x86_64 -cpu help)")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)  # inside QEMU
    asked = parser.parse_args()
    if asked.run:
        execute(asked.run)
        return
    print(f"| case | for | layers made safe | here: dB, agree | emulated | {asked.cpu} | emulation against it, dB |")
    print("|---" * 7 + "|")
    for name in asked.cases:
        with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
            print("\n".join(rows(cases()[name], Path(folder), asked.cpu, asked.samples)), flush=True)


def rows(case: Case, folder: Path, cpu: str, samples: int) -> list[str]:
    """Return the lines of one case."""
    model = prepare(artifact.load(case.model)).model
    artifact.save(model, folder / "float.onnx")
    safe: dict[str, str] = {}
    for target in MODELS[1:]:
        options = QuantizeOptions.model_validate({"target_cpu": target, "verify": False})
        edit = quantize(model, options, case.data("calibration"))
        artifact.save(edit.model, folder / f"{target}.onnx")
        artifact.save(emulate(edit.model), folder / f"{target}-emulated.onnx")
        layers = sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in edit.model.graph)
        safe[target] = f"{len(edit.facts.get('saturation_avoided', ()))} of {layers}"
    feeds = list(islice(case.feeds("test"), samples))
    stacked: dict[str, Any] = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    np.savez(folder / "feeds.npz", **stacked)
    execute(folder)
    here = read(folder)
    there = read(folder) if in_qemu(folder, cpu) else {}
    lines = []
    for target in safe:
        columns = [here[target], here[f"{target}-emulated"], there.get(target)]
        cells = [score(here["float"], outputs) for outputs in columns]
        agreement = "-" if columns[2] is None else score(columns[2], columns[1])
        lines.append(f"| {case.name} | {target} | {safe[target]} | {' | '.join(cells)} | {agreement} |")
    return lines


def in_qemu(folder: Path, cpu: str) -> bool:
    """Run the models of a folder on another CPU; tell whether there is QEMU."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        return False
    for emulated in folder.glob("*-emulated.onnx"):  # float graphs: the same on every CPU, and slow here
        emulated.unlink()
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
    noise = "exact" if fidelity.sqnr_db is None else f"{fidelity.sqnr_db:.1f}"
    return f"{noise}, {fidelity.agreement_pct:.1f} %" if fidelity.agreement_pct is not None else noise


if __name__ == "__main__":
    main()
