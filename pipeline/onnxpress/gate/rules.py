"""The rules a policy may name: what each one reads from a report, and which bounds it takes.

=========================================  =============================  ==============================================
rule                                       bounds                         reads
=========================================  =============================  ==============================================
size.total_bytes                           max, max_ratio, max_growth     bytes on disk, external data included
size.compressed_bytes                      max, max_ratio, max_growth     bytes to transfer: after Zstandard
size.parameters                            max, max_ratio, max_growth     parameters
graph.opset                                min, max                       opset of the ONNX domain
graph.forbidden_ops                        any                            nodes of operators that must not be there;
                                                                          patterns, ``domain.Op`` outside ONNX's domain
graph.int8_nodes                           min, max_fall                  nodes that the loaded session runs as int8
graph.float_nodes                          max, max_growth                multiplying nodes that it runs in float
graph.required_int8                        any                            layers that run in float though they match;
                                                                          patterns of layer names
provenance.lineage_complete                none                           whether every step of the model is known
provenance.calibration_disjoint_from_eval  none                           whether no sample was used for both
accuracy.METRIC                            min, max_drop, max_fall        top1, top5, spearman or custom (a metric of
                                                                          one's own, whose bounds are bare numbers); the
                                                                          drop is paired by sample
accuracy.worst_class                       max_drop                       the class whose accuracy drops most, of all
                                                                          classes together
fidelity.agreement                         min, max_fall                  share of samples with the baseline's answer
fidelity.cosine, fidelity.cosine_p01       min, max_fall                  cosine between the outputs and the baseline's:
                                                                          mean, and that of the worst percent of samples
fidelity.sqnr_db                           min, max_fall                  signal to quantization noise of the outputs
fidelity.nan_inf                           max                            output values that are no number
graph.cpu_fallback_nodes                   max                            nodes on the CPU that another provider was
                                                                          asked to run
memory.arena_peak, memory.device           max, max_ratio                 the allocator's and the GPU's peak
memory.rss_peak                            max, max_ratio                 VmHWM of a fresh process
cold_start.first_result                    max, max_ratio                 import, session creation and first run
latency.p50                                max, max_ratio, max_regression milliseconds; the change is measured in paired
                                                                          blocks
latency.STATISTIC                          max                            mean, p90, p95, p99, p999, p99_guaranteed
throughput                                 min, min_ratio                 inferences a second; the change is measured in
                                                                          paired blocks in the offline scenario
energy.joules_per_inference                max, max_ratio                 RAPL or NVML
cost.usd_per_million                       max, max_ratio, instance       dollars per million inferences
cost.usd_per_month                         max, max_ratio, instance       dollars a month of the fleet
prices.age_days                            max                            age of the oldest price
=========================================  =============================  ==============================================

``max_ratio`` and ``min_ratio`` bound candidate ÷ baseline; ``max_regression: 5%`` is ``max_ratio: 1.05``.
``max_growth`` and ``max_fall`` bound the change against the stored baseline of the last release
(`onnxpress.gate.baseline`). The order of the table is the order of the checks: what is deterministic comes first, what
a clock measured comes last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from onnxpress.gate import readings
from onnxpress.gate.estimates import (
    BYTES,
    COUNT,
    DAYS,
    DECIBELS,
    DOLLARS,
    FRACTION,
    JOULES,
    MILLISECONDS,
    OWN,
    PERCENT,
    RATE,
    Estimate,
    Subject,
    Unit,
)
from onnxpress.gate.readings import BUILTIN_METRICS, CUSTOM_METRIC, Get, Read, alone, compared
from onnxpress.units import parse

Need = Literal["file", "session", "evaluation", "bench", "cost"]
"""What a rule rests on, from cheap to dear."""
STATISTICS = ("p50", "mean", "p90", "p95", "p99", "p99_guaranteed", "p999")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a number comes from: what to add so that it is measured."""

    recipe: str
    """To the recipe of `compress run`; empty where any run measures it."""
    options: str
    """To `compress gate MODEL…`; empty likewise."""


LABELS = "--data DATA (with labels in y) --metric"
SOURCES: dict[Need, Source] = {
    "file": Source(recipe="", options=""),
    "session": Source(recipe="", options=""),
    "evaluation": Source(recipe="data: {evaluation: DATA}", options="--data DATA"),
    "bench": Source(recipe="bench: {scenarios: [single]}", options=""),
    "cost": Source(recipe="cost: {instances: [gcp/c3-standard-4/us-central1]}", options=""),
}
OFFLINE = Source(recipe="bench: {scenarios: [single, offline]}", options="")
LONGER = Source(recipe="bench: {budget: 5m}", options="--budget 5m")
"""Tails need many runs."""
DISJOINT = Source(recipe="data: {calibration: DATA, evaluation: OTHER}", options="--data DATA --calibration OTHER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a bound's name means."""

    upper: bool
    """The estimate must stay below it (else above)."""
    against: Literal["nothing", "baseline", "stored"] = "nothing"
    """What the value is compared with before it is judged: the baseline of the report, or the stored one."""
    parse: Callable[[str], float] | None = None
    """Reads its text; None where the unit of the rule does."""
    ratio: bool = False


def _multiple(text: str) -> float:
    return parse(f"{text}x" if text.strip()[-1:].isdigit() else text, "ratio")


def _more(text: str) -> float:
    return 1 + parse(text, "ratio")


_points = partial(parse, dimension="pp")
BOUNDS = {
    "max": Bound(upper=True),
    "min": Bound(upper=False),
    "max_ratio": Bound(upper=True, against="baseline", parse=_multiple, ratio=True),
    "min_ratio": Bound(upper=False, against="baseline", parse=_multiple, ratio=True),
    "max_regression": Bound(upper=True, against="baseline", parse=_more, ratio=True),
    "max_drop": Bound(upper=True, against="baseline", parse=_points),
    "max_growth": Bound(upper=True, against="stored", parse=_more, ratio=True),
    "max_fall": Bound(upper=True, against="stored"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a rule's name means."""

    bounds: tuple[str, ...]
    """Empty where a rule holds or does not, and its policy gives nothing but a level."""
    unit: Unit
    read: Read
    needs: Need
    source: Source
    mend: str
    """What to do where it fails."""
    options: tuple[str, ...] = ()
    """What else a policy may say: ``instance``, ``min_samples``."""
    timed: bool = False
    """Whether an unfit host makes it worthless."""
    listed: bool = False
    """Whether its bound, ``any``, is a list of names."""

    def parse(self, bound: str, text: str) -> float:
        """Read the text of a bound.

        Raises:
            UnitError: not a number, or without a unit where one is needed.

        """
        if bound == "max_drop" and self.unit is OWN:  # not in percentage points, then
            return self.unit.parse(text)
        if bound == "max_fall" and self.unit is PERCENT:
            return _points(text)
        return (BOUNDS[bound].parse or self.unit.parse)(text)

    @property
    def lower_is_better(self) -> bool | None:
        """Which way is better; None where neither is."""
        upper = {BOUNDS[bound].upper for bound in self.bounds if bound in ("max", "min")}
        return upper.pop() if len(upper) == 1 else None


SHRINK = "Quantize or prune more; `compress inspect MODEL` shows what is largest"
FLOAT = "The report says under Kernels why each layer stayed float"
GENTLER = "Leave sensitive layers alone (`exclude`), calibrate on more samples, prune less, or let `mode: auto` choose"
FASTER = "The report says under Speed where the time goes; `mode: auto` keeps int8 only where it is faster"
REMADE = "Make the model again from its source with onnxpress"


def _file(field: str, unit: Unit) -> Kind:
    return Kind(
        bounds=("max", "max_ratio", "max_growth"),
        unit=unit,
        read=compared(lambda one: one.facts(field)),
        needs="file",
        source=SOURCES["file"],
        mend=SHRINK,
    )


def _graph(get: Get, *bounds: str, needs: Need, mend: str = FLOAT) -> Kind:
    return Kind(bounds=bounds, unit=COUNT, read=alone(get), needs=needs, source=SOURCES[needs], mend=mend)


def _named(read: Read, needs: Need, mend: str) -> Kind:
    return Kind(bounds=("any",), unit=COUNT, read=read, needs=needs, source=SOURCES[needs], mend=mend, listed=True)


def _provenance(read: Read, needs: Need, source: Source, mend: str) -> Kind:
    return Kind(bounds=(), unit=COUNT, read=read, needs=needs, source=source, mend=mend)


def _accuracy(name: str) -> Kind:
    metric = "module:function" if name == CUSTOM_METRIC else name
    return Kind(
        bounds=("min", "max_drop", "max_fall"),
        unit=OWN if name == CUSTOM_METRIC else PERCENT,
        read=readings.accuracy(name),
        needs="evaluation",
        source=Source(recipe=f"data: {{evaluation: DATA, metric: {metric}}}", options=f"{LABELS} {metric}"),
        mend=GENTLER,
        options=("min_samples",),
    )


def _fidelity(read: Read, unit: Unit) -> Kind:
    return Kind(
        bounds=("min", "max_fall"),
        unit=unit,
        read=read,
        needs="evaluation",
        source=SOURCES["evaluation"],
        mend=GENTLER,
    )


def _bench(get: Get, unit: Unit, mend: str, *, timed: bool = False) -> Kind:
    return Kind(
        bounds=("max", "max_ratio"),
        unit=unit,
        read=compared(get),
        needs="bench",
        source=SOURCES["bench"],
        mend=mend,
        timed=timed,
    )


def _latency(statistic: str) -> Kind:
    # Only the median of a block is stable enough to be compared in pairs.
    bounds = ("max", "max_ratio", "max_regression") if statistic == "p50" else ("max",)
    return Kind(
        bounds=bounds,
        unit=MILLISECONDS,
        read=readings.latency(statistic),
        needs="bench",
        source=SOURCES["bench"] if statistic == "p50" else LONGER,
        mend=FASTER,
        timed=True,
    )


def _cost(field: str) -> Kind:
    return Kind(
        bounds=("max", "max_ratio"),
        unit=DOLLARS,
        read=readings.priced(field),
        needs="cost",
        source=SOURCES["cost"],
        mend="Choose a faster variant, or a cheaper instance type: the report compares them under Cost",
        options=("instance",),
        timed=True,
    )


def _speed(*path: str) -> Callable[[Subject], Estimate | None]:
    return lambda one: one.speed(*path)


def _peak(field: str) -> Callable[[Subject], Estimate | None]:
    return lambda one: one.timed(field, "memory", field)


def _quality(field: str) -> Callable[[Subject], Estimate | None]:
    return lambda one: one.quality(field)


RULES = {
    "size.total_bytes": _file("size_bytes", BYTES),
    "size.compressed_bytes": _file("compressed_bytes", BYTES),
    "size.parameters": _file("parameters", COUNT),
    "graph.opset": _graph(
        lambda one: one.facts("opset"), "min", "max", needs="file", mend="Export with another `opset`"
    ),
    "graph.forbidden_ops": _named(readings.forbidden_ops, "file", "Export without them, or from another opset"),
    "graph.int8_nodes": _graph(lambda one: one.facts("kernels", "int8"), "min", "max_fall", needs="session"),
    "graph.float_nodes": _graph(lambda one: one.facts("kernels", "float"), "max", "max_growth", needs="session"),
    "graph.required_int8": _named(readings.required_int8, "session", FLOAT),
    "provenance.lineage_complete": _provenance(readings.lineage_complete, "file", SOURCES["file"], REMADE),
    "provenance.calibration_disjoint_from_eval": _provenance(
        readings.calibration_disjoint, "evaluation", DISJOINT, "Evaluate on samples that calibration has not seen"
    ),
    **{f"accuracy.{name}": _accuracy(name) for name in (*BUILTIN_METRICS, CUSTOM_METRIC)},
    "accuracy.worst_class": Kind(
        bounds=("max_drop",),
        unit=PERCENT,
        read=readings.worst_class,
        needs="evaluation",
        source=Source(recipe="data: {evaluation: DATA, metric: top1}", options=f"{LABELS} top1"),
        mend=GENTLER,
        options=("min_samples",),
    ),
    "fidelity.agreement": _fidelity(alone(_quality("agreement_pct")), PERCENT),
    "fidelity.cosine": _fidelity(alone(_quality("cosine")), FRACTION),
    "fidelity.cosine_p01": _fidelity(alone(_quality("cosine_p01")), FRACTION),
    "fidelity.sqnr_db": _fidelity(readings.sqnr, DECIBELS),
    "fidelity.nan_inf": _graph(
        lambda one: one.counted("non_finite"),
        "max",
        needs="evaluation",
        mend="Leave the layers that overflow in float32 (`exclude`)",
    ),
    "graph.cpu_fallback_nodes": _graph(
        _speed("cpu_fallback_nodes"), "max", needs="bench", mend="Replace or exclude what the provider cannot run"
    ),
    "memory.arena_peak": _bench(_speed("memory", "arena_peak_bytes"), BYTES, SHRINK),
    "memory.device": _bench(_peak("device_bytes"), BYTES, SHRINK),
    "memory.rss_peak": _bench(_peak("vm_hwm_bytes"), BYTES, SHRINK),
    "cold_start.first_result": _bench(readings.first_result, MILLISECONDS, SHRINK, timed=True),
    **{f"latency.{statistic}": _latency(statistic) for statistic in STATISTICS},
    "throughput": Kind(
        bounds=("min", "min_ratio"),
        unit=RATE,
        read=readings.throughput,
        needs="bench",
        source=OFFLINE,
        mend=FASTER,
        timed=True,
    ),
    "energy.joules_per_inference": _bench(readings.energy, JOULES, FASTER, timed=True),
    "cost.usd_per_million": _cost("usd_per_million"),
    "cost.usd_per_month": _cost("usd_per_month"),
    "prices.age_days": Kind(
        bounds=("max",),
        unit=DAYS,
        read=alone(readings.price_age),
        needs="cost",
        source=SOURCES["cost"],
        mend="Look the prices up, and give them with `prices` or --price",
    ),
}
"""By name, in the order in which they are judged."""
