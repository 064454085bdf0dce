from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from onnxpress.report.report import Report

HOSTILE = """<script>alert("1")</script> & 'x' | `y` \x1b[31m {{ 7 * 7 }} </title> ]]> [l](http://e.com)\n# h"""


@pytest.fixture
def report() -> Report:
    """Five variants of a residual CNN, everything measured, judged by a policy of seven rules."""
    return Report.load(Path(__file__).parent / "sample_report.json")


@pytest.fixture
def bare(report: Report) -> Report:
    """The same variants, nothing measured, no policy."""
    return dataclasses.replace(report, created=None, export=None, evaluation=None, bench=None, cost=None, checks=())


@pytest.fixture
def hostile(report: Report) -> Report:
    """A report whose names and reasons try to be markup."""
    text = report.to_json()
    renamed = Report.from_json(
        text.replace('"int8-dynamic"', _quoted(HOSTILE)).replace('"node_linear"', _quoted(HOSTILE))
    )
    return dataclasses.replace(renamed, recipe={"name": HOSTILE})


def _quoted(text: str) -> str:
    import json

    return json.dumps(text)
