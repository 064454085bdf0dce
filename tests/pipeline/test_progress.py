"""What is shown while something runs."""

from __future__ import annotations

import pytest

from onnxpress.progress import Progress


def test_a_stage_is_shown_below_its_task_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = Progress()
    progress.terminal = True
    with progress.task("prune"), progress.stage("score channels", 4) as advance:
        advance(4)
    shown = capsys.readouterr().err
    assert "  score channels" in shown
    assert shown.endswith(" s)\n")  # the line that stays names the task alone
    assert "score channels" not in shown.rsplit("\n", 2)[-2]


def test_without_a_terminal_only_the_task_leaves_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with progress.task("prune"), progress.stage("score channels", 4) as advance:
        advance(4)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("  prune (")


def test_a_stage_without_a_task_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().stage("score channels", 4) as advance:
        advance(1)
    assert capsys.readouterr().err == ""
