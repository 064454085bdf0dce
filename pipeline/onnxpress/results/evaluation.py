"""``onnxpress.evaluation/1``: what was measured of the answers of each variant, on the same samples."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from onnxpress.results.base import (
    Cosine,
    Count,
    Decibels,
    Name,
    Percent,
    Result,
    Score,
    ScoreInterval,
    Some,
    known,
    unique,
)


class Samples(Result):
    """The data of an evaluation."""

    origin: str
    samples: Count
    sha256: str | None = None
    shared_with_calibration: Count | None = None


class Metric(Result):
    """What counts as right."""

    name: Name
    unit: str
    """``%``, ``x100``, or empty for a user's own."""
    higher_is_better: bool = True


class Quality(Result):
    """One variant's answers, and how far they agree with the baseline's. None is not measured."""

    id: Name
    value: Score | None
    """Of the metric."""
    agreement_pct: Percent | None
    cosine: Cosine | None
    sqnr_db: Decibels | None
    """None for the baseline, and for outputs that are equal."""
    compared: bool = True
    """Whether the outputs hold anything that could be compared."""
    cosine_p01: Cosine | None = None
    non_finite: Count | None = None
    expected_drop: Score | None = None
    ci95: dict[str, ScoreInterval | None] | None = None
    """By the name of the number; None where it cannot be told."""


class ClassDrop(Result):
    """The paired drop of one class, in percentage points."""

    label: int | float | str | bool | None
    samples: Some
    drop: Score
    ci95: ScoreInterval
    lost: Count | None = None
    won: Count | None = None


class WorstClass(Result):
    """The class that loses most, with an interval that knows it was picked."""

    label: int | float | str | bool | None
    samples: Some
    drop: Score
    ci95: ScoreInterval
    classes: Some
    """From how many it was picked."""


class Flip(Result):
    """A sample that only one of two models gets right."""

    sample: Count
    label: int | float | str | bool | None
    change: Literal["lost", "won"]


class Comparison(Result):
    """The paired drop of a variant against the baseline: positive is worse."""

    baseline: Name
    candidate: Name
    metric: Name
    samples: Count | None
    drop: Score | None
    """In the unit of the metric; None where the metric has no value."""
    ci95: ScoreInterval | None
    """None where it cannot be told."""
    why: str | None = None
    """Why there is no interval."""
    method: str
    lost: Count | None
    """Samples that only the baseline gets right."""
    won: Count | None
    classes: tuple[ClassDrop, ...] | None = None
    worst_class: WorstClass | None = None
    flips: tuple[Flip, ...] | None = None


class Evaluation(Result):
    """What an evaluation found."""

    schema_name: Literal["onnxpress.evaluation/1"] = Field(alias="schema")
    data: Samples
    metric: Metric | None
    baseline: Name
    variants: Annotated[tuple[Quality, ...], Field(min_length=1)]
    comparisons: tuple[Comparison, ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = unique((variant.id for variant in self.variants), "variant")
        known(self.baseline, names, "the baseline")
        for change in self.comparisons:
            known(change.baseline, names, "a comparison's baseline")
            known(change.candidate, names, "a comparison's candidate")
        unique((f"{change.candidate} {change.metric}" for change in self.comparisons), "the comparison of")
        return self
