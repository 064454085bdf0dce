from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from sarif_pydantic import Sarif

from onnxpress.gate import sarif
from onnxpress.gate.check import Check, Level, Verdict


def check(verdict: Verdict, level: Level = "error", rule: str = "latency.p50", measured: str = "9 ms") -> Check:
    return Check(
        rule=rule,
        variant="int8",
        level=level,
        verdict=verdict,
        measured=measured,
        limit="max 8 ms",
        reason="above \x1b max 8 ms",
        line=9,
    )


def rendered(*checks: Check) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(sarif.render(checks, "ci/my gate.yaml"))
    return document


def test_what_the_standard_requires_is_there() -> None:
    """The `required` lists, enumerations and cross references of the SARIF 2.1.0 schema, for what is written."""
    document = rendered(check("fail"), check("waived"), check("inconclusive", "warn", "throughput"), check("pass"))
    assert document["version"] == "2.1.0"  # required: version, runs
    (run,) = document["runs"]
    driver = run["tool"]["driver"]  # required: tool, driver, name
    assert driver["name"] == "onnxpress"
    rules = [rule["id"] for rule in driver["rules"]]
    assert len(set(rules)) == len(rules)
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    for result in run["results"]:
        assert result["message"]["text"].isprintable()  # required: message
        assert result["level"] in ("none", "note", "warning", "error")
        assert rules[result["ruleIndex"]] == result["ruleId"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "ci/my%20gate.yaml"  # a relative reference of RFC 3986
        assert place["region"]["startLine"] >= 1
        for suppression in result.get("suppressions", ()):
            assert suppression["kind"] in ("inSource", "external")
            assert suppression["status"] in ("accepted", "underReview", "rejected")


def test_levels_and_suppressions() -> None:
    checks = [check("fail"), check("missing"), check("warn", "warn"), check("waived"), check("pass"), check("skipped")]
    results = rendered(*checks)["runs"][0]["results"]
    assert [result["level"] for result in results] == ["error", "error", "warning", "note"]
    assert [bool(result.get("suppressions")) for result in results] == [False, False, False, True]


def test_a_finding_keeps_its_fingerprint_when_its_number_moves() -> None:
    one, other, third = rendered(check("fail"), check("fail", measured="9.1 ms"), check("fail", rule="throughput"))[
        "runs"
    ][0]["results"]
    assert one["partialFingerprints"] == other["partialFingerprints"] != third["partialFingerprints"]


def test_another_implementation_of_the_standard_reads_the_same() -> None:
    checks = [check("fail"), check("missing"), check("warn", "warn"), check("waived"), check("pass"), check("skipped")]
    text = sarif.render(checks, "ci/my gate.yaml")
    read = Sarif.model_validate_json(text)
    assert [result.rule_id for result in read.runs[0].results or ()] == ["compress/latency-p50"] * 4
    assert json.loads(read.model_dump_json(by_alias=True, exclude_none=True)) == json.loads(text)
    broken = json.loads(text)
    del broken["runs"][0]["tool"]["driver"]["name"]
    with pytest.raises(ValidationError):  # it would notice
        Sarif.model_validate(broken)
