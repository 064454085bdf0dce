"""GitHub Actions: annotations at the policy's lines, a step summary, and outputs for later steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnxpress.files import append_text
from onnxpress.gate.check import Check, outcome
from onnxpress.printing import printable, visible
from onnxpress.report.formats import markdown
from onnxpress.report.report import Report
from onnxpress.report.view import why

ANNOTATIONS = 10  # GitHub shows no more of one level per step
SUMMARY_BYTES = 900_000  # GitHub refuses a summary beyond 1 MiB


def publish(report: Report, policy: str, environment: Mapping[str, str], *, code: int, html: str = "") -> str:
    """Append to the step's summary and outputs, and return the annotations, which go to standard output.

    Args:
        report: With checks.
        policy: Path of the policy file, relative to the repository.
        environment: ``GITHUB_STEP_SUMMARY`` and ``GITHUB_OUTPUT`` name the files; either may be missing.
        code: The exit code.
        html: Path of the HTML report, where one was written.

    """
    failed = sum(check.outcome == "fail" for check in report.checks)
    outputs = {"verdict": outcome(report.checks), "failed": failed, "exit-code": code, "report": html}
    _append(environment.get("GITHUB_STEP_SUMMARY"), summary(report))
    _append(
        environment.get("GITHUB_OUTPUT"),
        "".join(f"{name}={printable(str(value))}\n" for name, value in outputs.items()),
    )
    return commands(report.checks, policy)


def commands(checks: tuple[Check, ...], policy: str) -> str:
    """Return one workflow command per check that is worth reading, at most `ANNOTATIONS` of a level."""
    lines = []
    for level in ("error", "warning", "notice"):
        chosen = [check for check in checks if check.verdict not in ("pass", "skipped") and _level(check) == level]
        for check in chosen[: ANNOTATIONS - 1] if len(chosen) > ANNOTATIONS else chosen:
            place = f"file={_property(policy)},line={check.line or 1},title={_property(check.rule)}"
            message = f"{check.variant}: {check.verdict}, measured {check.measured or 'nothing'}, limit {check.limit}"
            lines.append(f"::{level} {place}::{_data(f'{message}. {why(check)}'.strip())}")
        if len(chosen) > ANNOTATIONS:
            more = f"and {len(chosen) - ANNOTATIONS + 1} more, see the step summary"
            lines.append(f"::{level} file={_property(policy)}::{_data(more)}")
    return "".join(f"{line}\n" for line in lines)


def summary(report: Report) -> str:
    """Return the report in Markdown, cut at a line where it would be too long."""
    text = markdown.render(report).encode()
    if len(text) <= SUMMARY_BYTES:
        return text.decode()
    whole_lines = text[:SUMMARY_BYTES].rpartition(b"\n")[0].decode()
    return f"{whole_lines}\n\nToo long to be shown whole: report.html has all of it.\n"


def _level(check: Check) -> str:
    return "error" if check.outcome != "pass" else "notice" if check.verdict == "waived" else "warning"


def _append(file: str | None, text: str) -> None:
    if file:
        append_text(Path(file), text)


def _data(text: str) -> str:
    return visible(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
