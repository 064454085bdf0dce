"""Numbers for a chart over time, as github-action-benchmark reads them: a list of name, unit, value and range.

The action draws one chart a file, and all of a file either grow or shrink to get better:
``customSmallerIsBetter`` and ``customBiggerIsBetter`` (github.com/benchmark-action/github-action-benchmark).
"""

from __future__ import annotations

import math
from datetime import date

from onnxpress.files import dumps
from onnxpress.gate.estimates import Subject
from onnxpress.gate.rules import RULES
from onnxpress.report.report import Report


def render(report: Report, today: date, *, smaller_is_better: bool) -> str:
    """Return every number that the gate could judge and the report holds, of one direction."""
    entries = []
    for variant in (report.baseline, *report.candidates):
        for name, kind in RULES.items():
            if kind.lower_is_better is not smaller_is_better or kind.listed:
                continue
            value = kind.read(Subject(report=report, variant=variant, today=today), kind.unit).value
            if value is None or not math.isfinite(value.value):
                continue
            entry = {"name": f"{variant} {name}", "unit": kind.unit.name or "count", "value": value.value}
            if value.interval is not None:
                entry["range"] = f"{value.low:.6g} to {value.high:.6g}"
            entries.append(entry)
    return dumps(entries)
