from __future__ import annotations

import dataclasses
import io
import json
import sys
from typing import Any

import pytest

from onnxpress.report import view
from onnxpress.report.formats import terminal
from onnxpress.report.report import Report


@pytest.mark.parametrize("width", [80, 100, 160])
def test_nothing_is_wider_than_the_terminal(report: Report, width: int) -> None:
    for text in (terminal.render(report, width=width), terminal.gate(report, "gate.yaml", 1, width=width)):
        assert max(len(line) for line in text.splitlines()) <= width
        assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("width", [100, 160])
def test_no_number_is_cut(report: Report, width: int) -> None:
    assert "…" not in terminal.render(report, width=width)


def test_a_wide_terminal_has_one_line_per_variant(report: Report) -> None:
    lines = terminal.render(report, width=180).splitlines()
    (row,) = (line for line in lines if line.startswith("int8 "))
    assert row.split() == [
        *(
            "int8",
            "294",
            "kB",
            "0.27×",
            "1.29",
            "ms",
            "0.442×",
            "[0.437,",
            "0.448]",
            "98.06%",
            "drop",
            "0.28",
            "pp",
            "[−1.15,",
            "1.82]",
        ),
        *("99.2%", "30.6", "dB", "0.148", "0.44×", "31", "/", "1", "✓", "pass", "6", "of", "7"),
    ]


def test_a_pipe_gets_plain_text(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert "\x1b" not in terminal.render(report)
    assert "\x1b" in terminal.render(report, colour=True)
    assert "\x1b" not in terminal.render(report, colour=False)


def test_no_color_is_respected(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in terminal.render(report)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in terminal.render(report)


def test_names_do_not_steer_the_terminal(hostile: Report) -> None:
    for text in (terminal.render(hostile), terminal.gate(hostile, "gate.yaml", 1)):
        assert "\x1b" not in text
        assert "[l](http://e.com)" in text.replace("\n", "")


def test_the_gate_shows_every_check_and_the_exit_code(report: Report) -> None:
    text = terminal.gate(report, "gate.yaml", 1, width=200)
    assert "1 fail, 4 inconclusive, 6 warn, 1 waived, 16 pass → exit 1." in text
    assert "To accept it all the same, edit gate.yaml:3 or add a waiver." in text
    assert text.splitlines()[1].startswith("✗ fail")  # what stops the release comes first
    assert "2 variants" in text  # what all of them pass takes one line
    narrow = terminal.gate(report, "gate.yaml", 1, width=80)
    assert max(len(line) for line in narrow.splitlines()) <= 80
    assert "…" not in narrow
    passed = terminal.gate(
        report.with_checks([check for check in report.checks if check.outcome == "pass"]), "gate.yaml", 0, width=200
    )
    assert "→ exit 0." in passed
    assert "To accept" not in passed


def test_a_model_for_another_kind_of_cpu_is_named_by_every_command(report: Report) -> None:
    assert report.evaluation is not None and report.bench is not None
    line = "int8: was quantized for vnni CPUs"
    timed = {"code": "other-cpu", "message": line}
    evaluation = {**report.evaluation, "warnings": [line]}
    bench = {
        **report.bench,
        "warnings": [*report.bench["warnings"], timed],
        "host": {**report.bench["host"], "kind": "avx2"},
    }
    both = dataclasses.replace(report, evaluation=evaluation, bench=bench)
    for shown in (terminal.evaluation(evaluation), terminal.bench(bench), terminal.gate(both, "gate.yaml", 0)):
        assert shown.count(line) == 1
    assert terminal.gate(report, "gate.yaml", 0).count(line) == 0
    assert list(view.limits(both)).count(line) == 1  # said once, though both measurements warn of it
    assert any(" (avx2) with onnxruntime" in limit for limit in view.limits(both))


def test_documents_can_be_shown_alone(report: Report) -> None:
    assert report.evaluation is not None and report.bench is not None and report.cost is not None
    evaluation = terminal.evaluation(dict(report.evaluation))
    assert "0.28 [−1.15, 1.82] pp" in evaluation and "30.6 dB" in evaluation
    bench = terminal.bench(dict(report.bench))
    assert "0.442× [0.437, 0.448]" in bench and "216 ms" in bench and "2 of 30 pairs were disturbed" in bench
    cost = terminal.cost(dict(report.cost))
    assert "0.148 [0.146, 0.151]" in cost and "−55.8%" in cost and "2026-07-30" in cost


def renamed(report: Report, names: dict[str, str]) -> Report:
    def of(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: of(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [of(each) for each in value]
        return names.get(value, value) if key in ("id", "candidate", "variant") else value

    return Report.from_json(json.dumps(of(json.loads(report.to_json()))))


LONG = {
    "int8-dynamic": "int8-dynamic-per-channel-weights",
    "int8": "int8-static-calibrated-with-minmax",
    "pruned": "pruned-to-70-percent-of-the-macs",
    "pruned-int8": "pruned-to-70-percent-then-int8",
}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_names_stay_whole_and_columns_go(report: Report, width: int) -> None:
    lines = terminal.render(renamed(report, LONG), width=width).splitlines()
    table = lines[: next(index for index, line in enumerate(lines) if line.startswith("Ratios are to"))]
    for name in LONG.values():
        assert [line for line in table if line.startswith(f"{name} ")], name
    assert max(map(len, lines)) <= width
    said = "Not shown here: column" in " ".join(lines)
    assert said == (width < 120)
    assert [line for line in table if line.startswith("float ") and "baseline" in line]  # the verdict stays


def test_a_document_keeps_its_names_too(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = renamed(report, LONG)
    for text in (terminal.bench(dict(long.bench or {})), terminal.evaluation(dict(long.evaluation or {}))):
        assert max(map(len, text.splitlines())) <= 80
        for name in LONG.values():
            assert [line for line in text.splitlines() if line.startswith(name)], name


def test_the_banner_says_what_failed_by_how_much_and_what_to_do(report: Report) -> None:
    lines = terminal.render(report, width=200).splitlines()
    assert lines[1].startswith("The gate fails: 1 fail, ")
    assert lines[2].startswith(
        "✗ fail size.total_bytes of pruned: 798 kB, 0.72× of float: above max_ratio 0.35. Quantize"
    )
    assert lines[3].startswith(
        "~ waived latency.p50 of int8-dynamic: 3.40 ms, 1.17× [1.15, 1.18] of float: until 2026-12"
    )


def test_a_pass_without_all_of_the_evidence_says_so(report: Report) -> None:
    skipped = [
        dataclasses.replace(check, verdict="skipped", level="error", reason="--static times nothing")
        if check.rule.startswith("latency.")
        else dataclasses.replace(check, verdict="pass")
        for check in report.checks
    ]
    judged = report.with_checks(skipped)
    left = "Not judged, though they may stop a release: latency.p50, latency.p99 (--static times nothing)."
    for text in (terminal.render(judged, width=300), terminal.gate(judged, "gate.yaml", 0, width=300)):
        assert left in text
    assert "The gate passes what it judged: " in terminal.render(judged, width=300)
