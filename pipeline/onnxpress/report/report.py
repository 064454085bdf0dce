"""Everything a run measured, in one value and one JSON file.

The measured documents inside (evaluation, bench, cost) stay as they were written, plain nested values in the shape of
their own schema: a report gathers, it does not compute. A document that was not made is ``None``, and every reader
says "not measured" then.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxpress.errors import DataError
from onnxpress.gate.check import Check, Outcome, outcome
from onnxpress.report.headline import Headline, headline
from onnxpress.results import report as results
from onnxpress.results.base import read_json, validated
from onnxpress_calibration.documents import DocumentError

SCHEMA = "onnxpress.report/1"
ADVICE = "Name a run folder that `compress run` wrote, or write it again."

Document = Mapping[str, Any]
"""A JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What went in, what came out, what was measured and what the gate said."""

    recipe: Document
    """``path``, ``sha256`` and ``name``."""
    versions: Mapping[str, str]
    created: str | None
    """ISO 8601 time; None in a reproducible report."""
    baseline: str
    """Id of the variant that all others are compared with."""
    variants: tuple[Document, ...]
    """The baseline first; each with ``id``, ``path``, ``sha256``, ``size_bytes``, ``steps``, ``kernels``…"""
    export: Document | None = None
    evaluation: Document | None = None
    """Schema onnxpress.evaluation/1."""
    bench: Document | None = None
    """Schema onnxpress.bench/1."""
    cost: Document | None = None
    """Schema onnxpress.cost/1."""
    checks: tuple[Check, ...] = ()

    @property
    def verdict(self) -> Outcome | None:
        """What the gate decided; None when there was no policy."""
        return outcome(self.checks) if self.checks else None

    @property
    def headline(self) -> Headline:
        """What to release, or what is missing to say so."""
        return headline(self)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Ids of the variants that are compared with the baseline."""
        return tuple(variant["id"] for variant in self.variants if variant["id"] != self.baseline)

    def variant(self, name: str) -> Document:
        """Return a variant's model facts.

        Raises:
            KeyError: there is no such variant.

        """
        found = _find(self.variants, {"id": name})
        if found is None:
            raise KeyError(name)
        return found

    def quality(self, variant: str) -> Document | None:
        """Return what the evaluation found for one variant: ``value``, ``agreement_pct``, ``cosine``, ``sqnr_db``."""
        return _find(_part(self.evaluation, "variants"), {"id": variant})

    def speed(self, variant: str) -> Document | None:
        """Return what the benchmark found for one variant, for example its ``latency_ms``."""
        return _find(_part(self.bench, "variants"), {"id": variant})

    def prices(self, variant: str) -> Sequence[Document]:
        """Return the cost of one variant on each instance type; empty when it was not computed."""
        found = _find(_part(self.cost, "variants"), {"id": variant})
        return found["instances"] if found else ()

    def price(self, variant: str, instance: str) -> Document | None:
        """Return the cost of one variant on one instance type."""
        return _find(self.prices(variant), {"instance": instance})

    def quality_change(self, variant: str) -> Document | None:
        """Return the paired comparison of a variant's accuracy with the baseline's: ``drop``, ``ci95`` and more."""
        if self.metric is None:
            return None
        return self._change(self.evaluation, variant, f"accuracy.{self.metric['name']}")

    def speed_change(self, variant: str, metric: str = "latency.p50") -> Document | None:
        """Return the paired comparison of a variant's timing with the baseline's: ``change_pct``, ``ci95_pct``."""
        return self._change(self.bench, variant, metric)

    def checks_of(self, variant: str) -> tuple[Check, ...]:
        """Return what the gate found for one variant."""
        return tuple(check for check in self.checks if check.variant == variant)

    @property
    def metric(self) -> Document | None:
        """The accuracy metric: ``name``, ``unit`` and ``higher_is_better``; None when there were no labels."""
        return self.evaluation["metric"] if self.evaluation else None

    def _change(self, document: Document | None, variant: str, metric: str) -> Document | None:
        return _find(
            _part(document, "comparisons"), {"baseline": self.baseline, "candidate": variant, "metric": metric}
        )

    def with_checks(self, checks: Sequence[Check]) -> Report:
        """Return the same report with the gate's findings."""
        return dataclasses.replace(self, checks=tuple(checks))

    def to_json(self) -> str:
        """Return the JSON text; equal reports give equal text. NaN and infinity, which JSON lacks, become null."""
        value = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        value |= {"schema": SCHEMA, "checks": [check.to_json() for check in self.checks]}
        value |= {"verdict": self.verdict, "headline": dataclasses.asdict(self.headline)}
        return json.dumps(_finite(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, origin: str = "report") -> Report:
        """Read what `to_json` wrote.

        Args:
            text: JSON.
            origin: Where it comes from, for messages.

        Raises:
            DataError: not JSON, another schema or version, or parts are missing.

        """
        try:
            found = validated(text.encode(errors="surrogatepass"), results.Report, origin, advice=ADVICE)
        except DocumentError as error:
            raise DataError(f"{origin}{error} {ADVICE}") from error
        return cls._of(found)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a report file, or the ``report.json`` of a run folder.

        Raises:
            UsageError: there is no such file.
            DataError: it is not a report that this version reads.

        """
        file = path / "report.json" if path.is_dir() else path
        return cls._of(read_json(file, results.Report, "report", advice=ADVICE))

    @classmethod
    def _of(cls, found: results.Report) -> Report:
        value = found.document
        value["checks"] = tuple(Check.from_json(check) for check in value["checks"])
        value["variants"] = tuple(value["variants"])
        return cls(**{field.name: value[field.name] for field in dataclasses.fields(cls)})


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def _part(document: Document | None, name: str) -> Sequence[Document]:
    return document[name] if document else ()


def _find(documents: Sequence[Document] | None, fields: Mapping[str, str]) -> Document | None:
    """Return the first document whose fields have these values."""
    for document in documents or ():
        if all(document[name] == value for name, value in fields.items()):
            return document
    return None
