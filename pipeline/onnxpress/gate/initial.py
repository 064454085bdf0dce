"""A first policy, written from a measurement: what is there passes, with head-room, and every line says why."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from datetime import date

from onnxpress.gate.check import Level
from onnxpress.gate.estimates import BYTES, COUNT, DECIBELS, FRACTION, PERCENT, RATE, Reading, Subject
from onnxpress.gate.policy import SCHEMA
from onnxpress.gate.rules import RULES, Kind
from onnxpress.report.report import Report

WEIGHT: dict[str, Level] = {
    "size.total_bytes": "error",
    "size.compressed_bytes": "warn",
    "graph.opset": "error",
    "graph.int8_nodes": "error",
    "graph.float_nodes": "warn",
    "provenance.lineage_complete": "error",
    "provenance.calibration_disjoint_from_eval": "error",
    "accuracy.top1": "error",
    "accuracy.top5": "error",
    "accuracy.spearman": "error",
    "accuracy.custom": "error",
    "fidelity.agreement": "warn",
    "fidelity.sqnr_db": "warn",
    "fidelity.nan_inf": "error",
    "graph.cpu_fallback_nodes": "error",
    "memory.arena_peak": "error",
    "memory.rss_peak": "warn",
    "cold_start.first_result": "warn",
    "latency.p50": "error",
    "latency.p99": "warn",
    "throughput": "warn",
    "cost.usd_per_million": "warn",
}
"""The rules that a first policy has, where there is a number for them."""
LEAST_DROP = 0.5
"""Percentage points of accuracy that a first policy always allows."""


def policy(report: Report, variants: Collection[str], *, headroom: float, today: date) -> str:
    """Return the text of a policy that these variants pass.

    Args:
        report: Finished measurements.
        variants: Ids; every bound holds for all of them.
        headroom: How much worse than today a number may get, as a share: 0.25.
        today: The day on which prices are judged.

    """
    names = ", ".join(variants)
    lines = [
        f"# Written by `compress gate init` from {names} against {report.baseline}, with {headroom:.0%} head-room.",
        "# Every line is a rule: [level, {bounds}]. Levels: error stops the release, warn only says so, off.",
        "# Bounds are of the value (max, min), or against the baseline in the same run (max_ratio, max_drop,",
        "# max_regression). Tighten what matters to you, and delete what does not; docs/gate.md has all rules.",
        f"schema: {SCHEMA}",
        "rules:",
    ]
    rules = []
    for name, level in WEIGHT.items():
        kind = RULES[name]
        readings = [kind.read(Subject(report=report, variant=variant, today=today), kind.unit) for variant in variants]
        rules.append(_rule(name, level, kind, readings, headroom))
    width = max((len(left) for left, _ in filter(None, rules)), default=0)
    lines += [f"  {left:<{width}}  # {right}" for left, right in filter(None, rules)]
    lines += [
        '  # graph.forbidden_ops: [error, {any: [If, Loop, "com.microsoft.*"]}]   # what your target cannot run',
        "settings:",
        "  missing: error        # a number that was not measured stops the release: exit code 4",
        "  inconclusive: warn    # an interval with the limit inside; error to insist on proof",
        "  unfit_host: warn      # timings of a host that was too noisy",
        "# A violation that somebody answers for, until a day:",
        "# waivers:",
        "#   - {rule: latency.p50, reason: why, owner: who, expires: 2027-01-31, max: 9 ms}",
    ]
    return "\n".join(lines) + "\n"


def _rule(name: str, level: Level, kind: Kind, readings: Sequence[Reading], headroom: float) -> tuple[str, str] | None:
    """Return a rule and what it rests on; None when something was not measured."""
    measured = "; ".join(dict.fromkeys(reading.text for reading in readings))
    if not kind.bounds:
        holds = [reading.value is not None and reading.value.value == 1 for reading in readings]
        return (f"{name}: {level}", measured) if all(holds) else None
    bounds = [f"{bound}: {text}" for bound, text in _bounds(kind, readings, headroom)]
    return (f"{name}: [{level}, {{{', '.join(bounds)}}}]", f"measured {measured}") if bounds else None


def _bounds(kind: Kind, readings: Sequence[Reading], headroom: float) -> Iterator[tuple[str, str]]:
    values = [reading.value for reading in readings if reading.value is not None and not reading.value.why]
    changes = [reading.change for reading in readings if reading.change is not None and not reading.change.why]
    if "max_drop" in kind.bounds:
        if len(changes) == len(readings):
            worst = max(change.high for change in changes)
            allowed = math.ceil(10 * max(LEAST_DROP, worst)) / 10
            yield "max_drop", f"{allowed:.1f}pp" if kind.unit is PERCENT else f"{max(0.0, worst) * (1 + headroom):.4g}"
        return
    if len(values) < len(readings):
        return
    if "max" in kind.bounds:
        yield "max", _room_above(kind, max(value.high for value in values), headroom)
    elif "min" in kind.bounds:
        yield "min", _room_below(kind, min(value.low for value in values), headroom)
    if len(changes) == len(readings) and "max_ratio" in kind.bounds:
        yield "max_ratio", f"{_up(max(change.high for change in changes) * (1 + headroom / 2), 2):.2f}x"


def _room_above(kind: Kind, value: float, headroom: float) -> str:
    """Return the largest value that is allowed, rounded up so that it is never below today's."""
    if kind.unit is COUNT:
        return str(math.ceil(value) if kind.bounds == ("min", "max") else math.ceil(value * (1 + headroom)))
    if kind.unit is BYTES:
        return f"{_up(value * (1 + headroom) / 1e6, 3):.3f} MB"
    return kind.unit.show(_up(value * (1 + headroom), 4) if value >= 1 else value * (1 + headroom))


def _room_below(kind: Kind, value: float, headroom: float) -> str:
    """Return the smallest value that is allowed; for what ends at a best value, the distance to that grows."""
    if kind.unit is PERCENT:
        return f"{max(0.0, math.floor(100 * (100 - (100 - value) * (1 + headroom))) / 100):.2f}%"
    if kind.unit is FRACTION:
        return f"{max(0.0, 1 - (1 - value) * (1 + headroom)):.5f}"
    if kind.unit is DECIBELS:
        return f"{min(value, 200) / (1 + headroom / 2):.1f} dB"
    if kind.unit is RATE:
        return f"{math.floor(value / (1 + headroom))}/s"
    return str(math.floor(value)) if kind.unit is COUNT else f"{value / (1 + headroom):.4g}"


def _up(value: float, places: int) -> float:
    scale = float(10**places)
    return math.ceil(value * scale) / scale
