"""The files of a report: one place knows which suffix is which form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnxpress.errors import UsageError
from onnxpress.files import Outputs
from onnxpress.report.formats import html, markdown
from onnxpress.report.report import Report

FORMS: dict[str, Callable[[Report], str]] = {".html": html.render, ".md": markdown.render, ".json": Report.to_json}


def render(report: Report, output: Path) -> str:
    """Return the report in the form that an output's suffix names.

    Raises:
        UsageError: it names none.
    """
    if output.suffix not in FORMS:
        raise UsageError(
            f"output {output}: the suffix says the format, and {output.suffix!r} is none. Use .html, .md or .json."
        )
    return FORMS[output.suffix](report)


def write(report: Report, folder: Path) -> None:
    """Write the report of a run into its folder, in every form: all of them or none."""
    with Outputs() as outputs:
        for suffix in FORMS:
            place = folder / f"report{suffix}"
            outputs.claim(place, replace=True)
            outputs.write(place, render(report, place))
        outputs.publish()
