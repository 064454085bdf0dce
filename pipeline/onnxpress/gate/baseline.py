"""The stored baseline: what the last release measured, as a small file that is committed beside the policy.

It holds what does not depend on the machine of the day: sizes, node counts, accuracy, fidelity, with the hashes of the
models and of the data. Latency is never compared with a stored number; the baseline *model* is measured again instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from onnxpress.files import dumps
from onnxpress.gate.estimates import Subject
from onnxpress.gate.rules import RULES
from onnxpress.report.report import Report
from onnxpress.results import report as results
from onnxpress.results.base import read_json

SCHEMA = "onnxpress.baseline/1"
STORED = ("file", "session", "evaluation")
"""Needs of the rules whose numbers are the same on every machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One number that is not what it was."""

    variant: str
    rule: str
    before: float | None
    """None when it is new."""
    after: float | None
    """None when it is gone."""
    worse: bool

    def __str__(self) -> str:
        shown = [
            "nothing" if value is None else RULES[self.rule].unit.show(value) for value in (self.before, self.after)
        ]
        return f"{self.variant}  {self.rule}  {shown[0]} → {shown[1]}{'  worse' if self.worse else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What was measured of each variant."""

    document: Mapping[str, Any]
    """Schema onnxpress.baseline/1: ``variants`` (``sha256`` and ``metrics`` by rule), ``data_sha256``, ``versions``."""

    @classmethod
    def of(cls, report: Report, *, accepted: str | None = None) -> Baseline:
        """Gather the numbers of a report.

        Args:
            report: Finished measurements.
            accepted: Why numbers that are worse than before are accepted.

        """
        data = (report.evaluation or {}).get("data") or {}
        return cls(
            document={
                "schema": SCHEMA,
                "baseline": report.baseline,
                "data_sha256": data.get("sha256"),
                "versions": dict(report.versions),
                "accepted": accepted,
                "variants": {
                    name: {"sha256": report.variant(name).get("sha256"), "metrics": _metrics(report, name)}
                    for name in (report.baseline, *report.candidates)
                },
            }
        )

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read a stored baseline.

        Raises:
            UsageError: there is no such file.
            DataError: it is no baseline.

        """
        found = read_json(path, results.Baseline, "baseline", advice="Make it with `compress baseline write`.")
        return cls(document=found.document)

    def to_json(self) -> str:
        """Return the file's text: equal baselines, equal text."""
        return dumps(self.document)

    def value(self, variant: str, rule: str) -> float | None:
        """Return a stored number; None when there is none."""
        found: float | None = self.document["variants"].get(variant, {}).get("metrics", {}).get(rule)
        return found

    def same_data(self, report: Report) -> bool:
        """Tell whether a report was evaluated on the samples that these numbers come from."""
        data = (report.evaluation or {}).get("data") or {}
        return bool(data.get("sha256") == self.document.get("data_sha256"))

    def changes(self, newer: Baseline) -> list[Change]:
        """Return every number that differs in a newer baseline."""
        found = []
        for variant in {**self.document["variants"], **newer.document["variants"]}:
            for rule in RULES:
                before, after = self.value(variant, rule), newer.value(variant, rule)
                if before != after:
                    found.append(
                        Change(
                            variant=variant, rule=rule, before=before, after=after, worse=_worse(rule, before, after)
                        )
                    )
        return found

    def ratcheted(self, newer: Baseline) -> Baseline:
        """Return the better of both numbers everywhere; a number that only one has is kept."""
        variants = {}
        for name in {**self.document["variants"], **newer.document["variants"]}:
            metrics = {}
            for rule in RULES:
                before, after = self.value(name, rule), newer.value(name, rule)
                best = before if after is None or (before is not None and _worse(rule, before, after)) else after
                if best is not None:
                    metrics[rule] = best
            kept = newer.document["variants"].get(name) or self.document["variants"][name]
            variants[name] = {"sha256": kept["sha256"], "metrics": metrics}
        return Baseline(document={**newer.document, "variants": variants})


def _metrics(report: Report, variant: str) -> dict[str, float]:
    metrics = {}
    for name, kind in RULES.items():
        if kind.needs in STORED and kind.lower_is_better is not None and not kind.listed:
            # Prices are no part of it, so the day does not matter.
            reading = kind.read(Subject(report=report, variant=variant, today=date.min), kind.unit)
            if reading.value is not None and abs(reading.value.value) != float("inf"):
                metrics[name] = float(f"{reading.value.value:.9g}")
    return metrics


def _worse(rule: str, before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return False
    return after > before if RULES[rule].lower_is_better else after < before
