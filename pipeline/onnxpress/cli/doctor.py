"""The command ``doctor``."""

from __future__ import annotations

import click

from onnxpress.cli.shared import Result, common


@click.command()
@common
def doctor(result: Result) -> None:
    """Check this machine: packages, execution providers that really work, CPU features, limits."""
    from dataclasses import asdict

    from onnxpress.doctor import diagnose

    findings = diagnose()
    marks = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.status]}  {finding.name:<20} {finding.value}")
        lines += [f"      {'':<20} {finding.advice}"] if finding.advice else []
    result.show(lines, {"schema": "onnxpress.doctor/1", "findings": [asdict(each) for each in findings]})
