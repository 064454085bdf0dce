from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from onnxpress.errors import EvidenceError, UsageError
from onnxpress.gate.check import Check, exit_code, outcome
from onnxpress.gate.gate import gate
from onnxpress.gate.policy import Policy
from onnxpress.report.report import Report

Judge = Callable[..., Check]
TODAY = date(2026, 8, 14)


def with_drop(report: Report, drop: float, ci95: list[float] | None, *, lost: int = 7, won: int = 2) -> Report:
    assert report.evaluation is not None
    change = report.evaluation["comparisons"][0] | {"drop": drop, "ci95": ci95, "lost": lost, "won": won}
    return dataclasses.replace(report, evaluation={**report.evaluation, "comparisons": [change]})


def with_change(report: Report, change_pct: float, ci95_pct: list[float]) -> Report:
    assert report.bench is not None
    change = report.bench["comparisons"][0] | {"change_pct": change_pct, "ci95_pct": ci95_pct}
    return dataclasses.replace(report, bench={**report.bench, "comparisons": [change]})


def with_int8_facts(report: Report, facts: dict[str, Any]) -> Report:
    reference, int8 = report.variants
    return dataclasses.replace(report, variants=(reference, {**int8, **facts}))


@pytest.mark.parametrize(
    ("rule", "verdict", "measured"),
    [
        ("size.total_bytes: [error, {max: 250 kB, max_ratio: 0.25}]", "pass", "250 kB, 0.25× of float"),
        ("size.total_bytes: [error, {max: 249 kB}]", "fail", "250 kB, 0.25× of float"),
        ("size.total_bytes: [error, {max: 1 MB, max_ratio: 0.2}]", "fail", "250 kB, 0.25× of float"),
        ("size.total_bytes: [warn, {max: 249 kB}]", "warn", "250 kB, 0.25× of float"),
        ("size.parameters: [error, {max_ratio: 0.9}]", "fail", "250k, 1.00× of float"),
        ("graph.opset: [error, {max: 20}]", "fail", "21"),
        ("graph.opset: [error, {min: 21, max: 21}]", "pass", "21"),
        ("graph.int8_nodes: [error, {min: 9}]", "fail", "8"),
        ("graph.float_nodes: [error, {max: 1}]", "pass", "1"),
        ("accuracy.top1: [error, {min: 96.5%}]", "pass", "97.50%, drop 0.50 [−0.10, 1.10] pp"),
        ("accuracy.top1: [error, {min: 97%}]", "inconclusive", "97.50%, drop 0.50 [−0.10, 1.10] pp"),
        ("accuracy.top1: [error, {min: 99%}]", "fail", "97.50%, drop 0.50 [−0.10, 1.10] pp"),
        ("fidelity.agreement: [error, {min: 98%}]", "pass", "99.00%"),
        ("fidelity.agreement: [error, {min: 99%}]", "inconclusive", "99.00%"),
        ("fidelity.agreement: [error, {min: 99.6%}]", "fail", "99.00%"),
        ("fidelity.cosine_p01: [error, {min: 0.9}]", "inconclusive", "0.98000"),
        ("fidelity.cosine: [error, {min: 0.9995}]", "fail", "0.99900"),
        ("fidelity.sqnr_db: [error, {min: 30 dB}]", "pass", "33.0 dB"),
        ("fidelity.sqnr_db: [error, {min: 33 dB}]", "inconclusive", "33.0 dB"),
        ("memory.rss_peak: [error, {max: 40 MB}]", "fail", "50.0 MB, 1.00× [0.96, 1.04] of float"),
        ("memory.rss_peak: [error, {max: 50 MB}]", "inconclusive", "50.0 MB, 1.00× [0.96, 1.04] of float"),
        ("cold_start.first_result: [error, {max: 130 ms}]", "pass", "125 ms, 1.00× [0.92, 1.08] of float"),
        ("cold_start.first_result: [error, {max: 125 ms}]", "inconclusive", "125 ms, 1.00× [0.92, 1.08] of float"),
        ("latency.p50: [error, {max: 1.02 ms}]", "pass", "1.00 ms, 0.25× [0.24, 0.26] of float"),
        ("latency.p50: [error, {max: 1 ms}]", "inconclusive", "1.00 ms, 0.25× [0.24, 0.26] of float"),
        ("latency.p90: [error, {max: 9 ms}]", "inconclusive", "1.00 ms"),
        ("latency.p90: [error, {max: 0.9 ms}]", "fail", "1.00 ms"),
        ("latency.p95: [error, {max: 9 ms}]", "inconclusive", "1.00 ms"),
        ("latency.p50: [error, {max_ratio: 0.26}]", "pass", "1.00 ms, 0.25× [0.24, 0.26] of float"),
        ("latency.p50: [error, {max_regression: -80%}]", "fail", "1.00 ms, 0.25× [0.24, 0.26] of float"),
        ("throughput: [error, {min: 900/s}]", "pass", "1000/s, 4.00× [3.27, 4.89] of float"),
        ("throughput: [error, {min: 1200/s}]", "fail", "1000/s, 4.00× [3.27, 4.89] of float"),
        ("throughput: [error, {min_ratio: 4}]", "inconclusive", "1000/s, 4.00× [3.27, 4.89] of float"),
        (
            "cost.usd_per_million: [error, {max: 0.17 USD}]",
            "pass",
            "0.150 USD, 0.25× [0.20, 0.31] of float on small",
        ),
        (
            "cost.usd_per_million: [error, {max: 0.17 USD, instance: big}]",
            "fail",
            "0.200 USD, 0.25× [0.20, 0.31] of float on big",
        ),
    ],
)
def test_every_rule_reads_its_number(judge: Judge, rule: str, verdict: str, measured: str) -> None:
    check = judge(rule)
    assert (check.verdict, check.measured) == (verdict, measured)
    assert check.line == 3


@pytest.mark.parametrize(
    ("drop", "ci95", "verdict"),
    [
        (0.1, [-0.3, 0.5], "pass"),  # the upper end on the limit: not inferior
        (0.1, [-0.3, 0.51], "inconclusive"),
        (0.9, [0.5, 1.3], "inconclusive"),  # the lower end on the limit: not proven worse
        (0.9, [0.51, 1.3], "fail"),
        (-2.0, [-3.0, -1.0], "pass"),
        (0.0, None, "inconclusive"),  # one number per model, or too few samples that differ: nothing is known
        (50.0, None, "inconclusive"),
        (float("nan"), [float("nan"), float("nan")], "missing"),  # a model whose outputs are NaN never passes
    ],
)
def test_accuracy_is_a_test_of_non_inferiority(
    judge: Judge, report: Report, drop: float, ci95: list[float] | None, verdict: str
) -> None:
    assert judge("accuracy.top1: [error, {max_drop: 0.5pp}]", on=with_drop(report, drop, ci95)).verdict == verdict


def test_an_inconclusive_accuracy_says_how_many_samples_would_decide(judge: Judge, report: Report) -> None:
    # The interval reaches 0.6 above the drop of 0.1, the limit is 0.4 above it: (0.6 / 0.4)^2 x 1000 samples.
    check = judge("accuracy.top1: [error, {max_drop: 0.5pp}]", on=with_drop(report, 0.1, [-0.5, 0.7]))
    assert check.verdict == "inconclusive"
    assert check.reason == "1000 samples resolve 0.60 pp; about 2300 would decide max_drop 0.5pp"
    # Without a single disagreement the upper end shrinks like 1/n: 1000 x 1.0 / 0.5.
    check = judge("accuracy.top1: [error, {max_drop: 0.5pp}]", on=with_drop(report, 0.0, [-1.0, 1.0], lost=0, won=0))
    assert "about 2000 would decide" in check.reason
    # On the limit no count decides.
    check = judge("accuracy.top1: [error, {max_drop: 0.5pp}]", on=with_drop(report, 0.5, [-0.1, 1.1]))
    assert "too near to max_drop 0.5pp" in check.reason


def test_a_number_without_an_interval_says_why(judge: Judge, report: Report) -> None:
    assert report.evaluation is not None
    change = report.evaluation["comparisons"][0] | {"ci95": None, "why": "only 4 of 200 samples differ"}
    known = dataclasses.replace(report, evaluation={**report.evaluation, "comparisons": [change]})
    check = judge("accuracy.top1: [error, {max_drop: 0.5pp}]", on=known)
    assert (check.verdict, check.reason) == ("inconclusive", "only 4 of 200 samples differ")
    assert check.note == ""
    check = judge("fidelity.agreement: [error, {min: 99%}]")
    assert check.reason == "min 99% lies inside the interval of 98.00% to 99.50%"
    check = judge("latency.p95: [error, {max: 9 ms}]")
    assert check.reason == "p95 needs 59 blocks of runs to be bounded: `--pairs 59` or more"
    check = judge("fidelity.cosine_p01: [error, {min: 0.9}]")
    assert check.reason == "no interval: too few of the 1000 samples differ, or there are too few"


@pytest.mark.parametrize(
    ("ci95_pct", "verdict"),
    [([1.0, 5.0], "pass"), ([1.0, 5.1], "inconclusive"), ([5.0, 9.0], "inconclusive"), ([5.1, 9.0], "fail")],
)
def test_a_regression_is_judged_on_its_paired_interval(
    judge: Judge, report: Report, ci95_pct: list[float], verdict: str
) -> None:
    changed = with_change(report, sum(ci95_pct) / 2, ci95_pct)
    assert judge("latency.p50: [error, {max_regression: 5%}]", on=changed).verdict == verdict


def test_an_inconclusive_latency_says_how_many_pairs_would_decide(judge: Judge, report: Report) -> None:
    # 4 % with a half width of 3 points, 1 point from the limit: 9 times as many pairs.
    check = judge("latency.p50: [error, {max_regression: 5%}]", on=with_change(report, 4.0, [1.0, 7.0]))
    assert check.reason == "30 pairs resolve 3.00%; about 270 would decide max_regression 5%"


def test_throughput_is_judged_in_pairs_where_it_was_measured_so(judge: Judge, report: Report) -> None:
    assert report.bench is not None
    offline = report.bench["comparisons"][0] | {
        "metric": "throughput.offline",
        "change_pct": 310.0,
        "ci95_pct": [305, 315],
    }
    paired = dataclasses.replace(report, bench={**report.bench, "comparisons": [offline]})
    check = judge("throughput: [error, {min_ratio: 4}]", on=paired)
    assert (check.verdict, check.measured) == ("pass", "1000/s, 4.10× [4.05, 4.15] of float")


def test_outputs_without_noise_pass_every_noise_limit(judge: Judge, report: Report) -> None:
    assert report.evaluation is not None
    reference, int8 = report.evaluation["variants"]
    variants = [reference, int8 | {"sqnr_db": None}]
    same = dataclasses.replace(report, evaluation={**report.evaluation, "variants": variants})
    check = judge("fidelity.sqnr_db: [error, {min: 60 dB}]", on=same)
    assert (check.verdict, check.measured) == ("pass", "no noise")


def test_a_metric_of_ones_own_is_judged_in_its_own_unit(judge: Judge, report: Report) -> None:
    assert report.evaluation is not None
    reference, int8 = report.evaluation["variants"]
    change = report.evaluation["comparisons"][0] | {
        "metric": "accuracy.f1",
        "drop": 0.02,
        "ci95": [0.011, 0.029],
        "samples": 2000,
    }
    own = {
        **report.evaluation,
        "metric": {"name": "f1", "unit": "", "higher_is_better": True},
        "variants": [reference | {"value": 0.9}, int8 | {"value": 0.88}],
        "comparisons": [change],
    }
    changed = dataclasses.replace(report, evaluation=own)
    assert judge("accuracy.custom: [error, {max_drop: 0.03}]", on=changed).verdict == "pass"
    check = judge("accuracy.custom: [error, {max_drop: 0.01}]", on=changed)
    assert (check.verdict, check.measured) == ("fail", "0.88, drop 0.0200 [0.0110, 0.0290]")
    assert judge("accuracy.top1: [error, {max_drop: 1pp}]", on=changed).verdict == "missing"


@pytest.mark.parametrize(
    ("rule", "recipe", "options"),
    [
        ("accuracy.top5: [error, {max_drop: 1pp}]", "data: {evaluation: DATA, metric: top5}", "--metric top5"),
        ("accuracy.custom: [error, {max_drop: 1}]", "metric: module:function}", "--metric module:function"),
        ("latency.p99: [error, {max: 1 s}]", "bench: {budget: 5m}", "--budget 5m"),
        ("cost.usd_per_million: [error, {max: 9 USD, instance: moon}]", "cost: {instances: [", ""),
        ("size.compressed_bytes: [error, {max: 1 MB}]", "", ""),
    ],
)
def test_a_number_that_was_not_measured_is_missing_and_the_check_says_how_to_get_it(
    judge: Judge, report: Report, rule: str, recipe: str, options: str
) -> None:
    check = judge(rule)
    assert (check.verdict, check.outcome) == ("missing", "inconclusive")
    assert "was not measured" in check.reason
    assert options in check.advice
    assert exit_code([check]) == 4
    of_a_run = dataclasses.replace(report, recipe={"name": "tiny", "path": "tiny.yaml"})
    advice = judge(rule, on=of_a_run).advice
    assert recipe in advice
    assert advice.startswith("Add `" if recipe else "Run the recipe again")


def test_what_this_machine_does_not_tell_is_said(judge: Judge) -> None:
    check = judge("energy.joules_per_inference: [error, {max: 1 J}]")
    assert (check.verdict, check.advice.partition(",")[0]) == ("missing", "The benchmark ran")


@pytest.mark.parametrize("part", ["evaluation", "bench", "cost"])
def test_documents_that_were_not_made_are_missing(judge: Judge, report: Report, part: str) -> None:
    rule = {
        "evaluation": "fidelity.cosine: [error, {min: 0.9}]",
        "bench": "memory.rss_peak: [error, {max: 1 GB}]",
        "cost": "cost.usd_per_million: [error, {max: 1 USD}]",
    }[part]
    empty = Report(recipe={}, versions={}, created=None, baseline="float", variants=report.variants)
    assert judge(rule, on=report).verdict == "pass"
    assert judge(rule, on=empty).verdict == "missing"


def test_a_failed_bound_outweighs_a_missing_one_never_the_other_way_round(judge: Judge, report: Report) -> None:
    assert report.bench is not None
    no_pairs = dataclasses.replace(report, bench={**report.bench, "comparisons": []})
    check = judge("latency.p50: [error, {max: 0.5 ms, max_regression: 5%}]", on=no_pairs)
    assert (check.verdict, exit_code([check])) == ("fail", 1)
    assert judge("latency.p50: [error, {max: 2 ms, max_regression: 5%}]", on=no_pairs).verdict == "missing"


@pytest.mark.parametrize(("setting", "level", "code"), [("error", "error", 4), ("warn", "warn", 0), ("off", "off", 0)])
def test_settings_say_what_undecided_rules_weigh(judge: Judge, setting: str, level: str, code: int) -> None:
    for name, rule in (
        ("missing", "size.compressed_bytes: [error, {max: 1 MB}]"),
        ("inconclusive", "accuracy.top1: [error, {max_drop: 1pp}]"),
    ):
        check = judge(rule, f"settings: {{{name}: {setting}}}")
        assert (check.verdict, check.level, exit_code([check])) == (name, level, code)


def test_a_setting_never_outweighs_the_level_of_the_rule(judge: Judge) -> None:
    check = judge("accuracy.top1: [warn, {max_drop: 1pp}]", "settings: {inconclusive: error}")
    assert (check.verdict, check.level, exit_code([check])) == ("inconclusive", "warn", 0)


def test_an_inconclusive_check_does_not_fail_the_gate_by_default(judge: Judge) -> None:
    assert exit_code([judge("accuracy.top1: [error, {max_drop: 1pp}]")]) == 0


@pytest.mark.parametrize("ratio", ["0.2", "0.5"])  # would fail, would pass
def test_an_unfit_host_decides_nothing_about_time(judge: Judge, report: Report, ratio: str) -> None:
    assert report.bench is not None
    warnings = [{"code": "few-inputs", "message": "Few."}, {"code": "noisy-host", "message": "Pairs were disturbed."}]
    unfit = dataclasses.replace(report, bench={**report.bench, "fit_for_gating": False, "warnings": warnings})
    rule = f"latency.p50: [error, {{max_ratio: {ratio}}}]"
    check = judge(rule, on=unfit)
    assert (check.verdict, check.level) == ("inconclusive", "warn")
    assert check.reason == "the timings are not fit to decide on: Pairs were disturbed."
    assert exit_code([judge(rule, "settings: {unfit_host: error}", on=unfit)]) == 4
    assert judge(rule, "settings: {unfit_host: off}", on=unfit).verdict == {"0.2": "fail", "0.5": "pass"}[ratio]
    assert judge("size.total_bytes: [error, {max: 1 MB}]", on=unfit).verdict == "pass"
    assert judge("latency.p99: [error, {max: 1 s}]", on=unfit).verdict == "missing"


WAIVER = "waivers:\n  - {{rule: size.total_bytes, reason: known, owner: alice, expires: 2026-08-14{bound}}}\n"


def test_a_waiver_holds_through_its_last_day(judge: Judge) -> None:
    rule = "size.total_bytes: [error, {max: 100 kB}]"
    check = judge(rule, WAIVER.format(bound=", max: 2 MB"), today=date(2026, 8, 14))
    assert (check.verdict, exit_code([check])) == ("waived", 0)
    assert check.reason == "until 2026-08-14 (ends in 0 days) (alice, max 2 MB): known"
    check = judge(rule, WAIVER.format(bound=", max: 2 MB"), today=date(2026, 8, 15))
    assert (check.verdict, exit_code([check])) == ("waiver-expired", 1)
    assert check.reason == "150 kB above max 100 kB (the waiver of alice expired on 2026-08-14)"


def test_a_waiver_with_a_looser_bound_covers_only_what_keeps_it(judge: Judge) -> None:
    rule = "size.total_bytes: [error, {max: 100 kB, max_ratio: 0.5}]"
    assert judge(rule, WAIVER.format(bound=", max: 300 kB")).verdict == "waived"
    check = judge(rule, WAIVER.format(bound=", max: 200 kB"))
    assert (check.verdict, check.reason) == ("fail", "50.0 kB above max 200 kB, beyond the waiver of alice")
    # The bounds that a waiver does not name stay as they are.
    strict = judge("size.total_bytes: [error, {max: 100 kB, max_ratio: 0.2}]", WAIVER.format(bound=", max: 300 kB"))
    assert (strict.verdict, strict.reason) == ("fail", "25.0% above max_ratio 0.2, beyond the waiver of alice")


def test_a_waiver_that_is_not_needed_changes_nothing(judge: Judge) -> None:
    for today in (date(2026, 8, 1), date(2026, 9, 1)):
        check = judge("size.total_bytes: [error, {max: 1 MB}]", WAIVER.format(bound=", max: 2 MB"), today=today)
        assert (check.verdict, check.reason) == ("pass", "")


def test_nobody_can_waive_what_nobody_has_measured(judge: Judge) -> None:
    waiver = WAIVER.format(bound=", max: 2 MB").replace("total", "compressed")
    assert judge("size.compressed_bytes: [error, {max: 1 MB}]", waiver).verdict == "missing"


def test_an_expired_waiver_of_a_warning_stays_a_warning(judge: Judge) -> None:
    check = judge("size.total_bytes: [warn, {max: 1 kB}]", WAIVER.format(bound=", max: 2 MB"), today=date(2027, 1, 1))
    assert (check.verdict, exit_code([check])) == ("waiver-expired", 0)


def test_an_expired_waiver_leaves_an_inconclusive_check_inconclusive(judge: Judge) -> None:
    waiver = "waivers:\n  - {rule: accuracy.top1, reason: r, owner: bob, expires: 2026-01-01, max_drop: 2pp}\n"
    check = judge("accuracy.top1: [error, {max_drop: 1pp}]", waiver)
    assert check.verdict == "inconclusive"
    assert "expired on 2026-01-01" in check.reason


def test_every_variant_but_the_baseline_is_judged_by_every_rule_that_is_not_off(
    report: Report, policy: Callable[[str], Policy]
) -> None:
    more = dataclasses.replace(report, variants=(*report.variants, {"id": "big", "size_bytes": 2_000_000}))
    rules = policy(
        "rules:\n  latency.p50: off\n  size.total_bytes: [error, {max: 1 MB}]\n  graph.opset: [warn, {max: 21}]\n"
    )
    checks = gate(more, rules, TODAY)
    assert [(check.rule, check.variant, check.verdict) for check in checks] == [
        ("size.total_bytes", "int8", "pass"),
        ("size.total_bytes", "big", "fail"),
        ("graph.opset", "int8", "pass"),
        ("graph.opset", "big", "missing"),
    ]
    judged = more.with_checks(checks)
    assert judged.verdict == "fail"
    assert [check.rule for check in judged.checks_of("big")] == ["size.total_bytes", "graph.opset"]


def test_a_report_with_nothing_but_the_baseline_is_no_evidence(report: Report, policy: Callable[[str], Policy]) -> None:
    alone = dataclasses.replace(report, variants=report.variants[:1])
    with pytest.raises(EvidenceError, match="only the baseline 'float'") as error:
        gate(alone, policy("rules: {size.total_bytes: [error, {max: 1 MB}]}"), TODAY)
    assert error.value.exit_code == 4


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        ([], "pass", 0),
        (["pass", "warn", "waived"], "pass", 0),
        (["pass", "inconclusive"], "inconclusive", 4),
        (["missing"], "inconclusive", 4),
        (["missing", "fail"], "fail", 1),
        (["waiver-expired"], "fail", 1),
    ],
)
def test_exit_codes(verdicts: list[Any], expected: str, code: int) -> None:
    checks = [
        Check(rule="r", variant="v", level="error", verdict=verdict, measured="", limit="") for verdict in verdicts
    ]
    assert (outcome(checks), exit_code(checks)) == (expected, code)
    relaxed = [dataclasses.replace(check, level="warn") for check in checks]
    assert exit_code(relaxed) == 0


def test_the_drop_that_the_samples_could_show_is_always_said(judge: Judge, report: Report) -> None:
    check = judge("accuracy.top1: [error, {max_drop: 3pp}]", on=with_drop(report, 0.1, [-0.5, 0.7]))
    assert (check.verdict, check.note) == ("pass", "1000 samples resolve 0.60 pp")
    assert judge("size.total_bytes: [error, {max: 1 MB}]").note == ""


def test_too_few_samples_or_pairs_do_not_pass(judge: Judge, report: Report) -> None:
    rule = "accuracy.top1: [error, {max_drop: 3pp, min_samples: 2000, inconclusive: error}]"
    check = judge(rule)
    assert (check.verdict, check.level) == ("inconclusive", "error")
    assert check.reason == "rests on 1000 samples, the policy wants 2000"
    assert judge("accuracy.top1: [error, {max_drop: 3pp, min_samples: 1000}]").verdict == "pass"
    worse = with_drop(report, 5.0, [4.0, 6.0])
    assert judge(rule, on=worse).verdict == "fail"  # what is proven bad stays bad
    rule = "latency.p50: [error, {max_ratio: 0.5}]"
    assert judge(rule, "settings: {min_pairs: 31}").reason == "rests on 30 pairs, the policy wants 31"
    assert judge(rule, "settings: {min_pairs: 30}").verdict == "pass"


def test_operators_that_must_not_be_there(judge: Judge, report: Report) -> None:
    found = with_int8_facts(report, {"operators": {"Conv": 5, "If": 1, "com.microsoft.QGemm": 2}})
    check = judge("graph.forbidden_ops: [error, {any: [If, Loop]}]", on=found)
    assert (check.verdict, check.measured, check.reason) == ("fail", "1 If", "the model holds 1 If")
    check = judge("graph.forbidden_ops: [warn, {any: ['com.microsoft.*']}]", on=found)
    assert (check.verdict, check.measured) == ("warn", "2 com.microsoft.QGemm")
    check = judge("graph.forbidden_ops: [error, {any: [Loop]}]", on=found)
    assert (check.verdict, check.measured, check.limit) == ("pass", "none", "any Loop")
    assert judge("graph.forbidden_ops: [error, {any: [Loop]}]").verdict == "missing"


def test_layers_that_must_run_on_integers(judge: Judge, report: Report) -> None:
    layers = [
        {"name": "stem", "op": "Conv", "int8": False, "reason": "excluded"},
        {"name": "block.1", "op": "Conv", "int8": True, "reason": ""},
    ]
    found = with_int8_facts(report, {"kernels": {"layers": layers}})
    check = judge("graph.required_int8: [error, {any: ['*']}]", on=found)
    assert (check.verdict, check.measured) == ("fail", "1 of 2")
    assert check.reason == "of 2 layers, in float: Conv stem (excluded)"
    assert judge("graph.required_int8: [error, {any: ['block.*']}]", on=found).verdict == "pass"
    assert judge("graph.required_int8: [error, {any: [head]}]", on=found).verdict == "missing"


VERSIONS = {"onnxpress": "0.1.0"}
EXPORT = {"step": "export", "options": {}, "versions": VERSIONS, "source_sha256": "s"}
PRUNE = {"step": "prune", "options": {}, "versions": VERSIONS, "input_sha256": "a", "data_sha256": "c"}


@pytest.mark.parametrize(
    ("lineage", "verdict", "reason"),
    [
        ([EXPORT, PRUNE], "pass", ""),
        ([EXPORT, EXPORT, PRUNE], "pass", ""),  # a recipe whose source is a model of ours
        ([PRUNE | {"input_sha256": "root"}], "pass", ""),
        ([PRUNE], "fail", "its first step, prune, starts from a model that is neither exported nor the baseline"),
        ([], "fail", "the model says nothing of how it was made: make it with onnxpress"),
        ([EXPORT, PRUNE | {"input_sha256": None}], "fail", "step 2 does not record its input_sha256"),
        ([EXPORT | {"versions": None}], "fail", "step 1 does not record its versions"),
    ],
)
def test_lineage(judge: Judge, report: Report, lineage: list[Any], verdict: str, reason: str) -> None:
    known = with_int8_facts(report, {"lineage": lineage})
    reference, int8 = known.variants
    known = dataclasses.replace(known, variants=({**reference, "sha256": "root"}, int8))
    check = judge("provenance.lineage_complete: error", on=known)
    assert (check.verdict, check.reason, check.limit) == (verdict, reason, "must hold")
    assert judge("provenance.lineage_complete: error").verdict == "missing"


@pytest.mark.parametrize(
    ("lineage", "data", "verdict"),
    [
        ([EXPORT], {}, "pass"),  # nothing was calibrated
        ([EXPORT, PRUNE], {"sha256": "c"}, "fail"),  # the same data
        ([EXPORT, PRUNE], {"sha256": "e"}, "missing"),  # other data, but nobody compared the samples
        ([EXPORT, PRUNE], {"sha256": "e", "shared_with_calibration": 3}, "fail"),
        ([EXPORT, PRUNE], {"sha256": "e", "shared_with_calibration": 0}, "pass"),
    ],
)
def test_calibration_and_evaluation_are_disjoint(
    judge: Judge, report: Report, lineage: list[Any], data: dict[str, Any], verdict: str
) -> None:
    assert report.evaluation is not None
    known = with_int8_facts(report, {"lineage": lineage})
    known = dataclasses.replace(known, evaluation={**report.evaluation, "data": {**report.evaluation["data"], **data}})
    assert judge("provenance.calibration_disjoint_from_eval: error", on=known).verdict == verdict


@pytest.mark.parametrize(
    ("ci95", "verdict"), [([4.0, 15.0], "fail"), ([3.0, 15.0], "inconclusive"), ([-1.0, 3.0], "pass")]
)
def test_the_worst_class(judge: Judge, report: Report, ci95: list[float], verdict: str) -> None:
    assert report.evaluation is not None
    worst = {"label": 7, "samples": 100, "drop": 9.0, "ci95": ci95, "classes": 10}
    change = report.evaluation["comparisons"][0] | {"worst_class": worst}
    known = dataclasses.replace(report, evaluation={**report.evaluation, "comparisons": [change]})
    check = judge("accuracy.worst_class: [error, {max_drop: 3pp}]", on=known)
    assert check.verdict == verdict and check.measured.startswith("class 7 of 10: drop 9.00 [")
    assert judge("accuracy.worst_class: [error, {max_drop: 3pp}]").verdict == "missing"


def test_the_age_of_the_prices(judge: Judge, report: Report) -> None:
    assert report.cost is not None
    variants = [
        variant | {"instances": [price | {"as_of": "2026-05-01"} for price in variant["instances"]]}
        for variant in report.cost["variants"]
    ]
    known = dataclasses.replace(report, cost={**report.cost, "variants": variants})
    check = judge("prices.age_days: [error, {max: 90 days}]", on=known, today=date(2026, 8, 14))
    assert (check.verdict, check.measured, check.reason) == ("fail", "105 days", "15 days above max 90 days")
    assert judge("prices.age_days: [error, {max: 90 days}]", on=known, today=date(2026, 7, 1)).verdict == "pass"


def test_a_waiver_longer_than_the_policy_allows_is_refused(judge: Judge) -> None:
    with pytest.raises(UsageError, match="runs for 31 days, max_waiver_days is 30") as error:
        judge(
            "size.total_bytes: [error, {max: 100 kB}]",
            WAIVER.format(bound=", max: 2 MB") + "settings: {max_waiver_days: 30}",
            today=date(2026, 7, 14),
        )
    assert "gate.yaml, line 5: " in str(error.value)


def test_a_waiver_for_other_targets_waives_nothing(judge: Judge) -> None:
    rule = "size.total_bytes: [error, {max: 100 kB}]"
    waiver = WAIVER.format(bound=", max: 2 MB, issue: '#12', when: {variant: int8}")
    check = judge(rule, waiver)
    assert (check.verdict, check.reason) == (
        "waived",
        "until 2026-08-14 (ends in 0 days) (alice, #12, max 2 MB): known",
    )
    assert judge(rule, waiver.replace("variant: int8", "variant: other")).verdict == "fail"


def test_what_is_skipped_says_why_and_stops_nothing(report: Report, policy: Callable[[str], Policy]) -> None:
    rules = policy("rules:\n  size.total_bytes: [error, {max: 1 MB}]\n  latency.p50: [error, {max: 1 ns}]\n")
    checks = gate(report, rules, TODAY, skipped={"bench": "--static times nothing"})
    assert [(check.verdict, check.reason) for check in checks] == [("pass", ""), ("skipped", "--static times nothing")]
    assert exit_code(checks) == 0


def test_only_the_variants_that_are_asked_for(report: Report, policy: Callable[[str], Policy]) -> None:
    more = dataclasses.replace(report, variants=(*report.variants, {"id": "big", "size_bytes": 2_000_000}))
    rules = policy("rules:\n  size.total_bytes: [error, {max: 1 MB}]\n")
    assert [check.variant for check in gate(more, rules, TODAY, variants=("int8",))] == ["int8"]
    with pytest.raises(UsageError, match=r"variant 'bigg': is not in the report. Did you mean 'big'\?"):
        gate(more, rules, TODAY, variants=("bigg",))


def test_rules_that_hold_for_nothing_are_no_evidence(report: Report, policy: Callable[[str], Policy]) -> None:
    rules = policy("rules:\n  size.total_bytes: [error, {max: 1 MB, when: {model: other}}]\n")
    with pytest.raises(EvidenceError, match="none of its rules holds for int8"):
        gate(report, rules, TODAY)
