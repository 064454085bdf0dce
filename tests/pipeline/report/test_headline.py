"""What is recommended: within bounds, on sound timings, never a ruined model; and what is said where nothing is."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from onnxpress.report.formats import html, markdown, terminal
from onnxpress.report.loss import loss
from onnxpress.report.report import Report

Document = dict[str, Any]


@pytest.fixture
def measured(report: Report) -> Report:
    """Without a policy; float, int8-dynamic, int8, pruned and the fastest, pruned-int8."""
    return report.with_checks(())


def with_drops(report: Report, drops: dict[str, tuple[float, list[float] | None]]) -> Report:
    evaluation = copy.deepcopy(dict(report.evaluation or {}))
    for change in evaluation["comparisons"]:
        drop, ci95 = drops.get(change["candidate"], (0.0, [-0.3, 0.3]))
        change |= {"drop": drop, "ci95": ci95}
    return dataclasses.replace(report, evaluation=evaluation)


def unlabelled(report: Report, change: Callable[[Document], Document]) -> Report:
    evaluation = copy.deepcopy(dict(report.evaluation or {})) | {"metric": None, "comparisons": []}
    for variant in evaluation["variants"][1:]:
        variant |= {"value": None} | change(variant)
    return dataclasses.replace(report, evaluation=evaluation)


def test_the_fastest_within_the_default_bound(measured: Report) -> None:
    found = with_drops(measured, {"pruned-int8": (81.91, [78.0, 85.0])}).headline
    assert found.variant == "int8"
    assert found.text.startswith("Fastest variant within the default bound (top1 drop ≤ 1 pp): int8, 0.27× the size")
    assert found.text.endswith("Ruined: pruned-int8 (top1 drop 81.91 [78.00, 85.00] pp).")


def test_a_price_is_named_only_where_the_speed_is_proven(measured: Report) -> None:
    assert "per million inferences" in with_drops(measured, {}).headline.text
    bench = copy.deepcopy(dict(measured.bench or {}))
    for change in bench["comparisons"]:
        change |= {"ci95_pct": [-44.0, 4.0]}
    text = with_drops(dataclasses.replace(measured, bench=bench), {}).headline.text
    assert "1.04] the latency" in text and "USD" not in text


def test_small_evidence_recommends_nothing_and_says_what_would_decide(measured: Report) -> None:
    found = with_drops(measured, {name: (0.28, [-1.2, 1.8]) for name in measured.candidates}).headline
    assert found.variant is None
    assert "no variant is shown to be within the default bound (top1 drop ≤ 1 pp)" in found.text
    assert "about 1700 samples would decide" in found.text


def test_when_all_lose_the_float_model_stays(measured: Report) -> None:
    found = with_drops(measured, {name: (3.0, [2.0, 4.0]) for name in measured.candidates}).headline
    assert (found.variant, found.text) == (
        None,
        "No variant is within the default bound (top1 drop ≤ 1 pp): float stays.",
    )


def test_unsound_timings_recommend_nothing(report: Report) -> None:
    assert report.bench is not None
    noisy = dataclasses.replace(report, bench={**report.bench, "fit_for_gating": False})
    for found in (noisy.headline, with_drops(noisy.with_checks(()), {}).headline):
        assert found.variant is None
        assert "the timings are not fit for a decision" in found.text
        assert "the latency" not in found.text  # no number that rests on them


def test_a_slower_variant_is_not_recommended(report: Report) -> None:
    assert report.bench is not None
    slow = [{**change, "change_pct": 80.0, "ci95_pct": [75.0, 90.0]} for change in report.bench["comparisons"]]
    found = dataclasses.replace(report, bench={**report.bench, "comparisons": slow}).headline
    assert found.variant is None
    assert "that passes is faster than float" in found.text


def test_a_policy_that_would_let_a_ruined_model_pass_does_not_recommend_it(report: Report) -> None:
    sizes = [dataclasses.replace(check, verdict="pass") for check in report.checks if check.rule.startswith("size.")]
    ruined = with_drops(report, {"pruned-int8": (81.91, [78.0, 85.0])}).with_checks(sizes)
    assert ruined.verdict == "pass"
    assert ruined.headline.variant == "int8"


def test_missing_evidence_is_no_failure(report: Report) -> None:
    missing = [dataclasses.replace(check, verdict="missing", level="error") for check in report.checks]
    assert report.with_checks(missing).headline.text == "No variant is shown to pass it."


def test_what_the_policy_allows_is_recommended(report: Report) -> None:
    allowed = [dataclasses.replace(check, verdict="pass") for check in report.checks]
    assert with_drops(report, {"pruned-int8": (3.0, [2.0, 4.0])}).with_checks(allowed).headline.variant == "pruned-int8"


@pytest.mark.parametrize(
    ("agreement", "ends", "sqnr_db", "state"),
    [
        (99.9, [99.3, 100.0], 30.0, "kept"),
        (100.0, [98.9, 100.0], 30.0, "open"),
        (97.0, [96.0, 98.0], 30.0, "lost"),
        (12.0, [9.0, 15.0], 2.0, "ruined"),
        (60.0, [55.0, 65.0], 25.0, "lost"),  # an embedding: its largest number is no answer
        (None, None, 25.0, "kept"),
        (None, None, 15.0, "lost"),
        (None, None, 3.0, "ruined"),
    ],
)
def test_without_labels_answers_or_noise_stand_in(
    measured: Report, agreement: float | None, ends: list[float] | None, sqnr_db: float, state: str
) -> None:
    ci95 = {"agreement_pct": ends, "sqnr_db": [sqnr_db - 0.5, sqnr_db + 0.5]}
    found = unlabelled(measured, lambda _: {"agreement_pct": agreement, "sqnr_db": sqnr_db, "ci95": ci95})
    assert loss(found, "int8").state == state


def test_labels_that_say_nothing_do_not_hide_another_model(measured: Report) -> None:
    same = with_drops(measured, {})
    assert same.evaluation is not None
    variants = [
        variant | {"agreement_pct": 11.0, "sqnr_db": 0.4} if variant["id"] == "int8" else variant
        for variant in same.evaluation["variants"]
    ]
    found = dataclasses.replace(same, evaluation={**same.evaluation, "variants": variants})
    assert (loss(found, "int8").state, loss(found, "int8").text) == ("ruined", "agreement 11.00%")


def test_a_metric_of_ones_own_is_bounded_by_its_value(measured: Report) -> None:
    assert measured.evaluation is not None
    own = with_drops(measured, {name: (0.02, [0.015, 0.025]) for name in measured.candidates})
    evaluation = copy.deepcopy(dict(own.evaluation or {}))
    evaluation["metric"] = {"name": "f1", "unit": "", "higher_is_better": True}
    evaluation["variants"][0]["value"] = 0.9
    for change in evaluation["comparisons"]:
        change["metric"] = "accuracy.f1"
    found = loss(dataclasses.replace(own, evaluation=evaluation), "int8")
    assert (found.state, found.bound) == ("lost", "f1 drop ≤ 1% of the value of float")


def test_ruin_is_marked_in_every_form(measured: Report) -> None:
    ruined = with_drops(measured, {"pruned": (81.91, [78.0, 85.0])})
    assert ruined.headline.ruined == ("pruned",)
    assert markdown.render(ruined).count("🔴 ✗ ruined") == 1
    assert 'class="number gate fail"><span>✗ ruined' in html.render(ruined)
    red = "\x1b[1;31m"
    text = terminal.render(ruined, width=200, colour=True)
    assert f"{red}pruned " in text
    assert f"{red}✗ ruined\x1b" in text
    assert f"{red}int8 " not in text


def test_the_file_holds_the_headline_that_is_shown(report: Report) -> None:
    stored = json.loads(report.to_json())["headline"]
    assert stored == {"variant": report.headline.variant, "text": report.headline.text, "ruined": []}
    for render in (html.render, markdown.render):
        assert report.headline.variant is not None
        assert report.headline.variant in render(report)
