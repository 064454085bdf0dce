from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from onnxpress.gate import github
from onnxpress.gate.check import Check, Level, Verdict
from onnxpress.report.report import Report


def check(verdict: Verdict, level: Level = "error", line: int = 4, reason: str = "why") -> Check:
    return Check(
        rule="latency.p50",
        variant="int8",
        level=level,
        verdict=verdict,
        measured="9%",
        limit="max 8%",
        reason=reason,
        line=line,
    )


def test_commands_point_at_the_policy() -> None:
    text = github.commands((check("fail"), check("pass"), check("warn", "warn"), check("waived")), "a,b:c%.yaml")
    place = "file=a%2Cb%3Ac%25.yaml,line=4,title=latency.p50"
    assert text.splitlines() == [
        f"::error {place}::int8: fail, measured 9%25, limit max 8%25. why",
        f"::warning {place}::int8: warn, measured 9%25, limit max 8%25. why",
        f"::notice {place}::int8: waived, measured 9%25, limit max 8%25. why",
    ]


def test_a_reason_cannot_start_a_command_of_its_own() -> None:
    text = github.commands((check("fail", reason="x\r\n::set-output name=verdict::pass"),), "p.yaml")
    assert len(text.splitlines()) == 1
    assert "%0D%0A::set-output" in text


def test_no_more_annotations_than_are_shown() -> None:
    many = tuple(check("fail", line=line) for line in range(25))
    lines = github.commands(many, "p.yaml").splitlines()
    assert len(lines) == github.ANNOTATIONS
    assert lines[-1] == "::error file=p.yaml::and 16 more, see the step summary"
    assert len(github.commands(many[:10], "p.yaml").splitlines()) == 10


def test_publish_appends_to_the_files_it_is_given(tmp_path: Path, report: Report) -> None:
    judged = dataclasses.replace(report, cost=None).with_checks([check("fail"), check("missing"), check("pass")])
    output, summary = tmp_path / "output", tmp_path / "summary"
    output.write_text("before=1\n")
    github.publish(judged, "p.yaml", {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}, code=1)
    assert output.read_text().splitlines() == ["before=1", "verdict=fail", "failed=1", "exit-code=1", "report="]
    assert summary.read_text(encoding="utf-8").startswith("# tiny\n")
    assert github.publish(judged, "p.yaml", {}, code=1).count("::error") == 2


def test_a_summary_stays_below_what_github_takes(report: Report) -> None:
    many = [dataclasses.replace(check("fail", reason="é " * 1000), variant=f"v{index}") for index in range(500)]
    text = github.summary(dataclasses.replace(report, cost=None).with_checks(many))
    assert len(text.encode()) < 1_000_000
    assert text.endswith("report.html has all of it.\n")
    assert re.search(r"\|\n\nToo long", text)
