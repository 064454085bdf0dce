from __future__ import annotations

import io
import sys

import pytest

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
    lines = terminal.render(report, width=160).splitlines()
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
            "0.28",
            "[−1.15,",
            "1.82]",
        ),
        *("99.2%", "30.6", "dB", "0.148", "0.44×", "31", "1", "✓", "pass", "6", "of", "7"),
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
    assert "To accept it, edit gate.yaml:3 or add a waiver." in text
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


def test_documents_can_be_shown_alone(report: Report) -> None:
    assert report.evaluation is not None and report.bench is not None and report.cost is not None
    evaluation = terminal.evaluation(dict(report.evaluation))
    assert "0.28 [−1.15, 1.82] pp" in evaluation and "30.6 dB" in evaluation
    bench = terminal.bench(dict(report.bench))
    assert "0.442× [0.437, 0.448]" in bench and "216 ms" in bench and "2 of 30 pairs were disturbed" in bench
    cost = terminal.cost(dict(report.cost))
    assert "0.148 [0.146, 0.151]" in cost and "−55.8%" in cost and "2026-07-30" in cost
