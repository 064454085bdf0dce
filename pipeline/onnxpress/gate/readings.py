"""How each rule reads its number from a report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from fnmatch import fnmatchcase

from onnxpress.bench import BLOCKS
from onnxpress.gate.estimates import Estimate, Reading, Subject, Unit
from onnxpress.report.numbers import drop_within, ratio_interval, score, times, times_within

BUILTIN_METRICS = ("top1", "top5", "spearman")
CUSTOM_METRIC = "custom"

Get = Callable[[Subject], Estimate | None]
Read = Callable[[Subject, Unit], Reading]


def alone(get: Get) -> Read:
    """Read a number that is not compared with the baseline's."""
    return lambda subject, unit: _reading(subject, unit, get(subject), None)


def compared(get: Get) -> Read:
    """Read a number whose change is the plain ratio of the two values."""

    def read(subject: Subject, unit: Unit) -> Reading:
        value, baseline = get(subject), get(subject.baseline)
        return _reading(subject, unit, value, _ratio(value, baseline))

    return read


def latency(statistic: str) -> Read:
    """Read a statistic of the latency, and its change where that was measured in paired blocks."""

    def read(subject: Subject, unit: Unit) -> Reading:
        percentile = statistic.removesuffix("_guaranteed")
        why = "its runs do not tell how it varies"
        if percentile in BLOCKS:
            needed = BLOCKS[percentile]
            why = f"{percentile} needs {needed} blocks of runs to be bounded: `--pairs {needed}` or more"
        value = subject.timed(percentile, "latency_ms", percentile, why=why)
        if value is not None and statistic != percentile and not value.why:
            value = replace(value, value=value.high)
        return _reading(subject, unit, value, _paired(subject, f"latency.{statistic}"))

    return read


def throughput(subject: Subject, unit: Unit) -> Reading:
    """Read the inferences a second; the change is paired where the scenario was offline."""
    value, baseline = subject.speed("throughput_per_s"), subject.baseline.speed("throughput_per_s")
    return _reading(subject, unit, value, _paired(subject, "throughput.offline") or _ratio(value, baseline))


def accuracy(name: str) -> Read:
    """Read a metric and its paired drop; nothing when the evaluation had another metric."""

    def read(subject: Subject, _unit: Unit) -> Reading:
        metric = subject.report.metric
        value, change = subject.quality("value"), subject.report.quality_change(subject.variant)
        if metric is None or value is None or change is None or math.isnan(change["drop"]):
            return Reading()
        if name != (metric["name"] if metric["name"] in BUILTIN_METRICS else CUSTOM_METRIC):
            return Reading()
        drop = Estimate.sampled(
            change["drop"], change["ci95"], change.get("why") or "no interval", change["samples"] or 0, "samples"
        )
        drop = replace(drop, differed=change["lost"] != 0 or change["won"] != 0)
        text = f"{score(value.value, metric['unit'])}, {drop_within(drop.value, drop.interval, metric['unit'])}"
        return Reading(value=value, change=drop, text=text)

    return read


def worst_class(subject: Subject, _unit: Unit) -> Reading:
    """Read the paired drop of the class that lost most, whose interval allows for its having been picked."""
    worst = (subject.report.quality_change(subject.variant) or {}).get("worst_class")
    if not worst:
        return Reading()
    drop = Estimate.sampled(worst["drop"], worst["ci95"], "", worst["samples"], "samples")
    text = f"class {worst['label']} of {worst['classes']}: {drop_within(drop.value, drop.interval, '%')}"
    return Reading(change=drop, text=text)


def sqnr(subject: Subject, unit: Unit) -> Reading:
    """Read the signal-to-noise ratio; outputs that are equal have no noise."""
    value = subject.quality("sqnr_db")
    if value is None and subject.counted("cosine") is not None:
        return Reading(value=Estimate.exact(math.inf), text="no noise")
    return _reading(subject, unit, value, None)


def first_result(subject: Subject) -> Estimate | None:
    """Return the milliseconds from a new process to its first result."""
    phases = [subject.speed("cold_start_ms", phase) for phase in ("import", "session", "first_run")]
    measured = [phase.value for phase in phases if phase is not None]
    return subject.bounded(sum(measured), "first_result") if len(measured) == len(phases) else None


def energy(subject: Subject) -> Estimate | None:
    """Return the joules an inference takes; None where the machine does not tell."""
    return subject.timed("energy", "energy", "j_per_inference")


def priced(field: str) -> Read:
    """Read a number of the cost, and say where it holds."""

    def read(subject: Subject, unit: Unit) -> Reading:
        reading = compared(lambda one: one.price(field))(subject, unit)
        return replace(reading, text=f"{reading.text} on {subject.where}") if reading.value else reading

    return read


def price_age(subject: Subject) -> Estimate | None:
    """Return the age of the oldest price in days; None when a price has no date."""
    prices = subject.report.prices(subject.variant)
    dates = [str(price["as_of"]) for price in prices if price.get("as_of")]
    if not dates or len(dates) < len(prices):
        return None
    return Estimate.exact((subject.today - min(map(date.fromisoformat, dates))).days)


def forbidden_ops(subject: Subject, _unit: Unit) -> Reading:
    """Count the nodes of operators that a policy names; outside the ONNX domain names are ``domain.Op``."""
    operators = subject.report.variant(subject.variant).get("operators")
    if operators is None:
        return Reading()
    found = {
        name: count for name, count in operators.items() if any(fnmatchcase(name, each) for each in subject.patterns)
    }
    text = ", ".join(f"{count} {name}" for name, count in sorted(found.items())) or "none"
    return Reading(value=Estimate.exact(sum(found.values())), text=text, why=f"the model holds {text}")


def required_int8(subject: Subject, _unit: Unit) -> Reading:
    """Count the layers that a policy wants on int8 kernels and that the loaded session runs in float."""
    layers = (subject.report.variant(subject.variant).get("kernels") or {}).get("layers", ())
    asked = [layer for layer in layers if any(fnmatchcase(layer["name"], each) for each in subject.patterns)]
    if not asked:
        return Reading()
    stayed = [layer for layer in asked if not layer["int8"]]
    text = ", ".join(f"{layer['op']} {layer['name']} ({layer['reason']})" for layer in stayed) or "none"
    why = f"of {len(asked)} layers, in float: {text}"
    return Reading(value=Estimate.exact(len(stayed)), text=f"{len(stayed)} of {len(asked)}", why=why)


def calibration_disjoint(subject: Subject, _unit: Unit) -> Reading:
    """Tell whether no calibration sample was evaluated on: a model tuned to its test looks better than it is."""
    lineage = subject.report.variant(subject.variant).get("lineage")
    data = (subject.report.evaluation or {}).get("data")
    if lineage is None or data is None:
        return Reading()
    used = {step.get("data_sha256") for step in lineage} - {None}
    if not used:
        return Reading(value=Estimate.exact(1), text="no calibration data" if lineage else "no lineage")
    shared = data.get("shared_with_calibration")
    if data["sha256"] in used:
        shared = data["samples"]
    if shared is None:
        return Reading()
    text = f"{shared} of {data['samples']} samples shared"
    why = f"{shared} of the {data['samples']} evaluation samples were calibrated with: evaluate on others"
    return Reading(value=Estimate.exact(0 if shared else 1), text=text, why=why)


def lineage_complete(subject: Subject, _unit: Unit) -> Reading:
    """Tell whether every step from the source (or the baseline's file) to this model is known."""
    lineage = subject.report.variant(subject.variant).get("lineage")
    if lineage is None:
        return Reading()
    why = _gap(lineage, subject.report.variant(subject.report.baseline).get("sha256"))
    return Reading(value=Estimate.exact(0 if why else 1), text=f"{len(lineage)} steps", why=why)


def _gap(lineage: list[dict[str, object]], root: object) -> str:
    if not lineage:
        return "the model says nothing of how it was made: make it with onnxpress"
    first = lineage[0]
    if not first.get("source_sha256") and first.get("input_sha256") != root:
        return f"its first step, {first.get('step')}, starts from a model that is neither exported nor the baseline"
    for position, step in enumerate(lineage):
        missing = [name for name in ("step", "options", "versions") if not isinstance(step.get(name), (str, dict))]
        # An export may start from a file that was made before: what it read is its source.
        if position and not step.get("input_sha256") and not step.get("source_sha256"):
            missing.append("input_sha256")
        if missing:
            return f"step {position + 1} does not record its {missing[0]}"
    return ""


def _ratio(value: Estimate | None, baseline: Estimate | None) -> Estimate | None:
    if value is None or baseline is None or baseline.value <= 0 or (baseline.low <= 0 and not baseline.why):
        return None
    ratio, why = value.value / baseline.value, value.why or baseline.why
    if why:
        return Estimate.open(ratio, why)
    # Not measured in pairs, so the interval is the widest that both allow.
    return Estimate(value=ratio, low=value.low / baseline.high, high=value.high / baseline.low)


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
