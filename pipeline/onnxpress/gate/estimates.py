"""Numbers as the gate judges them: with interval and unit, and where a report holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

from onnxpress.report.report import Document, Report
from onnxpress.units import UnitError, digits, format_bytes, format_count, format_ms, format_usd, parse, parse_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95% interval, and what that rests on.

    What is the same however often it is measured (a size, a count) is `exact`: both ends are the number. What is not,
    and has no interval, is `open`: it decides nothing.
    """

    value: float
    low: float
    high: float
    count: int = 0
    """Pairs of blocks, or samples."""
    counted: str = ""
    differed: bool = True
    """False when candidate and baseline gave the same answer on every sample."""
    why: str = ""
    """Why there is no interval."""

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """Return a number that is the same however often it is measured."""
        return cls(value=value, low=value, high=value)

    @classmethod
    def open(cls, value: float, why: str) -> Estimate:
        """Return a number without an interval, and why."""
        return cls(value=value, low=-math.inf, high=math.inf, why=why)

    @classmethod
    def sampled(
        cls, value: float, ci95: Sequence[float] | None, why: str, count: int = 0, counted: str = ""
    ) -> Estimate:
        """Return a number that was measured on samples: with its interval, or open."""
        if ci95 is None:
            return cls.open(value, why)
        return cls(value=value, low=ci95[0], high=ci95[1], count=count, counted=counted)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends; None for a number that is exact or open."""
        return None if self.why or self.low == self.high == self.value else (self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a report holds for one rule and one variant."""

    value: Estimate | None = None
    change: Estimate | None = None
    """Candidate ÷ baseline; for accuracy baseline − candidate, in percentage points."""
    text: str = ""
    """Both, for people."""
    why: str = ""
    """What is wrong, where the number alone does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One variant of a report, as a rule sees it."""

    report: Report
    variant: str
    today: date
    instance: str | None = None
    """The instance type that a cost rule is judged on; None for the cheapest."""
    patterns: tuple[str, ...] = ()
    """What a rule with a list of names looks for."""

    @property
    def baseline(self) -> Subject:
        """The variant it is compared with, on the same instance type."""
        return Subject(report=self.report, variant=self.report.baseline, today=self.today, instance=self.where)

    @property
    def where(self) -> str | None:
        """The instance type that is judged: the one that was named, else the cheapest, else None."""
        prices = [price for price in self.report.prices(self.variant) if price["usd_per_million"]]
        cheapest = min(prices, key=lambda price: price["usd_per_million"]["value"], default=None)
        return self.instance or (cheapest["instance"] if cheapest else None)

    def facts(self, *path: str) -> Estimate | None:
        """Return a fact of the model; None when it was not found out."""
        return _estimate(self.report.variant(self.variant), path)

    def counted(self, name: str) -> Estimate | None:
        """Return a count of the evaluation; None when it was not measured."""
        return _estimate(self.report.quality(self.variant), (name,))

    def quality(self, name: str) -> Estimate | None:
        """Return a number of the evaluation with its interval; None when it was not measured."""
        found, exact = self.report.quality(self.variant), self.counted(name)
        if found is None or exact is None:
            return None
        samples = self.report.evaluation["data"]["samples"] if self.report.evaluation else 0
        why = f"no interval: too few of the {samples} samples differ, or there are too few"
        return Estimate.sampled(exact.value, (found.get("ci95") or {}).get(name), why)

    def speed(self, *path: str) -> Estimate | None:
        """Return a number of the benchmark; None when it was not measured."""
        return _estimate(self.report.speed(self.variant), path)

    def timed(self, name: str, *path: str, why: str = "") -> Estimate | None:
        """Return a number of the benchmark between its bounds; None when it was not measured.

        Args:
            name: Of its bounds.
            path: Where it is.
            why: What is missing where it has no bounds.
        """
        exact = self.speed(*path)
        return None if exact is None else self.bounded(exact.value, name, why)

    def bounded(self, value: float, name: str, why: str = "") -> Estimate:
        """Return a number of the benchmark between the bounds of that name."""
        low, high = ((self.report.speed(self.variant) or {}).get("bounds") or {}).get(name) or (None, None)
        known = low is not None and high is not None
        return Estimate(
            value=value,
            low=-math.inf if low is None else min(low, value),
            high=math.inf if high is None else max(high, value),
            why="" if known else why or "it was measured in too few processes to tell how it varies",
        )

    def price(self, *path: str) -> Estimate | None:
        """Return a number of the cost on the instance type; None when it was not computed."""
        return _estimate(self.report.price(self.variant, self.where or ""), path)


def _estimate(document: Document | None, path: Sequence[str]) -> Estimate | None:
    """Read a number, or a ``{"value", "low", "high"}``, from inside a result."""
    found: Any = document
    for name in path:
        found = None if found is None else found.get(name)
    number, low, high = (found["value"], found["low"], found["high"]) if isinstance(found, Mapping) else (found,) * 3
    if number is None or math.isnan(number):
        return None
    if low is None or high is None:
        return Estimate.open(number, "its interval was not measured")
    return Estimate(value=number, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How numbers are read from a policy, and shown."""

    name: str
    parse: Callable[[str], float]
    show: Callable[[float], str]


def _percent(text: str) -> float:
    return float(100 * Decimal(str(parse_fraction(text))))  # so that 99.14% is 99.14, not a little more


def _own(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UnitError(f"{text!r}: is no number in the unit of your metric. Write for example '0.85'.") from error


def _rate(text: str) -> float:
    number, slash, unit = text.partition("/")
    if not slash or unit.strip() != "s":
        raise UnitError(f"{text!r}: is no rate. Write for example '250/s'.")
    return parse(number, "count")


def _joules(text: str) -> float:
    number, _, unit = text.strip().partition(" ")
    scale = {"J": 1.0, "mJ": 1e-3}.get(unit.strip())
    if scale is None:
        raise UnitError(f"{text!r}: is no energy. Write for example '0.2 J' or '35 mJ'.")
    return scale * float(parse(f"{number}x", "ratio"))


def _days(text: str) -> float:
    number, _, unit = text.strip().partition(" ")
    if unit.strip() not in ("day", "days"):
        raise UnitError(f"{text!r}: is no age. Write for example '90 days'.")
    return parse(number, "count")


BYTES = Unit(name="bytes", parse=partial(parse, dimension="bytes"), show=format_bytes)
COUNT = Unit(name="", parse=partial(parse, dimension="count"), show=format_count)
MILLISECONDS = Unit(name="ms", parse=partial(parse, dimension="ms"), show=format_ms)
DOLLARS = Unit(name="USD", parse=partial(parse, dimension="usd"), show=format_usd)
DECIBELS = Unit(name="dB", parse=partial(parse, dimension="db"), show=lambda db: f"{db:.1f} dB")
OWN = Unit(name="", parse=_own, show=lambda number: digits(number, 4))
PERCENT = Unit(name="%", parse=_percent, show=lambda percent: f"{percent:.2f}%")
FRACTION = Unit(name="", parse=parse_fraction, show=lambda fraction: f"{fraction:.5f}")
RATE = Unit(name="/s", parse=_rate, show=lambda rate: f"{digits(rate, 4)}/s")
JOULES = Unit(name="J", parse=_joules, show=lambda joules: f"{digits(joules, 3)} J")
DAYS = Unit(name="days", parse=_days, show=lambda days: f"{days:.0f} days")
