"""What calibration costs, and what it does not depend on.

    python benchmarks/quantization/profiling.py [CASE …] [-o FILE]

Per real model: seconds of a plain forward pass (one sample a run) and of the statistics pass with each calibrator
behind it, which must stay within 1.5 times the forward pass plus 2 s; peak memory of a process that profiles 50 and all
samples, which must differ by less than 5 %; whether shuffled samples and two merged halves give the same model, bit by
bit; how far batches of 25 move a scale, and whether they change a prediction. Seconds and memory of peers are those
that ``peers.py`` has stored. Each case runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import Arrays, Case, cases
from peers import result_path, samples_path

from onnxpress import artifact, graph
from onnxpress.errors import ModelError
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.collecting import collect
from onnxpress.quantization.placement import gemms, place
from onnxpress.quantization.ranges import choose_ranges
from onnxpress.session import open_session
from onnxpress_calibration import calibrators
from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.profile import Profile

if TYPE_CHECKING:  # imported by the product, which leaves a part of it out; see `onnxpress.imports`
    import onnx_ir as ir

FEW = 50
BATCH = 25
PEERS = ("ort-minmax", "ort-percentile", "nncf")


def main() -> None:
    """Measure what was asked for, each part in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"default: {' '.join(cases())}")
    parser.add_argument("-o", "--output", type=Path, help="also write everything as JSON")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(PARTS[asked.part](cases()[asked.cases[0]])))
        return
    found = {}
    for name in asked.cases or cases():
        parts = {part: _process(name, part) for part in PARTS}
        found[name] = parts | {"peers": {peer: _peer(peer, name) for peer in PEERS}}
        print(table(name, found[name]), flush=True)
        if asked.output:
            asked.output.write_text(json.dumps(found, indent=1) + "\n")


def seconds(case: Case) -> dict[str, Any]:
    """Time a forward pass and the statistics pass, in turns, the best of three; and each calibrator.

    The samples of both are in memory. The statistics pass checks and hashes them, too.
    """
    model, arrays = _prepared(case), case.calibration()
    session, feeds = open_session(case.model), _feeds(model, _dataset(case, arrays))
    session.run(None, feeds[0])
    forward, ours = [], []
    for _ in range(3):
        start = time.perf_counter()
        for feed in feeds:
            session.run(None, feed)
        forward.append(time.perf_counter() - start)
        start = time.perf_counter()
        collected = collect(model, _dataset(case, arrays))
        ours.append(time.perf_counter() - start)
    each = {}
    fused = model.clone()
    gemms(fused)
    placement = place(fused, QuantizeOptions().selects)
    for calibrator in calibrators.names():
        start = time.perf_counter()
        choose_ranges(placement, placement.measured, collected, calibrator, 256)
        each[calibrator] = time.perf_counter() - start
    return {
        "samples": len(feeds),
        "tensors": len(collected.tensors),
        "forward_s": min(forward),
        "pass_s": min(ours),
    } | {"calibrators_s": each}


def memory(case: Case, samples: int | None = None) -> dict[str, Any]:
    """Return the peak memory of this process after profiling so many samples, read from the file that peers read."""
    with np.load(samples_path(case)) as file:
        runs = len({key.partition(".")[0] for key in file.files})
        names = [key.partition(".")[2] for key in file.files if key.startswith("0.")]
        data = Dataset(
            origin=case.name,
            read=lambda: ({name: file[f"{run}.{name}"] for name in names} for run in range(runs)),
            limit=samples,
        )
        collect(_prepared(case), data if not case.streams else replace(case.data("calibration"), limit=samples))
    status = Path("/proc/self/status").read_text().splitlines()
    return {"peak_bytes": next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))}


def same(case: Case) -> dict[str, Any]:
    """Compare models from shuffled samples, from merged halves, and from batches with that from samples in order."""
    import onnx_ir as ir

    model, arrays = _prepared(case), case.calibration()
    count = len(next(iter(arrays.values())))
    order = np.random.default_rng(0).permutation(count)

    def taken(rows: Any) -> Dataset:  # noqa: ANN401 - whatever indexes an array
        return _dataset(case, {name: value[rows] for name, value in arrays.items()})

    whole, shuffled = (collect(model, taken(rows)) for rows in (slice(None), order))
    halves = [collect(model, taken(rows)) for rows in (slice(0, count // 2), slice(count // 2, None))]
    merged = halves[1].merged(halves[0])
    try:
        expected = _quantized(model, whole)
    except ModelError as error:
        return {"nothing": str(error)}
    result: dict[str, Any] = {
        "shuffled": all(
            _quantized(model, shuffled, name) == _quantized(model, whole, name) for name in calibrators.names()
        ),
        "merged": all(
            _quantized(model, merged, name) == _quantized(model, whole, name) for name in calibrators.names()
        ),
    }
    if all(value.shape and isinstance(value.shape[0], ir.SymbolicDim) for value in graph.inputs(model)):
        batched = collect(model, taken(slice(None)), batch=BATCH)
        result["batch"] = {name: _moved(whole, batched, name) for name in calibrators.names()}
        result["batch"]["predictions"] = _agreement(case, model, expected, _quantized(model, batched))
    return result


PARTS = {
    "seconds": seconds,
    "memory": memory,
    "memory_few": lambda case: memory(case, FEW),
    "same": same,
}


def _prepared(case: Case) -> ir.Model:
    return prepare(artifact.load(case.model)).model


def _dataset(case: Case, arrays: Arrays) -> Dataset:
    return Dataset(origin=case.name, read=lambda: [arrays])


def _feeds(model: ir.Model, data: Dataset) -> list[dict[str, Any]]:
    specs = graph.input_specs(model)
    return [{name: value for name, value in batch.items() if name in specs} for batch in data.batches(specs, 1)]


def _quantized(model: ir.Model, collected: Profile, calibrator: str = "mse") -> bytes:
    import onnx_ir as ir

    from onnxpress.quantization.quantize import quantize  # not in the process whose memory is measured

    edit = quantize(model, QuantizeOptions(calibrator=calibrator), statistics=collected)
    return ir.to_proto(edit.model).SerializeToString()


def _moved(one: Profile, other: Profile, calibrator: str) -> float:
    """Return the largest relative change of a range's width."""
    changes = [0.0]
    for name, statistics in one.tensors.items():
        widths = [np.diff(calibrators.choose(calibrator, each))[0] for each in (statistics, other.tensors[name])]
        changes.append(abs(widths[1] / widths[0] - 1) if widths[0] else float(widths[1] != 0))
    return float(max(changes))


def _agreement(case: Case, model: ir.Model, *serialized: bytes) -> float:
    """Return the share of output rows of two models with the same largest element, in percent."""
    import onnx_ir as ir

    specs = graph.input_specs(model)
    feeds = [{name: value for name, value in feed.items() if name in specs} for feed in case.feeds("test")][:200]
    classes = []
    for each in serialized:
        session = open_session(ir.serde.deserialize_model(_proto(each)))
        classes.append([session.run(None, feed)[0].argmax(axis=-1).ravel() for feed in feeds])
    equal = [np.mean(one == other) for one, other in zip(*classes, strict=True)]
    return float(100 * np.mean(equal))


def _proto(serialized: bytes) -> Any:  # noqa: ANN401 - onnx's own class
    import onnx

    return onnx.ModelProto.FromString(serialized)


def _process(name: str, part: str) -> dict[str, Any]:
    command = [sys.executable, __file__, name, "--part", part]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _peer(peer: str, name: str) -> dict[str, Any]:
    path = result_path(peer, name)
    return dict(json.loads(path.read_text())) if path.exists() else {"error": "not run: see peers.py"}


def table(name: str, found: dict[str, Any]) -> str:
    """Write one case for people."""
    lines = [name]
    timed = found["seconds"]
    if "error" in timed:
        return f"{name}: {timed['error']}"
    allowed = 1.5 * timed["forward_s"] + 2
    totals = {each: timed["pass_s"] + took for each, took in timed["calibrators_s"].items()}
    lines.append(
        f"  {timed['samples']} samples, {timed['tensors']} tensors: forward {timed['forward_s']:.2f} s, allowed "
        f"{allowed:.2f} s; "
        + ", ".join(f"{each} {total:.2f} s" for each, total in totals.items())
        + f": {'holds' if max(totals.values()) <= allowed else 'DOES NOT HOLD'}"
    )
    few, all_of_them = (found[part].get("peak_bytes", 0) / 1e6 for part in ("memory_few", "memory"))
    lines.append(f"  peak {few:.0f} MB for {FEW} samples, {all_of_them:.0f} MB for all")
    lines += [f"  {key}: {value}" for key, value in found["same"].items()]
    for peer, result in found["peers"].items():
        shown = result.get("error") or f"{result['seconds']:.1f} s, {result['peak_bytes'] / 1e6:.0f} MB"
        lines.append(f"  {peer}: {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
