"""``onnxpress.report/1``: everything a run measured, ``onnxpress.baseline/1``, and the record of a finished step."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from onnxpress.gate.check import Level, Outcome, Verdict
from onnxpress.results.base import Bytes, Count, Facts, Name, Percent, Result, Score, Skipped, Some, known, unique
from onnxpress.results.benchmark import Benchmark
from onnxpress.results.costs import Cost
from onnxpress.results.evaluation import Evaluation


class Source(Result):
    """What a report is of: a recipe, or the files that were given."""

    name: str | None = None
    path: str | None = None
    sha256: str | None = None


class Lineage(Result):
    """A step that a model has been through. What it does not record is None: the gate asks for it."""

    step: Name
    options: Facts | None = None
    input_sha256: str | None = None
    source_sha256: str | None = None
    data_sha256: str | None = None
    versions: Facts | None = None


class LayerLoss(Result):
    """What a layer loses when it alone is int8: squared error relative to the squared signal."""

    node: str
    weights: Score
    static: Score
    at_outputs: Score | None = None


class StepFacts(Result):
    """What a step tells of itself; most of it is free."""

    sensitivity: tuple[LayerLoss, ...] | None = None
    method: str | None = None


class StepOptions(Result):
    """The options of a step; most of them are free."""

    mode: str | None = None


class Step(Result):
    """A step that made a variant."""

    step: Name
    options: StepOptions
    facts: StepFacts
    skipped: tuple[Skipped, ...]
    cached: bool | None = None


class Layer(Result):
    """A layer, and whether an int8 kernel runs it."""

    name: str
    op: str
    int8: bool
    reason: str | None = None


class Kernels(Result):
    """How many nodes the loaded session runs on which kernels."""

    int8: Count
    float: Count
    conversions: Count | None = None
    other: Count | None = None
    float_bytes: Bytes | None = None
    stayed_float: tuple[Skipped, ...] = ()
    layers: tuple[Layer, ...] = ()


class Weight(Result):
    """A constant of a model."""

    name: str
    dtype: str
    bytes: Bytes
    zeros_pct: Percent | None


class Variant(Result):
    """What is known of a model without running it."""

    id: Name
    sha256: str
    size_bytes: Annotated[Bytes, Field(gt=0)]
    steps: tuple[Step, ...]
    lineage: tuple[Lineage, ...] | None = None
    """None where it was not looked at."""
    path: str | None = None
    compressed_bytes: Bytes | None = None
    parameters: Count | None = None
    macs: Count | None = None
    opset: Count | None = None
    kernels: Kernels | None = None
    operators: dict[str, Count] | None = None
    bytes_by_dtype: dict[str, Bytes] | None = None
    weights: tuple[Weight, ...] | None = None


class Export(Result):
    """How the exported model was compared with its source."""

    source: str | None = None
    notes: tuple[str, ...] = ()
    against: str | None
    max_abs_error: Annotated[float, Field(ge=0)] | None
    max_rel_error: Annotated[float, Field(ge=0)] | None
    shapes_checked: tuple[Any, ...]
    """Shapes of the inputs, by name."""


class Checked(Result):
    """One rule, judged for one variant."""

    rule: Name
    variant: Name
    level: Level
    verdict: Verdict
    measured: str
    limit: str
    reason: str = ""
    note: str = ""
    line: Some | None = None


class Report(Result):
    """Everything a run measured, and what the gate said."""

    schema_name: Literal["onnxpress.report/1"] = Field(alias="schema")
    recipe: Source
    versions: dict[str, str]
    created: str | None
    baseline: Name
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    export: Export | None
    evaluation: Evaluation | None
    bench: Benchmark | None
    cost: Cost | None
    checks: tuple[Checked, ...]
    verdict: Outcome | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = unique((variant.id for variant in self.variants), "variant")
        known(self.baseline, names, "the baseline")
        for document in (self.evaluation, self.bench, self.cost):
            for one in document.variants if document else ():
                known(one.id, names, "the measured variant")
        for document in (self.evaluation, self.bench):
            if document and document.baseline != self.baseline:
                raise ValueError(f"baseline {document.baseline!r} of a measurement is not the report's")
        for check in self.checks:
            known(check.variant, names, "the variant of a check")
        return self


class Metrics(Result):
    """What a stored baseline keeps of one variant."""

    sha256: str | None
    metrics: dict[str, Score]
    """By the name of the rule, in its unit."""


class Baseline(Result):
    """What the last release measured."""

    schema_name: Literal["onnxpress.baseline/1"] = Field(alias="schema")
    baseline: Name
    data_sha256: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    accepted: str | None = None
    variants: Annotated[dict[str, Metrics], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known(self.baseline, set(self.variants), "the baseline")
        return self


class Verification(Result):
    """How an exported model was compared with its source."""

    against: str
    max_abs_error: Annotated[float, Field(ge=0)]
    max_rel_error: Annotated[float, Field(ge=0)]
    shapes: tuple[Any, ...]


class Record(Step):
    """``step.json``: a finished step of a run."""

    changed: tuple[str, ...]
    artifact_sha256: str
    verification: Verification | None = None
