"""The commands ``baseline write|update|show|diff``."""

from __future__ import annotations

from pathlib import Path

import click

from onnxpress.cli.shared import INPUT, OUTPUT, RUN_DIR, Result, common

BASELINE_FILE = Path("compress-baseline.json")


@click.group()
def baseline() -> None:
    """Keep what the last release measured, for the bounds max_growth and max_fall of a policy."""


@baseline.command()
@click.argument("run_dir", type=RUN_DIR)
@click.option("-o", "--output", type=OUTPUT, default=BASELINE_FILE, help="The file to commit.")
@common
def write(run_dir: Path, output: Path, result: Result) -> None:
    """Write the numbers of RUN_DIR that are the same on every machine.

    RUN_DIR may also be what `compress gate MODEL… --report FILE` (or --out FOLDER) wrote.
    """
    from onnxpress.gate.baseline import Baseline
    from onnxpress.report.report import Report

    stored = Baseline.of(Report.load(run_dir))
    result.outputs.write(output, stored.to_json())
    result.show([f"{output}: {len(stored.document['variants'])} variants"], dict(stored.document))


@baseline.command()
@click.argument("run_dir", type=RUN_DIR)
@click.option("--file", "stored", type=INPUT, default=BASELINE_FILE, help="The stored baseline.")
@click.option("--ratchet", is_flag=True, help="Take only what got better; what got worse stays as it was.")
@click.option("--accept", metavar="REASON", help="Take numbers that got worse, too; the reason is kept in the file.")
@common
def update(run_dir: Path, stored: Path, ratchet: bool, accept: str | None, result: Result) -> None:
    """Take the numbers of RUN_DIR into the stored baseline; refused when one got worse or the gate failed."""
    from onnxpress.errors import UsageError
    from onnxpress.gate.baseline import Baseline
    from onnxpress.report.report import Report

    result.outputs.claim(stored, replace=True)
    report, before = Report.load(run_dir), Baseline.load(stored)
    after = Baseline.of(report, accepted=accept)
    changes = before.changes(after)
    worse = [change for change in changes if change.worse]
    if ratchet:
        after, changes = before.ratcheted(after), [change for change in changes if not change.worse]
    elif accept is None and worse:
        raise UsageError(
            f"baseline {stored}: {len(worse)} numbers got worse ({worse[0]}). Keep the better ones with --ratchet, or "
            "take them with --accept REASON."
        )
    if accept is None and report.verdict == "fail":
        raise UsageError(f"baseline {stored}: the gate of {run_dir} failed. Take its numbers with --accept REASON.")
    result.outputs.write(stored, after.to_json())
    lines = [f"{stored}: {len(changes)} numbers changed", *(f"  {change}" for change in changes)]
    result.show(lines, dict(after.document))


@baseline.command()
@click.argument("stored", type=INPUT, default=BASELINE_FILE)
@common
def show(stored: Path, result: Result) -> None:
    """Show what is stored."""
    from onnxpress.gate.baseline import Baseline
    from onnxpress.gate.rules import RULES

    document = Baseline.load(stored).document
    lines = []
    for name, variant in document["variants"].items():
        lines.append(f"{name}  sha256 {str(variant['sha256'])[:12]}")
        known = {rule: value for rule, value in variant["metrics"].items() if rule in RULES}
        lines += [f"  {rule:<28} {RULES[rule].unit.show(value)}" for rule, value in known.items()]
    result.show(lines, dict(document))


@baseline.command()
@click.argument("run_dir", type=RUN_DIR)
@click.option("--file", "stored", type=INPUT, default=BASELINE_FILE, help="The stored baseline.")
@common
def diff(run_dir: Path, stored: Path, result: Result) -> None:
    """Show which numbers of RUN_DIR differ from the stored baseline."""
    from dataclasses import asdict

    from onnxpress.gate.baseline import Baseline
    from onnxpress.report.report import Report

    changes = Baseline.load(stored).changes(Baseline.of(Report.load(run_dir)))
    lines = [str(change) for change in changes] or [f"{run_dir}: as in {stored}"]
    document = {"schema": "onnxpress.baseline-diff/1", "changes": [asdict(change) for change in changes]}
    result.show(lines, document)
