"""How often the benchmark is right: models against themselves, a true slowdown, a true speed-up.

    python benchmarks/bench/gates.py same --count 50      at most 2 may fail
    python benchmarks/bench/gates.py slower --count 100   +10%, limit 5%: at least 95 must fail
    python benchmarks/bench/gates.py faster               SqueezeNet, about 5% less work, within 60 s

`same` and `slower` take about ten seconds a gate; `--seed` continues a series that was cut into pieces.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from models import chain, real, with_more_work

from onnxpress.bench.bench import bench
from onnxpress.bench.options import BenchOptions

EXTRA = 6
"""Elementwise steps on SqueezeNet's image that take about 5% of its time."""


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["same", "slower", "faster"])
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--budget", default="20s", help="of one gate of `same` and `slower`, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the first gate")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if chosen.what == "faster":
            faster(folder, chosen.count, chosen.seed)
            return
        operators = 10 if chosen.what == "same" else 11
        models = {"float": chain(folder, 10), "candidate": _copy(chain(folder, operators), folder / "candidate.onnx")}
        print("verdict        change [95%]            pairs  seconds")
        verdicts: Counter[str] = Counter()
        excluded = 0
        for seed in range(chosen.seed, chosen.seed + chosen.count):
            change, seconds = gate(models, chosen.budget, seed)
            verdicts[change["verdict"]] += 1
            excluded += not change["ci95_pct"][0] <= 0 <= change["ci95_pct"][1]
            print(_line(change, seconds), flush=True)
        print(f"{chosen.count} gates: {dict(verdicts)}; the interval excludes 0 in {excluded}")


def faster(folder: Path, count: int, seed: int) -> None:
    """Compare SqueezeNet with a copy that does about 5% more work, which is the baseline."""
    light = real("squeezenet")
    heavy = with_more_work(light, folder / "heavy.onnx", repeats=EXTRA)
    for number in range(count):
        change, seconds = gate({"heavy": heavy, "light": light}, "60s", seed + number)
        print(f"{'improved' if change['improved'] else 'not improved'}: {_line(change, seconds)}", flush=True)


def gate(models: dict[str, Path], budget: str, seed: int) -> tuple[dict[str, Any], float]:
    """Return the comparison of two models, and how long it took; its verdict is that of a gate."""
    options = BenchOptions.model_validate({"scenarios": ["single"], "budget": budget, "seed": seed})
    start = time.perf_counter()
    found = bench(models, baseline=next(iter(models)), options=options, inputs=None).to_json()
    (change,) = found["comparisons"]
    if not found["fit_for_gating"]:  # a gate does not decide on such timings
        change["verdict"] = "unfit"
    return change, time.perf_counter() - start


def _line(change: dict[str, Any], seconds: float) -> str:
    low, high = change["ci95_pct"]
    interval = f"{change['change_pct']:+.1f}% [{low:+.1f}, {high:+.1f}]"
    return f"{change['verdict']:<14} {interval:<24} {change['pairs']:>4} {seconds:7.1f}"


def _copy(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target


if __name__ == "__main__":
    main()
