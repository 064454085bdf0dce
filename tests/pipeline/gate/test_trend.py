from __future__ import annotations

import json
from datetime import date

import pytest

from onnxpress.gate import trend
from onnxpress.report.report import Report

TODAY = date(2026, 8, 14)


@pytest.mark.parametrize("smaller", [True, False])
def test_numbers_of_one_direction_as_the_action_reads_them(report: Report, smaller: bool) -> None:
    entries = json.loads(trend.render(report, TODAY, smaller_is_better=smaller))
    by_name = {entry["name"]: entry for entry in entries}
    assert len(by_name) == len(entries)
    assert all(isinstance(entry["value"], (int, float)) and entry["unit"] for entry in entries)
    assert ("int8 size.total_bytes" in by_name) is smaller
    assert ("int8 throughput" in by_name) is not smaller
    if smaller:
        assert by_name["int8 size.total_bytes"] == {
            "name": "int8 size.total_bytes",
            "unit": "bytes",
            "value": 250_000,
        }
        assert by_name["float latency.p50"]["unit"] == "ms"
    else:
        assert by_name["int8 throughput"]["range"] == "900 to 1100"
        assert by_name["int8 accuracy.top1"]["value"] == 97.5
