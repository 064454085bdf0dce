from __future__ import annotations

from xml.etree import ElementTree as ET

import junitparser

from onnxpress.gate import junit
from onnxpress.gate.check import Check, Level, Verdict


def check(verdict: Verdict, level: Level = "error", reason: str = "") -> Check:
    return Check(
        rule=verdict, variant="int8", level=level, verdict=verdict, measured="9 ms", limit="max 8 ms", reason=reason
    )


def test_each_verdict_becomes_what_a_test_result_can_be() -> None:
    checks = [
        check("pass"),
        check("fail", reason="above max 8 ms"),
        check("waiver-expired"),
        check("missing"),
        check("inconclusive"),
        check("inconclusive", "warn"),
        check("warn", "warn"),
        check("waived"),
    ]
    suite = ET.fromstring(junit.render(checks).split("\n", 1)[1])[0]  # noqa: S314 - our own
    assert suite.attrib == {"name": "compress gate", "tests": "8", "failures": "2", "errors": "2", "skipped": "1"}
    outcomes = [[part.tag for part in case if part.tag != "system-out"] for case in suite]
    assert outcomes == [[], ["failure"], ["failure"], ["error"], ["error"], [], [], ["skipped"]]
    assert suite[1][0].attrib == {"message": "above max 8 ms", "type": "fail"}
    assert suite[1].attrib == {"classname": "int8", "name": "fail", "time": "0"}
    assert "measured 9 ms, limit max 8 ms" in (suite[5].findtext("system-out") or "")


def test_what_xml_cannot_hold_is_taken_out() -> None:
    text = junit.render([check("fail", reason="<a> & \x1b\x00")])
    case = ET.fromstring(text.split("\n", 1)[1])[0][0]  # noqa: S314
    assert case[0].attrib["message"] == "<a> & \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def test_another_reader_of_the_format_counts_the_same() -> None:
    checks = [check("pass"), check("fail"), check("missing"), check("waived"), check("warn", "warn")]
    suites = junitparser.JUnitXml.fromstring(junit.render(checks).encode())
    (suite,) = list(suites)
    kinds = [[type(part).__name__ for part in case.result] for case in suite]
    assert kinds == [[], ["Failure"], ["Error"], ["Skipped"], []]
    before = (suite.tests, suite.failures, suite.errors, suite.skipped)
    suite.update_statistics()
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == before
