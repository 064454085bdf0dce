from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from onnxpress.errors import DataError, UsageError
from onnxpress.gate.baseline import Baseline
from onnxpress.gate.gate import gate
from onnxpress.gate.policy import Policy
from onnxpress.report.report import Report

TODAY = date(2026, 8, 14)


def with_int8_size(report: Report, size_bytes: int) -> Report:
    reference, int8 = report.variants
    return dataclasses.replace(report, variants=(reference, {**int8, "size_bytes": size_bytes}))


def test_it_holds_what_is_the_same_on_every_machine(report: Report, tmp_path: Path) -> None:
    stored = Baseline.of(report)
    assert stored.value("int8", "size.total_bytes") == 250_000
    assert stored.value("int8", "accuracy.top1") == 97.5
    assert stored.value("int8", "latency.p50") is None
    assert stored.value("int8", "graph.opset") is None  # neither way is better
    file = tmp_path / "baseline.json"
    file.write_text(stored.to_json())
    assert Baseline.load(file) == stored


def test_changes_and_the_ratchet(report: Report) -> None:
    before = Baseline.of(report)
    assert before.changes(before) == []
    smaller, larger = (Baseline.of(with_int8_size(report, size)) for size in (200_000, 300_000))
    (change,) = before.changes(larger)
    assert (change.variant, change.rule, change.worse) == ("int8", "size.total_bytes", True)
    assert str(change) == "int8  size.total_bytes  250 kB → 300 kB  worse"
    assert not before.changes(smaller)[0].worse
    assert before.ratcheted(larger).value("int8", "size.total_bytes") == 250_000
    assert before.ratcheted(smaller).value("int8", "size.total_bytes") == 200_000


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ("size.total_bytes: [error, {max_growth: 25%}]", "pass"),
        ("size.total_bytes: [error, {max_growth: 24%}]", "fail"),
        ("accuracy.top1: [error, {max_fall: 0pp}]", "pass"),
        ("graph.int8_nodes: [error, {max_fall: 0}]", "pass"),
    ],
)
def test_the_policy_bounds_the_change_since_the_last_release(
    report: Report, policy: Callable[[str], Policy], tmp_path: Path, rule: str, verdict: str
) -> None:
    stored = Baseline.of(with_int8_size(report, 200_000))
    text = f"baseline: {{metrics: last.json}}\nrules:\n  {rule}\n"
    (check,) = gate(report, policy(text), TODAY)
    assert check.verdict == "missing"  # the first release has none
    assert f"`compress baseline write RUN_DIR -o {tmp_path / 'last.json'}`" in check.advice
    (tmp_path / "last.json").write_text(stored.to_json())  # beside the policy
    (check,) = gate(report, policy(text), TODAY)
    assert check.verdict == verdict
    assert report.evaluation is not None
    other = {**report.evaluation, "data": {**report.evaluation["data"], "sha256": "other samples"}}
    (check,) = gate(dataclasses.replace(report, evaluation=other), policy(text), TODAY)
    assert check.verdict == ("inconclusive" if rule.startswith("accuracy") else verdict)
    (tmp_path / "last.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        policy(text)


def test_a_number_of_a_rule_that_is_not_known_here_is_not_shown(
    report: Report, tmp_path: Path, compress: Callable[..., Any]
) -> None:
    document = json.loads(Baseline.of(report).to_json())
    document["variants"]["int8"]["metrics"]["size.of_the_moon"] = 1.0
    (tmp_path / "baseline.json").write_text(json.dumps(document))
    shown = compress("baseline", "show", tmp_path / "baseline.json")
    assert shown.code == 0 and "size.total_bytes" in shown.out and "moon" not in shown.out


def test_what_is_no_baseline(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    with pytest.raises(UsageError, match="compress baseline write"):
        Baseline.load(file)
    for content in ("{", "[]", '{"schema": "onnxpress.report/1"}'):
        file.write_text(content)
        with pytest.raises(DataError, match="Make it with"):
            Baseline.load(file)
