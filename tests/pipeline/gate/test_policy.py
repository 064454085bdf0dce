from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from onnxpress.errors import UsageError
from onnxpress.gate import reader
from onnxpress.gate.policy import Policy, Settings, Target
from onnxpress.gate.reader import presets
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
    assert [(rule.name, rule.level, rule.line) for rule in found.rules.values()] == [
        ("size.total_bytes", "error", 4),
        ("accuracy.top1", "error", 5),
        ("latency.p50", "error", 6),
        ("cost.usd_per_million", "warn", 7),
    ]
    size, accuracy, latency, cost = (
        {limit.name: limit.value for limit in rule.limits} for rule in found.rules.values()
    )
    assert size == {"max": 25 * 2**20, "max_ratio": 0.35}
    assert accuracy == {"max_drop": 0.5}
    assert latency == {"max": 8, "max_regression": pytest.approx(1.05)}
    assert cost == {"max": 1.2}
    assert found.rules["cost.usd_per_million"].instance == "gcp/c3-standard-4/us-central1"
    (waiver,) = found.waivers
    assert (waiver.owner, waiver.reason, waiver.expires) == ("platform", "because", date(2027, 1, 31))
    assert [(limit.name, limit.value) for limit in waiver.limits] == [("max", 9)]
    assert found.settings == Settings(missing="error", inconclusive="warn", unfit_host="warn")


def test_rules_are_judged_in_the_order_of_the_table_whatever_the_order_of_the_file(policy: Load) -> None:
    found = policy("rules:\n  latency.p50: [warn, {max: 1 ms}]\n  size.total_bytes: [warn, {max: 1 MB}]\n")
    about = Target(model="m", variant="v", ep="cpu", arch="x86_64", metric="top1")
    assert list(found.rules_for(about)) == ["size.total_bytes", "latency.p50"]


@pytest.mark.parametrize(
    ("rules", "regressions"),
    [
        ("latency.p50: [error, {max_regression: 5%}]", [0.05]),
        (
            "latency.p50: [error, {max_regression: 5%, max_ratio: 0.8x}]\n  memory.rss_peak: [warn, {max: 1 GiB}]",
            [0.05, -0.2],
        ),
        ("latency.p50: [error, {max_regression: 5%, max: 8 ms}]", []),
        ("latency.p50: [error, {max_regression: 5%}]\n  throughput: [warn, {min_ratio: 1x}]", []),
        ("latency.p50: [error, {max_regression: 5%}]\n  cost.usd_per_million: [off, {max: 1 USD}]", [0.05]),
        ("size.total_bytes: [error, {max: 1 MB}]", []),
    ],
)
def test_limits_that_a_benchmark_may_end_at(policy: Load, rules: str, regressions: list[float]) -> None:
    assert policy(f"rules:\n  {rules}\n").regressions() == pytest.approx(tuple(regressions))


def test_off_is_a_level_with_and_without_bounds(policy: Load) -> None:
    found = policy("rules:\n  latency.p50: off\n  size.total_bytes: [off, {max: 1 MB}]\n")
    assert [rule.level for rule in found.rules.values()] == ["off", "off"]
    assert found.every_rule() == []


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
    ((limit,),) = (found.limits for found in policy(f"rules:\n  {rule}\n").rules.values())
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
    assert f"gate.yaml, line {line}: " in str(error.value)
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
    assert "gate.yaml, line 6: " in str(error.value)


def test_two_waivers_of_one_rule_are_refused(policy: Load) -> None:
    waiver = "  - {rule: latency.p50, reason: r, owner: o, expires: 2027-01-01, max: 9 ms}\n"
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
        reader.read(file)
    assert "\n" not in str(error.value)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        reader.read(tmp_path / "gate.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        reader.read(tmp_path)


def test_every_rule_has_bounds_that_are_known() -> None:
    assert all(set(kind.bounds) <= {*BOUNDS, "any"} for kind in RULES.values())
    assert [name for name, kind in RULES.items() if not kind.bounds] == [
        "provenance.lineage_complete",
        "provenance.calibration_disjoint_from_eval",
    ]


def test_the_rest_of_the_grammar(policy: Load, tmp_path: Path) -> None:
    found = policy("""
baseline: {model: float.onnx, metrics: last.json}
rules:
  graph.forbidden_ops: [error, {any: [If, "com.microsoft.*"]}]
  provenance.lineage_complete: error
  provenance.calibration_disjoint_from_eval: [warn, {when: {variant: "int8*"}}]
  accuracy.top1: [error, {max_drop: 0.5pp, min_samples: 2k, inconclusive: error}]
  graph.cpu_fallback_nodes: [error, {max: 0, when: {ep: cuda}}]
  energy.joules_per_inference: [warn, {max: 35 mJ}]
  prices.age_days: [warn, {max: 90 days}]
  size.total_bytes: [error, {max_growth: 2%}]
  fidelity.agreement: [error, {max_fall: 0.5pp}]
matrix:
  - {when: {arch: arm64}, rules: {size.total_bytes: [error, {max: 9 MB}]}}
  - {when: {arch: "*"}, rules: {size.total_bytes: off}}
settings: {expired_waiver: warn, max_waiver_days: 30, min_pairs: 20}
""")
    assert found.baseline_model == str(tmp_path / "float.onnx")
    assert found.baseline_metrics == str(tmp_path / "last.json")
    assert found.rules["graph.forbidden_ops"].patterns == ("If", "com.microsoft.*")
    assert found.rules["accuracy.top1"].min_samples == 2000
    assert found.rules["accuracy.top1"].inconclusive == "error"
    assert found.rules["energy.joules_per_inference"].limits[0].value == pytest.approx(0.035)
    assert found.rules["prices.age_days"].limits[0].value == 90
    assert found.rules["size.total_bytes"].limits[0].value == pytest.approx(1.02)
    assert found.rules["fidelity.agreement"].limits[0].value == 0.5
    assert found.settings == Settings(expired_waiver="warn", max_waiver_days=30, min_pairs=20)
    about = Target(model="m", variant="int8-a", ep="cpu", arch="arm64", metric="top1")
    rules = found.rules_for(about)
    assert rules["size.total_bytes"].limits[0].text == "9 MB"  # the first entry that matches
    assert "graph.cpu_fallback_nodes" not in rules  # its condition does not hold
    assert "provenance.calibration_disjoint_from_eval" in rules
    other = Target(model="m", variant="pruned", ep="cuda", arch="x86_64", metric="top1")
    assert "size.total_bytes" not in found.rules_for(other)
    assert "graph.cpu_fallback_nodes" in found.rules_for(other)
    assert "provenance.calibration_disjoint_from_eval" not in found.rules_for(other)


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_a_policy_that_rules_replace(policy: Load, name: str) -> None:
    found = policy(f"preset: {name}\nrules:\n  size.total_bytes: [warn, {{max: 1 kB}}]\n")
    assert found.rules["size.total_bytes"].limits[0].text == "1 kB"
    assert found.rules["latency.p50"].line == 2  # where the preset is named
    assert policy(f"preset: {name}").rules.keys() >= {"size.total_bytes", "accuracy.top1", "latency.p50"}


def test_strict_makes_every_warning_an_error(policy: Load) -> None:
    found = policy("preset: balanced\nsettings: {missing: off}\n").strict()
    assert {rule.level for rule in found.every_rule()} == {"error"}
    assert (found.settings.inconclusive, found.settings.missing) == ("error", "off")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("preset: edgy", 2, "preset 'edgy': there is none. Did you mean 'edge'?"),
        ("preset: off", 1, "'rules' is missing"),
        ("rules:\n  graph.forbidden_ops: [error, {any: If}]", 3, "is no list of names"),
        ("rules:\n  graph.forbidden_ops: [error, {}]", 3, "Write for example `graph.forbidden_ops: [error, {any: [If"),
        ("rules:\n  provenance.lineage_complete: eror", 3, "'eror' is no level"),
        ("rules:\n  latency.p50: [error, {max: 1 ms, min_samples: 3}]", 3, "unknown name 'min_samples'"),
        ("rules:\n  latency.p50: [error, {max: 1 ms, when: {cpu: x}}]", 3, "unknown name 'cpu'"),
        ("rules:\n  latency.p50: [error, {max: 1 ms, when: {}}]", 3, "when: is empty"),
        ("rules:\n  prices.age_days: [error, {max: 90}]", 3, "Write for example '90 days'."),
        ("rules:\n  energy.joules_per_inference: [error, {max: 0.1}]", 3, "Write for example '0.2 J'"),
        ("rules: {latency.p50: off}\nmatrix: {}", 3, "matrix: is not a list"),
        ("rules: {latency.p50: off}\nsettings: {min_pairs: many}", 3, "settings, min_pairs 'many'"),
        (
            "rules:\n  size.total_bytes: [error, {max: 1 kB}]\n"
            "waivers:\n  - {rule: size.total_bytes, reason: r, owner: o, expires: 2027-01-01}",
            5,
            "gives no looser bound, so anything would pass. Add for example max.",
        ),
    ],
)
def test_what_is_not_understood_in_the_rest_is_refused(policy: Load, text: str, line: int, message: str) -> None:
    with pytest.raises(UsageError) as error:
        policy(text)
    assert f"gate.yaml, line {line}: " in str(error.value)
    assert message in str(error.value)
