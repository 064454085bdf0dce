"""The files a gate leaves: one function that knows all forms, so that ``--out`` and the single options agree."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from onnxpress.files import Outputs, dumps
from onnxpress.gate import junit, sarif, trend
from onnxpress.gate.check import exit_code
from onnxpress.gate.policy import Policy
from onnxpress.report.formats import html, markdown
from onnxpress.report.report import Report

FILES = {
    "report": "report.json",
    "json": "gate.json",
    "junit": "gate.xml",
    "sarif": "gate.sarif",
    "markdown": "gate.md",
    "html": "gate.html",
    "benchmark": "benchmark.json",
}
"""Name of each form in a folder."""


def document(report: Report, policy: Policy, code: int) -> dict[str, Any]:
    """Return the result in the schema onnxpress.gate/1."""
    return {
        "schema": "onnxpress.gate/1",
        "verdict": report.verdict,
        "exit_code": code,
        "policy": {"path": policy.path, "sha256": policy.sha256},
        "baseline": report.baseline,
        "variants": list(report.candidates),
        "checks": [check.to_json() for check in report.checks],
        "waivers": [
            {
                "rule": waiver.rule,
                "owner": waiver.owner,
                "reason": waiver.reason,
                "issue": waiver.issue or None,
                "expires": waiver.expires.isoformat(),
                "bounds": [str(limit) for limit in waiver.limits],
                "line": waiver.line,
            }
            for waiver in policy.waivers
        ],
    }


def paths(files: Mapping[str, Path]) -> list[Path]:
    """Return every file that `write` writes."""
    return [*files.values(), *([_bigger(files["benchmark"])] if "benchmark" in files else [])]


def write(files: Mapping[str, Path], report: Report, policy: Policy, today: date, outputs: Outputs) -> None:
    """Stage the forms that were asked for.

    Args:
        files: Path by form, a key of `FILES`. Beside the file of ``benchmark``, whose numbers are better when smaller,
            ``NAME-bigger.json`` holds those that are better when bigger.
        report: With checks.
        policy: What it was judged by.
        today: The day of it.
        outputs: Those of the command.

    """
    for form, path in files.items():
        if form == "report":
            outputs.write(path, report.to_json())
        elif form == "json":
            outputs.write(path, dumps(document(report, policy, exit_code(report.checks))))
        elif form == "junit":
            outputs.write(path, junit.render(report.checks))
        elif form == "sarif":
            outputs.write(path, sarif.render(report.checks, policy.path))
        elif form == "markdown":
            outputs.write(path, markdown.render(report))
        elif form == "html":
            outputs.write(path, html.render(report))
        else:
            outputs.write(path, trend.render(report, today, smaller_is_better=True))
            outputs.write(_bigger(path), trend.render(report, today, smaller_is_better=False))


def _bigger(path: Path) -> Path:
    return path.with_name(f"{path.stem}-bigger{path.suffix}")
