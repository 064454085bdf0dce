"""Run the recipes of this folder on the real models and print one table.

    python benchmarks/real/run.py [NAME …] [-o FOLDER]

The models are not part of the project: ``ONNXPRESS_REAL_DATA`` names their folder (default ``../shared/real`` beside
the checkout). Every number comes from the run's report.json; a recipe whose gate fails is shown as such, not hidden.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from onnxpress import runner
from onnxpress.progress import Progress
from onnxpress.recipe import Recipe
from onnxpress.report.report import Report

HERE = Path(__file__).parent
DEFAULT = HERE.parents[2] / "shared" / "real"


def main() -> None:
    """Run what was asked for."""
    names = sorted(path.stem for path in HERE.glob("*.yaml") if not path.stem.startswith("gate"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=names, help=f"default: {' '.join(names)}")
    parser.add_argument("-o", "--output", type=Path, default=Path("real-run"))
    chosen = parser.parse_args()
    os.environ.setdefault("ONNXPRESS_REAL_DATA", str(DEFAULT))
    if not Path(os.environ["ONNXPRESS_REAL_DATA"]).is_dir():
        sys.exit(f"skipped: there is no folder {os.environ['ONNXPRESS_REAL_DATA']} (set ONNXPRESS_REAL_DATA)")
    lines = []
    for name in chosen.names:
        report = runner.run(Recipe.load(HERE / f"{name}.yaml"), chosen.output / name, Progress())
        lines += rows(name, report)
    head = f"{'model':<11} {'variant':<13} {'MB':>7} {'metric':>7} {'drop [95 %]':>20} {'SQNR dB':>8}"
    print("\n".join([f"{head} {'latency ratio [95 %]':>23}", *lines]))


def rows(name: str, report: Report) -> list[str]:
    """Return one line per variant."""
    lines = []
    for variant in (report.baseline, *report.candidates):
        quality, change, speed = report.quality(variant), report.quality_change(variant), report.speed_change(variant)
        value = f"{quality['value']:.2f}" if quality and quality["value"] is not None else "-"
        drop, sqnr, ratio = "-", "-", "1"
        if change is not None:
            interval = f" [{change['ci95'][0]:.2f}, {change['ci95'][1]:.2f}]" if change["ci95"] else ""
            drop = f"{change['drop']:.2f}{interval}"
        if quality and quality["sqnr_db"] is not None:
            sqnr = f"{quality['sqnr_db']:.1f}"
        if speed is not None:
            low, high = (1 + end / 100 for end in speed["ci95_pct"])
            ratio = f"{1 + speed['change_pct'] / 100:.3f} [{low:.3f}, {high:.3f}]"
        size = report.variant(variant)["size_bytes"] / 1e6
        failed = [check.rule for check in report.checks_of(variant) if check.verdict in ("fail", "missing")]
        verdict = f"  gate fails: {', '.join(failed)}" if failed else ""
        lines.append(f"{name:<11} {variant:<13} {size:7.3f} {value:>7} {drop:>20} {sqnr:>8} {ratio:>23}{verdict}")
    return lines


if __name__ == "__main__":
    main()
