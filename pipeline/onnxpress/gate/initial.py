"""A first policy, written from a measurement: what is there passes, with head-room, and every line says why.

What is written is read again and judged by the gate: a rule that its own measurement does not pass (too few samples, a
noisy host) stands there as a comment with the reason. Nothing is written from a ruined model, and no bound is so wide
that a ruined one would keep it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path

from onnxpress.errors import UsageError
from onnxpress.gate.check import Check, Level
from onnxpress.gate.estimates import (
    BYTES,
    COUNT,
    DECIBELS,
    DOLLARS,
    FRACTION,
    JOULES,
    MILLISECONDS,
    PERCENT,
    RATE,
    Estimate,
    Reading,
    Subject,
    Unit,
)
from onnxpress.gate.gate import gate
from onnxpress.gate.policy import SCHEMA
from onnxpress.gate.reader import Reader
from onnxpress.gate.rules import RULES, Kind
from onnxpress.printing import printable
from onnxpress.report.loss import RUIN, loss, noise_db
from onnxpress.report.report import Report
from onnxpress.report.view import why
from onnxpress_calibration.documents import parse_yaml

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
STAND_INS = ("fidelity.agreement", "fidelity.sqnr_db")
"""Rules that stop the release where accuracy has no bound, so that something does."""
LEAST_DROP = 0.5
"""Percentage points of accuracy that a first policy always allows."""
NOISELESS_DB = 200.0
"""In place of outputs without noise."""
COLUMNS = 110
DIGITS = 4
"""Significant ones of a bound."""
WRITTEN: dict[Unit, tuple[int, str]] = {
    BYTES: (-6, " MB"),
    MILLISECONDS: (0, " ms"),
    DOLLARS: (0, " USD"),
    JOULES: (0, " J"),
    DECIBELS: (0, " dB"),
    PERCENT: (0, "%"),
    RATE: (0, "/s"),
}
"""Power of ten and suffix in which a bound is written, which are read back without a rounding."""


def policy(report: Report, variants: Collection[str], *, headroom: float, today: date) -> str:
    """Return the text of a policy that these variants pass.

    Args:
        report: Finished measurements.
        variants: Ids; every bound holds for all of them.
        headroom: How much worse than today a number may get, as a share: 0.25.
        today: The day on which prices are judged.

    Raises:
        UsageError: a variant is ruined.
    """
    _refuse_ruin(report, variants)
    rules: dict[str, tuple[str, str]] = {}
    for name, level in WEIGHT.items():
        kind = RULES[name]
        if name in STAND_INS and not any(rule.startswith("accuracy.") for rule, _ in rules.values()):
            level = "error"
        readings = [kind.read(Subject(report=report, variant=variant, today=today), kind.unit) for variant in variants]
        rule = _rule(name, level, kind, readings, headroom)
        if rule is not None:
            rules[name] = rule
    text = _text(report, variants, headroom, rules, {})
    read = Reader(Path("compress-gate.yaml")).policy(parse_yaml(text.encode())[0], "")
    checks = gate(report, read, today, variants=variants)
    return _text(report, variants, headroom, rules, {check.rule: check for check in checks if check.verdict != "pass"})


def _refuse_ruin(report: Report, variants: Collection[str]) -> None:
    losses = {name: loss(report, name) for name in variants}
    good = [name for name in report.candidates if loss(report, name).state != "ruined"]
    for name, lost in losses.items():
        if lost.state == "ruined":
            others = " ".join(f"--variant {other}" for other in good)
            advice = f"Name the good ones: {others}" if good else "Make a better one first"
            raise UsageError(
                f"gate init: variant {name!r} is ruined ({lost.text}), and a policy made from it would let that pass. "
                f"{advice}."
            )


def _text(
    report: Report,
    variants: Collection[str],
    headroom: float,
    rules: Mapping[str, tuple[str, str]],
    open_: Mapping[str, Check],
) -> str:
    """Lay the rules out; one that is still open is a comment."""
    names = ", ".join(variants)
    lines = [
        f"# Written by `compress gate init` from {names} against {report.baseline}, with {headroom:.0%} head-room.",
        "# Every line is a rule: [level, {bounds}]. Levels: error stops the release, warn only says so, off.",
        "# Bounds are of the value (max, min), or against the baseline in the same run (max_ratio, max_drop,",
        "# max_regression). Tighten what matters to you, and delete what does not; docs/gate.md has all rules.",
        f"schema: {SCHEMA}",
        "rules:",
    ]
    width = max((len(rule) for rule, _ in rules.values()), default=0)
    for name, (rule, measured) in rules.items():
        lines.append(f"  {'# ' if name in open_ else ''}{rule:<{width}}  # {measured}")
    for reason in dict.fromkeys(map(why, open_.values())):
        commented = ", ".join(name for name, check in open_.items() if why(check) == reason)
        lines += textwrap.wrap(
            f"{commented} cannot be judged yet: {reason}", COLUMNS, initial_indent="  # ", subsequent_indent="  #   "
        )
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
    return "".join(f"{printable(line)}\n" for line in lines)


def _rule(name: str, level: Level, kind: Kind, readings: Sequence[Reading], headroom: float) -> tuple[str, str] | None:
    """Return a rule, or a comment in its place, and what it rests on; None when something was not measured."""
    measured = "; ".join(dict.fromkeys(reading.text for reading in readings))
    if not kind.bounds:
        if any(reading.value is None for reading in readings):
            return None
        whys = list(dict.fromkeys(reading.why for reading in readings if reading.value and reading.value.value != 1))
        return (f"# {name}: does not hold", "; ".join(whys)) if whys else (f"{name}: {level}", measured)
    bounds = [f"{bound}: {text}" for bound, text in _bounds(kind, readings, Decimal(str(headroom)))]
    if bounds:
        return f"{name}: [{level}, {{{', '.join(bounds)}}}]", f"measured {measured}"
    if not all(reading.text for reading in readings):
        return None
    whys = [estimate.why for reading in readings for estimate in (reading.change, reading.value) if estimate]
    why = next(filter(None, whys), "its interval is so wide that a ruined model would pass: evaluate on more samples")
    return f"# {name}: no bound yet", f"measured {measured}; {why}"


def _bounds(kind: Kind, readings: Sequence[Reading], headroom: Decimal) -> Iterator[tuple[str, str]]:
    values = [reading.value for reading in readings if reading.value is not None and _closed(reading.value)]
    changes = [reading.change for reading in readings if reading.change is not None and _closed(reading.change)]
    changed = len(changes) == len(readings)
    if "max_drop" in kind.bounds:
        worst = max((Decimal(change.high) for change in changes), default=Decimal(0))
        # What a drop of nothing would have to be added to is the baseline's value.
        bases = [abs(each.value.value + each.change.value) for each in readings if each.value and each.change]
        if kind.unit is PERCENT:
            ruin, allowed = Decimal(RUIN), max(Decimal(str(LEAST_DROP)), worst)
            text = f"{allowed.quantize(Decimal('0.1'), ROUND_CEILING)}pp"
        else:
            ruin = Decimal(min(bases, default=0.0)) * Decimal(RUIN) / 100
            allowed = min(max(Decimal(0), worst) * (1 + headroom), max(ruin, worst))
            text = _written(kind.unit, allowed, ROUND_CEILING)
        if changed and worst <= ruin:
            yield "max_drop", text
        return
    valued = len(values) == len(readings)
    if valued and "max" in kind.bounds:
        highest = Decimal(max(value.high for value in values))
        same = kind.bounds == ("min", "max")  # neither way is better
        yield "max", _written(kind.unit, highest if same else highest * (1 + headroom), ROUND_CEILING)
    elif valued and "min" in kind.bounds:
        lowest = _room_below(kind.unit, min(value.low for value in values), headroom)
        if lowest is not None:
            yield "min", _written(kind.unit, lowest, ROUND_FLOOR)
    if changed and "max_ratio" in kind.bounds:
        ratio = Decimal(max(change.high for change in changes)) * (1 + headroom / 2)
        yield "max_ratio", f"{_rounded(ratio, ROUND_CEILING)}x"


def _closed(estimate: Estimate) -> bool:
    """Tell whether there is an interval, or no need of one."""
    return not estimate.why and not math.isnan(estimate.high)


def _room_below(unit: Unit, value: float, headroom: Decimal) -> Decimal | None:
    """Return the smallest value that is allowed; for what ends at a best value, the distance to that grows.

    None where that would let a ruined model pass.
    """
    if unit is DECIBELS:  # outputs without noise have no end
        least = max(Decimal(noise_db(RUIN)), Decimal(min(value, NOISELESS_DB)) / (1 + headroom / 2))
        return least if value >= noise_db(RUIN) else None
    if unit is COUNT:  # of int8 kernels: none at all would be no bound
        return max(Decimal(min(value, 1)), Decimal(value) / (1 + headroom))
    best = {PERCENT: 100, FRACTION: 1}.get(unit)
    if best is None:
        return Decimal(value) / (1 + headroom)
    least = max(Decimal(0), best - (best - Decimal(value)) * (1 + headroom))
    if unit is PERCENT:
        return max(Decimal(100 - RUIN), least) if value >= 100 - RUIN else None
    return least


def _written(unit: Unit, value: Decimal, rounding: str) -> str:
    """Write a bound in its unit, rounded away from what was measured."""
    if unit in (COUNT, RATE):
        whole = value.to_integral_value(rounding)
        return f"{whole}{WRITTEN[unit][1] if unit in WRITTEN else ''}"
    power, suffix = WRITTEN.get(unit, (0, ""))
    return f"{_rounded(value.scaleb(power), rounding)}{suffix}"


def _rounded(value: Decimal, rounding: str) -> str:
    """Round to `DIGITS` significant digits in one direction, and write without exponent."""
    if value == 0:
        return "0"
    place = value.adjusted() - DIGITS + 1
    rounded = value.quantize(Decimal(1).scaleb(min(place, 0)), rounding)
    return f"{rounded.normalize():f}"
