"""Whether the benchmark's numbers are those that others get, and those that it gets again.

    python benchmarks/bench/agreement.py alone MODEL…      p50 taken in turns against p50 alone: within 3%
    python benchmarks/bench/agreement.py loop MODEL…       p50 against a plain loop around onnxruntime: within 5%
    python benchmarks/bench/agreement.py again --count 20  intervals of two runs of one pair overlap: in 19 of 20

MODEL is squeezenet, resnet20, kws or magika. Other work on the machine changes between two runs, which these
comparisons are not protected from: each takes several rounds, in turns, and compares the medians of either side.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from models import chain, real

from onnxpress import host
from onnxpress.bench.bench import bench
from onnxpress.bench.options import BenchOptions
from onnxpress.bench.protocol import REPLICATES

LOOP = """
import sys, time
import numpy as np, onnxruntime as ort
path, threads, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
settings = ort.SessionOptions()
settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
settings.add_session_config_entry("session.force_spinning_stop", "1")
session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
random, bindings = np.random.default_rng(0), []
for _ in range(32):  # one and the same input would stay in the fastest cache
    binding = session.io_binding()
    for each in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in each.shape]
        values = random.standard_normal(shape).astype(np.float32) if "float" in each.type else np.ones(shape, np.int32)
        binding.bind_ortvalue_input(each.name, ort.OrtValue.ortvalue_from_numpy(values))
    for each in session.get_outputs():
        binding.bind_output(each.name)
    bindings.append(binding)
times = []
for number in range(runs):
    binding = bindings[number % 32]
    start = time.perf_counter()
    session.run_with_iobinding(binding)
    times.append(time.perf_counter() - start)
print(1e3 * float(np.median(times[runs // 5:])))
"""


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["alone", "loop", "again"])
    parser.add_argument("models", nargs="*", default=["kws", "resnet20", "squeezenet"])
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--budget", default="10s")
    chosen = parser.parse_args()
    if chosen.what == "again":
        again(chosen.count, chosen.budget)
        return
    for name in chosen.models:
        path = real(name)
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "other.onnx"
            copy.write_bytes(path.read_bytes())
            one: list[float] = []
            other: list[float] = []
            for number in range(chosen.count):
                one.append(p50({"model": path}, chosen.budget, number))
                if chosen.what == "alone":
                    other.append(p50({"model": path, "other": copy}, chosen.budget, number))
                else:
                    other += [loop(path, one[-1]) for _ in range(REPLICATES)]
        first, second = median(one), median(other)
        words = ("alone", "in turns") if chosen.what == "alone" else ("bench", "plain loop")
        change = f"{100 * (second / first - 1):+.1f}%"
        print(f"{name:<12} {words[0]} {first:.4f} ms, {words[1]} {second:.4f} ms: {change}", flush=True)


def p50(models: dict[str, Path], budget: str, seed: int) -> float:
    """Return the median latency of the first model."""
    found = measure(models, budget, seed)["variants"][0]["latency_ms"]["p50"]
    return float(found)


def measure(models: dict[str, Path], budget: str, seed: int) -> dict[str, Any]:
    """Measure models in the scenario `single`."""
    options = BenchOptions.model_validate({"scenarios": ["single"], "budget": budget, "seed": seed})
    return bench(models, baseline=next(iter(models)), options=options, inputs=None).to_json()


def loop(path: Path, run_ms: float) -> float:
    """Return the median latency of a plain loop in a process of its own, pinned as the benchmark's workers are."""
    runs, threads = max(50, int(1500 / run_ms)), host.usable_threads()
    words = [sys.executable, "-c", LOOP, str(path), str(threads), str(runs)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def again(count: int, budget: str) -> None:
    """Measure a pair twice, and again, and count how often the two intervals overlap."""
    with tempfile.TemporaryDirectory() as scratch:
        models = {"ten": chain(Path(scratch), 10), "thirteen": chain(Path(scratch), 13)}
        found = [measure(models, budget, seed) for seed in range(2 * count)]
    intervals = [each["comparisons"][0]["ci95_pct"] for each in found]
    overlaps = 0
    for number in range(count):
        (low, high), (other_low, other_high) = intervals[number], intervals[count + number]  # minutes apart
        overlap = low <= other_high and other_low <= high
        overlaps += overlap
        unfit = 2 - found[number]["fit_for_gating"] - found[count + number]["fit_for_gating"]
        words = f"{'' if overlap else 'apart '}{f'({unfit} of them called unfit)' if unfit else ''}"
        print(f"[{low:+.1f}, {high:+.1f}]  [{other_low:+.1f}, {other_high:+.1f}]  {words}")
    print(f"{overlaps} of {count} overlap")


if __name__ == "__main__":
    main()
