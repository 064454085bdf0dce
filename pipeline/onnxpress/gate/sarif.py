"""SARIF 2.1.0: each check that is not a plain pass as a result at the policy's line, for code-scanning views.

OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", 2020.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import quote

import onnxpress
from onnxpress.files import dumps
from onnxpress.gate.check import Check
from onnxpress.printing import printable
from onnxpress.report.view import why

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
Level = Literal["none", "note", "warning", "error"]


def render(checks: Sequence[Check], policy: str) -> str:
    """Return the checks as SARIF.

    Args:
        checks: What the gate found.
        policy: Path of the policy file, relative to the repository: results point at it, because that is the file of
            the repository that says what is allowed.

    """
    names = sorted({check.rule for check in checks})
    run = {
        "tool": {
            "driver": {
                "name": "onnxpress",
                "version": onnxpress.__version__,
                "rules": [
                    {
                        "id": _id(name),
                        "name": name,
                        "shortDescription": {"text": f"The release keeps the policy's rule {name}."},
                    }
                    for name in names
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(check, policy, names.index(check.rule))
            for check in checks
            if check.verdict not in ("pass", "skipped")
        ],
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return dumps(document)


def _result(check: Check, policy: str, index: int) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": quote(policy.replace("\\", "/"), errors="replace")},
        "region": {"startLine": check.line or 1},
    }
    text = f"{check.variant}: {check.verdict}, measured {check.measured or 'nothing'}, limit {check.limit}. "
    # Nothing that varies from run to run is part of the fingerprint, so a finding keeps its history.
    fingerprint = hashlib.sha256(f"{check.rule} {check.variant}".encode(errors="replace")).hexdigest()[:16]
    result = {
        "ruleId": _id(check.rule),
        "ruleIndex": index,
        "level": _level(check),
        "message": {"text": printable(f"{text}{why(check)}".strip())},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"ruleAndVariant/v1": fingerprint},
    }
    if check.verdict == "waived":
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": printable(check.reason)}]
    return result


def _level(check: Check) -> Level:
    return "error" if check.outcome != "pass" else "note" if check.verdict == "waived" else "warning"


def _id(rule: str) -> str:
    return f"compress/{rule.replace('.', '-').replace('_', '-')}"
