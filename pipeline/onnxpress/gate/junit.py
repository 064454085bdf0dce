"""JUnit XML: one test case per check, for CI systems that show test results."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from onnxpress.gate.check import Check
from onnxpress.printing import printable
from onnxpress.report.view import why

SKIPPED = ("waived", "skipped")


def render(checks: Sequence[Check]) -> str:
    """Return the checks as JUnit XML.

    A check that stops the release is a failure, or an error when evidence is what it lacks; one that is waived or was
    not judged is skipped; warnings pass, with their reason as output.
    """
    outcomes = [check.outcome for check in checks]
    counts = {
        "tests": len(checks),
        "failures": outcomes.count("fail"),
        "errors": outcomes.count("inconclusive"),
        "skipped": sum(check.verdict in SKIPPED for check in checks),
    }
    suite = Element("testsuite", {"name": "compress gate"} | {name: str(count) for name, count in counts.items()})
    for check in checks:
        case = SubElement(
            suite, "testcase", {"classname": printable(check.variant), "name": printable(check.rule), "time": "0"}
        )
        tag = {"fail": "failure", "inconclusive": "error", "pass": "skipped"}[check.outcome]
        if tag != "skipped" or check.verdict in SKIPPED:
            details = {"message": printable(why(check))} | ({"type": check.verdict} if tag != "skipped" else {})
            SubElement(case, tag, details)
        SubElement(case, "system-out").text = printable(
            f"{check.verdict}: measured {check.measured or 'nothing'}, limit {check.limit}. {why(check)}".strip()
        )
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(root, encoding="unicode")}\n'
