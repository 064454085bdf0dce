from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from onnxpress.gate import initial, reader
from onnxpress.gate.check import exit_code
from onnxpress.gate.gate import gate
from onnxpress.gate.policy import Policy
from onnxpress.report.report import Report

TODAY = date(2026, 8, 14)


@pytest.mark.parametrize("headroom", [0.0, 0.25, 1.0])
def test_what_it_was_written_from_passes(report: Report, tmp_path: Path, headroom: float) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(initial.policy(report, report.candidates, headroom=headroom, today=TODAY))
    found = reader.read(file)
    assert {"size.total_bytes", "accuracy.top1", "latency.p50", "cost.usd_per_million"} <= found.rules.keys()
    assert "latency.p99" not in found.rules  # not measured
    checks = gate(report, found, TODAY)
    assert {check.verdict for check in checks} == {"pass"}
    assert exit_code(checks) == 0


def test_what_is_beyond_the_headroom_fails(report: Report, policy: Callable[[str], Policy]) -> None:
    text = initial.policy(report, report.candidates, headroom=0.25, today=TODAY)
    assert "size.total_bytes: [error, {max: 0.313 MB, max_ratio: 0.29x}]" in text
    assert "# measured 250 kB, 0.25× of float" in text
    reference, int8 = report.variants
    grown = dataclasses.replace(report, variants=(reference, {**int8, "size_bytes": 320_000}))
    checks = gate(grown, policy(text.partition("\n")[2].replace("schema: onnxpress.policy/1\n", "")), TODAY)
    assert [check.rule for check in checks if check.verdict == "fail"] == ["size.total_bytes"]
