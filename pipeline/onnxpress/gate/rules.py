"""The rules a policy may name: what each one reads from a report, and which bounds it takes.

========================  ============================  =======================================================
rule                      bounds                        reads
========================  ============================  =======================================================
size.total_bytes          max, max_ratio                bytes on disk, external data included
size.compressed_bytes     max, max_ratio                bytes to transfer
size.parameters           max, max_ratio                parameters
graph.opset               min, max                      opset of the ONNX domain
graph.int8_nodes          min                           nodes that the loaded session runs as int8 kernels
graph.float_nodes         max                           nodes that it runs in float
accuracy.METRIC           min, max_drop                 top1, top5, spearman or custom (a metric of one's own, whose
                                                        bounds are bare numbers); the drop is paired by sample
fidelity.agreement        min                           share of samples with the baseline's answer
fidelity.cosine           min                           cosine between the outputs and the baseline's
fidelity.sqnr_db          min                           signal to quantization noise of the outputs
memory.rss_peak           max, max_ratio                VmHWM of a fresh process
cold_start.first_result   max, max_ratio                import, session creation and first run
latency.p50               max, max_ratio,               milliseconds; the change is measured in paired blocks
                          max_regression
latency.STATISTIC         max                           mean, p90, p95, p99
throughput                min, min_ratio                inferences a second; the change is measured in paired
                                                        blocks in the offline scenario
cost.usd_per_million      max, max_ratio, instance      dollars per million inferences
========================  ============================  =======================================================

``max_ratio`` and ``min_ratio`` bound candidate ÷ baseline; ``max_regression: 5%`` is ``max_ratio: 1.05``. The order of
the table is the order of the checks: what is deterministic comes first, what a clock measured comes last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from onnxpress.report.numbers import drop_within, ratio_interval, score, times, times_within
from onnxpress.report.report import Document, Report
from onnxpress.units import UnitError, format_bytes, format_count, format_ms, format_usd, parse, parse_fraction

BUILTIN_METRICS = ("top1", "top5", "spearman")
CUSTOM_METRIC = "custom"
STATISTICS = ("p50", "mean", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number, with its 95% interval and what the interval rests on; without one, both ends are the number."""

    value: float
    low: float
    high: float
    count: int = 0
    """Pairs of blocks, or samples."""
    counted: str = ""
    differed: bool = True
    """False when candidate and baseline gave the same answer on every sample."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends; None for a number without an interval."""
        return None if self.low == self.high == self.value else (self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One variant of a report, as a rule sees it."""

    report: Report
    variant: str
    instance: str | None = None
    """The instance type that a cost rule is judged on; None for the cheapest."""

    @property
    def baseline(self) -> Subject:
        """The variant it is compared with, on the same instance type."""
        return Subject(report=self.report, variant=self.report.baseline, instance=self.where)

    @property
    def where(self) -> str | None:
        """The instance type that is judged: the one that was named, else the cheapest, else None."""
        prices = [price for price in self.report.prices(self.variant) if price["usd_per_million"]]
        cheapest = min(prices, key=lambda price: price["usd_per_million"]["value"], default=None)
        return self.instance or (cheapest["instance"] if cheapest else None)

    def facts(self, *path: str) -> Estimate | None:
        """Return a fact of the model; None when it was not found out."""
        return _estimate(self.report.variant(self.variant), path)

    def quality(self, *path: str) -> Estimate | None:
        """Return a number of the evaluation; None when it was not measured."""
        return _estimate(self.report.quality(self.variant), path)

    def speed(self, *path: str) -> Estimate | None:
        """Return a number of the benchmark; None when it was not measured."""
        return _estimate(self.report.speed(self.variant), path)

    def price(self) -> Estimate | None:
        """Return the dollars per million inferences; None when they were not computed."""
        return _estimate(self.report.price(self.variant, self.where or ""), ("usd_per_million",))


def _estimate(document: Document | None, path: Sequence[str]) -> Estimate | None:
    """Read a number, or a ``{"value", "low", "high"}``, from inside a result."""
    found: Any = document
    for name in path:
        found = None if found is None else found.get(name)
    number, low, high = (found["value"], found["low"], found["high"]) if isinstance(found, Mapping) else (found,) * 3
    if number is None or math.isnan(number):
        return None
    return Estimate(value=number, low=number if low is None else low, high=number if high is None else high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a report holds for one rule and one variant."""

    value: Estimate | None = None
    change: Estimate | None = None
    """Candidate ÷ baseline; for accuracy baseline − candidate, in percentage points."""
    text: str = ""
    """Both, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How numbers are read from a policy, and shown."""

    parse: Callable[[str], float]
    show: Callable[[float], str]


def _percent(text: str) -> float:
    return 100 * parse_fraction(text)


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


BYTES = Unit(parse=partial(parse, dimension="bytes"), show=format_bytes)
COUNT = Unit(parse=partial(parse, dimension="count"), show=format_count)
MILLISECONDS = Unit(parse=partial(parse, dimension="ms"), show=format_ms)
DOLLARS = Unit(parse=partial(parse, dimension="usd"), show=format_usd)
DECIBELS = Unit(parse=partial(parse, dimension="db"), show=lambda db: f"{db:.1f} dB")
OWN = Unit(parse=_own, show=lambda number: f"{number:.4g}")
PERCENT = Unit(parse=_percent, show=lambda percent: f"{percent:.2f}%")
FRACTION = Unit(parse=parse_fraction, show=lambda fraction: f"{fraction:.5f}")
RATE = Unit(parse=_rate, show=lambda rate: f"{rate:.4g}/s")


Read = Callable[[Subject, Unit], Reading]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a bound's name means."""

    upper: bool
    """The estimate must stay below it (else above)."""
    relative: bool
    """It bounds the change against the baseline (else the value itself)."""
    parse: Callable[[str], float] | None = None
    """Reads its text; None where the unit of the rule does."""


def _multiple(text: str) -> float:
    return parse(f"{text}x" if text.strip()[-1:].isdigit() else text, "ratio")


def _regression(text: str) -> float:
    return 1 + parse(text, "ratio")


BOUNDS = {
    "max": Bound(upper=True, relative=False),
    "min": Bound(upper=False, relative=False),
    "max_ratio": Bound(upper=True, relative=True, parse=_multiple),
    "min_ratio": Bound(upper=False, relative=True, parse=_multiple),
    "max_regression": Bound(upper=True, relative=True, parse=_regression),
    "max_drop": Bound(upper=True, relative=True, parse=partial(parse, dimension="pp")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a rule's name means."""

    bounds: tuple[str, ...]
    unit: Unit
    read: Read
    source: str
    """The command that measures it."""
    timed: bool = False
    """Whether an unfit host makes it worthless."""
    priced: bool = False
    """Whether a policy may name the ``instance`` type it is judged on."""

    def parse(self, bound: str, text: str) -> float:
        """Read the text of a bound.

        Raises:
            UnitError: not a number, or without a unit where one is needed.

        """
        own_drop = bound == "max_drop" and self.unit is OWN  # not in percentage points, then
        return (self.unit.parse if own_drop else BOUNDS[bound].parse or self.unit.parse)(text)


def _alone(get: Callable[[Subject], Estimate | None]) -> Read:
    """Read a number that is not compared with the baseline's."""
    return lambda subject, unit: _reading(subject, unit, get(subject), None)


def _compared(get: Callable[[Subject], Estimate | None]) -> Read:
    """Read a number whose change is the plain ratio of the two values."""

    def read(subject: Subject, unit: Unit) -> Reading:
        value, baseline = get(subject), get(subject.baseline)
        return _reading(subject, unit, value, _ratio(value, baseline))

    return read


def _ratio(value: Estimate | None, baseline: Estimate | None) -> Estimate | None:
    if value is None or baseline is None or min(baseline.low, baseline.value) <= 0:
        return None
    # Not measured in pairs, so the interval is the widest that both allow.
    return Estimate(value=value.value / baseline.value, low=value.low / baseline.high, high=value.high / baseline.low)


def _reading(subject: Subject, unit: Unit, value: Estimate | None, change: Estimate | None) -> Reading:
    texts = []
    if value is not None:
        texts.append(unit.show(value.value))
    if change is not None:
        ratio = times_within(change.value, change.interval) if change.interval else times(change.value)
        texts.append(f"{ratio} of {subject.report.baseline}")
    return Reading(value=value, change=change, text=", ".join(texts))


def _paired(subject: Subject, metric: str) -> Estimate | None:
    """Return candidate ÷ baseline from paired blocks; None when this was not compared."""
    change = subject.report.speed_change(subject.variant, metric)
    if change is None:
        return None
    low, high = ratio_interval(change["ci95_pct"])
    ratio = 1 + change["change_pct"] / 100
    return Estimate(value=ratio, low=low, high=high, count=change["pairs"], counted="pairs")


def _latency(statistic: str) -> Kind:
    def read(subject: Subject, unit: Unit) -> Reading:
        value, change = subject.speed("latency_ms", statistic), _paired(subject, f"latency.{statistic}")
        return _reading(subject, unit, value, change)

    # Only the median of a block is stable enough to be compared in pairs.
    bounds = ("max", "max_ratio", "max_regression") if statistic == "p50" else ("max",)
    return Kind(bounds=bounds, unit=MILLISECONDS, read=read, source="compress bench", timed=True)


def _throughput(subject: Subject, unit: Unit) -> Reading:
    value, baseline = subject.speed("throughput_per_s"), subject.baseline.speed("throughput_per_s")
    return _reading(subject, unit, value, _paired(subject, "throughput.offline") or _ratio(value, baseline))


def _accuracy(name: str) -> Kind:
    def read(subject: Subject, _unit: Unit) -> Reading:
        metric = subject.report.metric
        value, change = subject.quality("value"), subject.report.quality_change(subject.variant)
        if metric is None or value is None or change is None or math.isnan(change["drop"]):
            return Reading()
        if name != (metric["name"] if metric["name"] in BUILTIN_METRICS else CUSTOM_METRIC):
            return Reading()
        low, high = change["ci95"] or (change["drop"], change["drop"])
        drop = Estimate(
            value=change["drop"],
            low=low,
            high=high,
            count=change["samples"] or 0,
            counted="samples",
            differed=change["lost"] != 0 or change["won"] != 0,
        )
        text = f"{score(value.value, metric['unit'])}, drop {drop_within(drop.value, drop.interval, metric['unit'])}"
        return Reading(value=value, change=drop, text=text)

    unit = OWN if name == CUSTOM_METRIC else PERCENT
    return Kind(bounds=("min", "max_drop"), unit=unit, read=read, source="compress evaluate")


def _sqnr(subject: Subject, unit: Unit) -> Reading:
    value = subject.quality("sqnr_db")
    if value is None and subject.quality("cosine") is not None:
        return Reading(value=Estimate(value=math.inf, low=math.inf, high=math.inf), text="no noise")
    return _reading(subject, unit, value, None)


def _first_result(subject: Subject) -> Estimate | None:
    phases = [subject.speed("cold_start_ms", phase) for phase in ("import", "session", "first_run")]
    measured = [phase.value for phase in phases if phase is not None]
    total = sum(measured)
    return Estimate(value=total, low=total, high=total) if len(measured) == len(phases) else None


def _price(subject: Subject, unit: Unit) -> Reading:
    reading = _compared(Subject.price)(subject, unit)
    return replace(reading, text=f"{reading.text} on {subject.where}") if reading.value else reading


def _file(get: Callable[[Subject], Estimate | None], unit: Unit) -> Kind:
    return Kind(bounds=("max", "max_ratio"), unit=unit, read=_compared(get), source="compress run")


def _graph(get: Callable[[Subject], Estimate | None], *bounds: str) -> Kind:
    return Kind(bounds=bounds, unit=COUNT, read=_alone(get), source="compress run")


def _fidelity(read: Read, unit: Unit) -> Kind:
    return Kind(bounds=("min",), unit=unit, read=read, source="compress evaluate")


def _bench(get: Callable[[Subject], Estimate | None], unit: Unit, *, timed: bool) -> Kind:
    return Kind(bounds=("max", "max_ratio"), unit=unit, read=_compared(get), source="compress bench", timed=timed)


RULES = {
    "size.total_bytes": _file(lambda one: one.facts("size_bytes"), BYTES),
    "size.compressed_bytes": _file(lambda one: one.facts("compressed_bytes"), BYTES),
    "size.parameters": _file(lambda one: one.facts("parameters"), COUNT),
    "graph.opset": _graph(lambda one: one.facts("opset"), "min", "max"),
    "graph.int8_nodes": _graph(lambda one: one.facts("kernels", "int8"), "min"),
    "graph.float_nodes": _graph(lambda one: one.facts("kernels", "float"), "max"),
    **{f"accuracy.{name}": _accuracy(name) for name in (*BUILTIN_METRICS, CUSTOM_METRIC)},
    "fidelity.agreement": _fidelity(_alone(lambda one: one.quality("agreement_pct")), PERCENT),
    "fidelity.cosine": _fidelity(_alone(lambda one: one.quality("cosine")), FRACTION),
    "fidelity.sqnr_db": _fidelity(_sqnr, DECIBELS),
    "memory.rss_peak": _bench(lambda one: one.speed("memory", "vm_hwm_bytes"), BYTES, timed=False),
    "cold_start.first_result": _bench(_first_result, MILLISECONDS, timed=True),
    **{f"latency.{statistic}": _latency(statistic) for statistic in STATISTICS},
    "throughput": Kind(bounds=("min", "min_ratio"), unit=RATE, read=_throughput, source="compress bench", timed=True),
    "cost.usd_per_million": Kind(
        bounds=("max", "max_ratio"), unit=DOLLARS, read=_price, source="compress cost", timed=True, priced=True
    ),
}
"""By name, in the order in which they are judged."""
