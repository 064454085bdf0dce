"""The gate: judge every variant of a report by every rule of a policy.

A bound is judged on the 95% interval where the measurement has one. All of the interval within the bound passes; all
of it beyond fails; a bound inside the interval is inconclusive, and the check says about how many more samples or pairs
would decide. For accuracy this is a paired non-inferiority test, for latency a test on paired blocks. Numbers without
an interval (a size, a node count) are judged as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from onnxpress.errors import EvidenceError
from onnxpress.gate.check import LEVELS, Check, Level, Verdict
from onnxpress.gate.policy import Limit, Policy, Rule, Settings, Waiver
from onnxpress.gate.rules import BOUNDS, RULES, Estimate, Reading, Subject
from onnxpress.report.numbers import needed
from onnxpress.report.report import Report
from onnxpress.units import format_ratio


def gate(report: Report, policy: Policy, today: date) -> tuple[Check, ...]:
    """Judge every variant except the baseline by every rule that is not off, deterministic rules first.

    Args:
        report: Finished measurements.
        policy: The rules.
        today: The day on which a waiver must still hold.

    Raises:
        EvidenceError: the report holds nothing but the baseline.

    """
    if not report.candidates:
        raise EvidenceError(
            f"gate: the report holds only the baseline {report.baseline!r}, there is nothing to judge. Add a variant."
        )
    return tuple(
        _check(report, policy, rule, variant, today)
        for rule in policy.rules
        if rule.level != "off"
        for variant in report.candidates
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    verdict: Verdict
    level: Level
    reason: str = ""


def _check(report: Report, policy: Policy, rule: Rule, variant: str, today: date) -> Check:
    kind = RULES[rule.name]
    reading = kind.read(Subject(report=report, variant=variant, instance=rule.instance), kind.unit)
    noisy = kind.timed and report.bench is not None and not report.bench["fit_for_gating"]
    finding = _judge(rule, rule.limits, reading, policy.settings, noisy)
    waiver = policy.waivers.get(rule.name)
    if waiver is not None and finding.verdict in ("fail", "warn", "inconclusive"):
        loosened = _judge(rule, _loosened(rule, waiver), reading, policy.settings, noisy)
        finding = _waive(finding, waiver, today, loosened)
    return Check(
        rule=rule.name,
        variant=variant,
        level=finding.level,
        verdict=finding.verdict,
        measured=reading.text,
        limit=", ".join(str(limit) for limit in rule.limits),
        reason=finding.reason,
        line=rule.line,
    )


def _judge(rule: Rule, limits: Sequence[Limit], reading: Reading, settings: Settings, noisy: bool) -> _Finding:
    judged, missing = [], []
    for limit in limits:
        estimate = reading.change if BOUNDS[limit.name].relative else reading.value
        if estimate is None:
            missing.append(str(limit))
        else:
            judged.append((_verdict(limit, estimate), limit, estimate))
    beyond = [_how_far(limit, estimate) for verdict, limit, estimate in judged if verdict == "fail"]
    noisy = noisy and settings.unfit_host != "off"
    if beyond and not noisy:
        return _Finding(verdict="fail" if rule.level == "error" else "warn", level=rule.level, reason="; ".join(beyond))
    if missing:
        reason = f"{' and '.join(missing)} needs a number that was not measured: run `{RULES[rule.name].source}`"
        return _Finding(verdict="missing", level=_least(rule.level, settings.missing), reason=reason)
    if noisy and judged:
        reason = "the host was too noisy to decide: measure again on a quiet one"
        return _Finding(verdict="inconclusive", level=_least(rule.level, settings.unfit_host), reason=reason)
    open_ = [_what_would_decide(limit, estimate) for verdict, limit, estimate in judged if verdict == "inconclusive"]
    if open_:
        level = _least(rule.level, settings.inconclusive)
        return _Finding(verdict="inconclusive", level=level, reason="; ".join(open_))
    return _Finding(verdict="pass", level=rule.level)


def _verdict(limit: Limit, estimate: Estimate) -> Verdict:
    if BOUNDS[limit.name].upper:
        within, beyond = estimate.high <= limit.value, estimate.low > limit.value
    else:
        within, beyond = estimate.low >= limit.value, estimate.high < limit.value
    return "pass" if within else "fail" if beyond else "inconclusive"


def _how_far(limit: Limit, estimate: Estimate) -> str:
    side = "above" if BOUNDS[limit.name].upper else "below"
    return f"{'whole interval ' if estimate.interval else ''}{side} {limit}"


def _what_would_decide(limit: Limit, estimate: Estimate) -> str:
    """Say what the interval can tell apart, and about how many samples or pairs would decide."""
    if not estimate.count:
        return f"{limit} lies inside the interval"
    below = estimate.value <= limit.value
    half_width = estimate.high - estimate.value if below else estimate.value - estimate.low
    resolution = f"{half_width:.2f} pp" if limit.name == "max_drop" else format_ratio(half_width)
    # The upper end of a rate that was never seen shrinks with the count itself, other intervals with its square root.
    power = 2 if estimate.differed else 1
    count = needed(estimate.count, half_width, abs(limit.value - estimate.value), power=power)
    advice = f"about {count} would decide {limit}" if count else f"the measured value is too near to {limit} to decide"
    return f"{estimate.count} {estimate.counted} resolve {resolution}; {advice}"


def _loosened(rule: Rule, waiver: Waiver) -> tuple[Limit, ...]:
    """Return what must hold under a waiver: the rule with the waiver's bounds in it, or nothing if it names none."""
    looser = {limit.name: limit for limit in waiver.limits}
    return tuple(looser.get(limit.name, limit) for limit in rule.limits) if looser else ()


def _waive(finding: _Finding, waiver: Waiver, today: date, loosened: _Finding) -> _Finding:
    if today > waiver.expires:
        reason = f"{finding.reason} (the waiver of {waiver.owner} expired on {waiver.expires})"
        verdict: Verdict = finding.verdict if finding.verdict == "inconclusive" else "waiver-expired"
        return _Finding(verdict=verdict, level=finding.level, reason=reason)
    if loosened.verdict == "pass":
        bounds = f", {', '.join(map(str, waiver.limits))}" if waiver.limits else ""
        reason = f"until {waiver.expires} ({waiver.owner}{bounds}): {waiver.reason}"
        return _Finding(verdict="waived", level=finding.level, reason=reason)
    if loosened.verdict == "inconclusive":
        return loosened
    return _Finding(
        verdict=loosened.verdict, level=loosened.level, reason=f"{loosened.reason}, beyond the waiver of {waiver.owner}"
    )


def _least(*levels: Level) -> Level:
    return min(levels, key=LEVELS.index)
