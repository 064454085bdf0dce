from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from onnxpress.errors import UsageError
from onnxpress.gate.policy import Policy, Settings
from onnxpress.gate.rules import BOUNDS, RULES

Load = Callable[[str], Policy]

DESIGN = """
rules:                                   # level (off | warn | error), then bounds; every bound carries its unit
  size.total_bytes:     [error, {max: 25 MiB, max_ratio: 0.35}]
  accuracy.top1:        [error, {max_drop: 0.5pp}]
  latency.p50:          [error, {max: 8 ms, max_regression: 5%}]
  cost.usd_per_million: [warn,  {max: 1.20 USD, instance: gcp/c3-standard-4/us-central1}]
waivers:
  - {rule: latency.p50, reason: "because", owner: platform, expires: 2027-01-31, max: 9 ms}
"""


def test_the_policy_of_the_design(policy: Load) -> None:
    found = policy(DESIGN)
    assert [(rule.name, rule.level, rule.line) for rule in found.rules] == [
        ("size.total_bytes", "error", 4),
        ("accuracy.top1", "error", 5),
        ("latency.p50", "error", 6),
        ("cost.usd_per_million", "warn", 7),
    ]
    size, accuracy, latency, cost = ({limit.name: limit.value for limit in rule.limits} for rule in found.rules)
    assert size == {"max": 25 * 2**20, "max_ratio": 0.35}
    assert accuracy == {"max_drop": 0.5}
    assert latency == {"max": 8, "max_regression": pytest.approx(1.05)}
    assert cost == {"max": 1.2}
    assert found.rules[3].instance == "gcp/c3-standard-4/us-central1"
    waiver = found.waivers["latency.p50"]
    assert (waiver.owner, waiver.reason, waiver.expires) == ("platform", "because", date(2027, 1, 31))
    assert [(limit.name, limit.value) for limit in waiver.limits] == [("max", 9)]
    assert found.settings == Settings(missing="error", inconclusive="warn", unfit_host="warn")


def test_rules_are_judged_in_the_order_of_the_table_whatever_the_order_of_the_file(policy: Load) -> None:
    found = policy("rules:\n  latency.p50: [warn, {max: 1 ms}]\n  size.total_bytes: [warn, {max: 1 MB}]\n")
    assert [rule.name for rule in found.rules] == ["size.total_bytes", "latency.p50"]


def test_off_is_a_level_with_and_without_bounds(policy: Load) -> None:
    found = policy("rules:\n  latency.p50: off\n  size.total_bytes: [off, {max: 1 MB}]\n")
    assert [rule.level for rule in found.rules] == ["off", "off"]


def test_settings_are_levels(policy: Load) -> None:
    found = policy("rules: {latency.p50: off}\nsettings: {missing: warn, inconclusive: error, unfit_host: off}\n")
    assert found.settings == Settings(missing="warn", inconclusive="error", unfit_host="off")


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("size.total_bytes: [error, {max_ratio: 0.5}]", 0.5),
        ("size.total_bytes: [error, {max_ratio: 50%}]", 0.5),
        ("size.parameters: [error, {max: 1.5M}]", 1_500_000),
        ("graph.opset: [error, {max: 21}]", 21),
        ("graph.int8_nodes: [error, {min: 3}]", 3),
        ("accuracy.top1: [error, {min: 97.5%}]", 97.5),
        ("accuracy.spearman: [error, {min: 0.85}]", 85),
        ("accuracy.custom: [error, {min: 12.5}]", 12.5),
        ("accuracy.custom: [error, {max_drop: 0.02}]", 0.02),
        ("fidelity.sqnr_db: [error, {min: 30 dB}]", 30),
        ("fidelity.cosine: [error, {min: 0.995}]", 0.995),
        ("fidelity.agreement: [error, {min: 99%}]", 99),
        ("latency.p99: [error, {max: 2 s}]", 2000),
        ("latency.p50: [error, {max_regression: -20%}]", 0.8),
        ("throughput: [error, {min: 250/s}]", 250),
        ("memory.rss_peak: [error, {max: 300 MB}]", 300e6),
    ],
)
def test_bounds_are_read_in_the_unit_of_their_rule(policy: Load, rule: str, value: float) -> None:
    ((limit,),) = (found.limits for found in policy(f"rules:\n  {rule}\n").rules)
    assert limit.value == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("rules:\n  latancy.p50: [error, {max: 1 ms}]", 3, "unknown name 'latancy.p50'. Did you mean 'latency.p50'?"),
        (
            "rules:\n  speed: [error, {max: 1 ms}]",
            3,
            "unknown name 'speed'. Known: accuracy.custom, accuracy.spearman,",
        ),
        ("rules:\n  latency.p50: [error, {maximum: 1 ms}]", 3, "unknown name 'maximum'. Did you mean 'max'?"),
        ("rules:\n  latency.p50: [error, {max: 8}]", 3, "'8': has no unit (one of ns, us, µs, ms, s"),
        ("rules:\n  latency.p50: [error, {max: 8}]", 3, "Write for example '8 ms'."),
        ("rules:\n  accuracy.top1: [error, {max_drop: 0.5}]", 3, "Write for example '0.5pp'."),
        ("rules:\n  latency.p50: [error, {max_regression: 1.05}]", 3, "Write for example '5%'."),
        ("rules:\n  throughput: [error, {min: 250}]", 3, "Write for example '250/s'."),
        ("rules:\n  accuracy.custom: [error, {max_drop: 1pp}]", 3, "Write for example '0.85'."),
        ("rules:\n  latency.p50: [eror, {max: 8 ms}]", 3, "'eror' is no level. Did you mean 'error'?"),
        ("rules:\n  latency.p99: [error, {max_ratio: 2}]", 3, "unknown name 'max_ratio'"),
        ("rules:\n  latency.p50: [error, {}]", 3, "has no bound. Write for example `latency.p50: [error, {max: …}]`."),
        ("rules:\n  latency.p50: error", 3, "is not a level and its bounds."),
        ("rules:\n  latency.p50: [error, {max: }]", 3, "has no value"),
        ("rules:\n  latency.p50: [error, {instance: x, max: 1 ms}]", 3, "unknown name 'instance'"),
        ("rules:\n  latency.p50: off\n  latency.p50: off", 4, "'latency.p50' is there twice"),
        ("rules: {}", 2, "there is none"),
        ("rules: []", 2, "is not a mapping"),
        ("rules: {latency.p50: off}\nwaiver: []", 3, "unknown name 'waiver'. Did you mean 'waivers'?"),
        ("rules: {latency.p50: off}\nsettings: {mising: warn}", 3, "Did you mean 'missing'?"),
        ("rules: {latency.p50: off}\nsettings: {missing: fail}", 3, "'fail' is no level."),
        ("rules: {latency.p50: off}\nwaivers: {}", 3, "is not a list"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(policy: Load, text: str, line: int, message: str) -> None:
    with pytest.raises(UsageError) as error:
        policy(text)
    assert f"gate.yaml:{line}: " in str(error.value)
    assert message in str(error.value)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("waiver", "message"),
    [
        ("{rule: latency.p50, reason: r, owner: o}", "'expires' is missing"),
        ("{rule: latency.p50, reason: r, expires: 2027-01-01}", "'owner' is missing"),
        ("{rule: latency.p50, reason: '', owner: o, expires: 2027-01-01}", "reason: has no value"),
        (
            "{rule: latency.p50, reason: r, owner: o, expires: soon}",
            "'soon': is no date. Write for example 2027-01-31.",
        ),
        ("{rule: latency.p90, reason: r, owner: o, expires: 2027-01-01}", "Did you mean 'latency.p50'?"),
        ("{rule: latency.p50, reason: r, owner: o, expires: 2027-01-01, max: 7 ms}", "max 7 ms is not looser than"),
        ("{rule: latency.p50, reason: r, owner: o, expires: 2027-01-01, max: 8 ms}", "is not looser than"),
        ("{rule: latency.p50, reason: r, owner: o, expires: 2027-01-01, max: 9}", "has no unit"),
        (
            "{rule: latency.p50, reason: r, owner: o, expires: 2027-01-01, max_ratio: 2}",
            "no bound 'max_ratio' to loosen",
        ),
        ("{rule: throughput, reason: r, owner: o, expires: 2027-01-01, min: 300/s}", "is not looser than"),
    ],
)
def test_a_waiver_is_complete_and_only_loosens(policy: Load, waiver: str, message: str) -> None:
    rules = "rules:\n  latency.p50: [error, {max: 8 ms}]\n  throughput: [error, {min: 250/s}]\n"
    with pytest.raises(UsageError) as error:
        policy(f"{rules}waivers:\n  - {waiver}\n")
    assert message in str(error.value)
    assert "gate.yaml:6: " in str(error.value)


def test_two_waivers_of_one_rule_are_refused(policy: Load) -> None:
    waiver = "  - {rule: latency.p50, reason: r, owner: o, expires: 2027-01-01}\n"
    with pytest.raises(UsageError, match="there are two"):
        policy(f"rules:\n  latency.p50: [error, {{max: 8 ms}}]\nwaivers:\n{waiver}{waiver}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("rules: {latency.p50: off}", "'schema' is missing"),
        ("schema: onnxpress.policy/1", "'rules' is missing"),
        ("schema: onnxpress.policy/2\nrules: {latency.p50: off}", "reads 'onnxpress.policy/1'"),
        ("rules: [", "not YAML"),
        ("rules: \x00", "not YAML"),
        ("- rules", "is not a mapping"),
    ],
)
def test_a_file_that_is_no_policy(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        Policy.load(file)
    assert "\n" not in str(error.value)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Policy.load(tmp_path / "gate.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        Policy.load(tmp_path)


def test_every_rule_has_bounds_that_are_known() -> None:
    assert all(kind.bounds and set(kind.bounds) <= BOUNDS.keys() for kind in RULES.values())
