"""The gate: judge every variant of a report by every rule of a policy.

Every bound is judged on a 95% interval (`_verdict`). All of the interval within the bound passes; all of it beyond
fails; a bound inside the interval is inconclusive, and the check says about how many more samples or pairs would
decide. For accuracy this is a paired non-inferiority test, for latency a test on paired blocks. A number that is the
same however often it is measured (a size, a node count) is an interval without width; one that was measured too little
for an interval decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from onnxpress.errors import EvidenceError, UsageError, did_you_mean
from onnxpress.gate.check import LEVELS, Check, Level, Verdict
from onnxpress.gate.estimates import PERCENT, Estimate, Reading, Subject
from onnxpress.gate.policy import Limit, Policy, Rule, Target, Waiver
from onnxpress.gate.rules import BOUNDS, RULES, SOURCES, Kind, Need
from onnxpress.report.numbers import needed, times
from onnxpress.report.report import Report
from onnxpress.units import format_ratio

REWRITE = "write it again with `compress baseline update`"
SOON_DAYS = 14
"""A waiver that ends within these is said to end soon."""


def gate(
    report: Report,
    policy: Policy,
    today: date,
    *,
    variants: Collection[str] = (),
    skipped: Mapping[Need, str] | None = None,
    max_warnings: int | None = None,
) -> tuple[Check, ...]:
    """Judge variants by every rule that is not off, deterministic rules first.

    Args:
        report: Finished measurements.
        policy: The rules.
        today: The day on which a waiver must still hold.
        variants: The variants to judge; empty for all but the baseline.
        skipped: Why rules with some needs are not judged.
        max_warnings: More warnings than this are a failure of their own.

    Raises:
        EvidenceError: the report holds nothing but the baseline, or no rule holds for what it holds.
        UsageError: there is no such variant, or a waiver is longer than the policy allows.

    """
    chosen = _chosen(report, variants)
    for waiver in policy.waivers:
        days = (waiver.expires - today).days
        if policy.settings.max_waiver_days and days > policy.settings.max_waiver_days:
            raise UsageError(
                f"policy {policy.path}, line {waiver.line}: waiver of {waiver.rule!r}: runs for {days} days, "
                f"max_waiver_days is {policy.settings.max_waiver_days}. Let it expire earlier, and renew "
                "it when it still is needed."
            )
    targets = {variant: target(report, variant) for variant in chosen}
    rules = {variant: policy.rules_for(targets[variant]) for variant in chosen}
    checks = []
    for name in RULES:
        for variant in chosen:
            if name not in rules[variant]:
                continue
            rule, why = rules[variant][name], (skipped or {}).get(RULES[name].needs)
            if why is not None:
                checks.append(_skipped(rule, variant, why))
            else:
                checks.append(_check(report, policy, rule, targets[variant], today))
    if not checks:
        raise EvidenceError(f"policy {policy.path}: none of its rules holds for {', '.join(chosen)}. Look at `when`.")
    warnings = sum(check.is_warning for check in checks)
    if max_warnings is not None and warnings > max_warnings:
        checks.append(_too_many(warnings, max_warnings))
    return tuple(checks)


def _too_many(warnings: int, most: int) -> Check:
    return Check(
        rule="max-warnings",
        variant="all variants",
        level="error",
        verdict="fail",
        measured=f"{warnings} warnings",
        limit=f"--max-warnings {most}",
        reason=f"{warnings - most} above --max-warnings {most}",
    )


def target(report: Report, variant: str) -> Target:
    """Return what conditions can ask about one variant of a report."""
    bench = report.bench or {"runtime": {"provider": ""}, "host": {}}
    return Target(
        model=str(report.recipe.get("name") or ""),
        variant=variant,
        ep=bench["runtime"]["provider"],
        arch=bench["host"].get("arch") or "",
        metric=report.metric["name"] if report.metric else "",
    )


def _chosen(report: Report, variants: Collection[str]) -> tuple[str, ...]:
    if not report.candidates:
        raise EvidenceError(
            f"gate: the report holds only the baseline {report.baseline!r}, there is nothing to judge. Add a variant."
        )
    for name in variants:
        if name not in report.candidates:
            raise UsageError(f"variant {name!r}: is not in the report.{did_you_mean(name, report.candidates)}")
    return tuple(name for name in report.candidates if name in variants) if variants else report.candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    verdict: Verdict
    level: Level
    reason: str = ""
    advice: str = ""


def _skipped(rule: Rule, variant: str, why: str) -> Check:
    return Check(
        rule=rule.name,
        variant=variant,
        level=rule.level,
        verdict="skipped",
        measured="",
        limit=_limits(rule),
        reason=why,
        line=rule.line,
    )


def _limits(rule: Rule) -> str:
    return ", ".join(str(limit) for limit in rule.limits)


def _check(report: Report, policy: Policy, rule: Rule, about: Target, today: date) -> Check:
    kind = RULES[rule.name]
    subject = Subject(report=report, variant=about.variant, today=today, instance=rule.instance, patterns=rule.patterns)
    reading = kind.read(subject, kind.unit)
    judge = _Judge(
        kind=kind,
        rule=rule,
        reading=reading,
        policy=policy,
        last=policy.stored.value(about.variant, rule.name) if policy.stored else None,
        other_data=kind.needs == "evaluation" and policy.stored is not None and not policy.stored.same_data(report),
        report=report,
        unfit=_unfit(report, kind),
    )
    finding = judge.judge(rule.limits)
    waiver = next((one for one in policy.waivers if one.rule == rule.name and one.when.holds(about)), None)
    if waiver is not None and finding.verdict in ("fail", "warn", "inconclusive"):
        finding = judge.waive(finding, waiver, today)
    return Check(
        rule=rule.name,
        variant=about.variant,
        level=finding.level,
        verdict=finding.verdict,
        measured=reading.text,
        limit=_limits(rule),
        reason=finding.reason,
        advice=finding.advice,
        note=_resolution(kind, reading),
        line=rule.line,
    )


def _unfit(report: Report, kind: Kind) -> str:
    """Say why the timings decide nothing; empty where they do, or where the rule rests on none."""
    if not kind.timed or report.bench is None or report.bench["fit_for_gating"]:
        return ""
    from onnxpress.bench import UNFIT

    reasons = [warning["message"] for warning in report.bench["warnings"] if warning["code"] in UNFIT]
    return "the timings are not fit to decide on" + (f": {' '.join(reasons)}" if reasons else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """One rule, one variant, and what was measured of it."""

    kind: Kind
    rule: Rule
    reading: Reading
    policy: Policy
    last: float | None
    """The stored baseline's value."""
    other_data: bool
    """Whether that was measured on other samples."""
    report: Report
    unfit: str
    """Why the timings decide nothing; empty where they do."""

    def judge(self, limits: Sequence[Limit]) -> _Finding:
        rule, settings = self.rule, self.policy.settings
        judged, missing = [], []
        for limit in limits:
            estimate = self.estimate(limit)
            if estimate is None:
                missing.append(limit)
            else:
                judged.append((_verdict(limit, estimate), limit, estimate))
        beyond = [
            self.reading.why or self.how_far(limit, estimate)
            for verdict, limit, estimate in judged
            if verdict == "fail"
        ]
        unfit = self.unfit if settings.unfit_host != "off" else ""
        if beyond and not unfit:
            verdict: Verdict = "fail" if rule.level == "error" else "warn"
            return _Finding(verdict=verdict, level=rule.level, reason="; ".join(beyond), advice=self.kind.mend)
        if missing:
            return _Finding(
                verdict="missing",
                level=_least(rule.level, settings.missing),
                reason=f"{' and '.join(map(str, missing))}: the number for it was not measured",
                advice=self.how_to_measure(missing),
            )
        if unfit and judged:
            return _Finding(verdict="inconclusive", level=_least(rule.level, settings.unfit_host), reason=unfit)
        open_ = [self.what_would_decide(limit, one) for verdict, limit, one in judged if verdict == "inconclusive"]
        open_ = open_ or [text for _, _, one in judged if (text := self.too_few(one))]
        if open_:
            level = _least(rule.level, rule.inconclusive or settings.inconclusive)
            return _Finding(verdict="inconclusive", level=level, reason="; ".join(open_))
        return _Finding(verdict="pass", level=rule.level)

    def estimate(self, limit: Limit) -> Estimate | None:
        """Return the number that a bound is about; None when it is not known."""
        bound = BOUNDS.get(limit.name)
        if bound is None or bound.against == "nothing":
            return self.reading.value
        if bound.against == "baseline":
            return self.reading.change
        if self.reading.value is None or self.last is None:
            return None
        now = self.reading.value.value
        if self.other_data:
            return Estimate.open(now, f"the stored baseline holds numbers of other data: {REWRITE}")
        if limit.name == "max_fall":
            return Estimate.exact(self.last - now)
        return Estimate.exact(now / self.last) if self.last > 0 else None

    def how_far(self, limit: Limit, estimate: Estimate) -> str:
        """Say by how much a number is beyond its bound: ``0.45 pp above max_drop 1pp``."""
        gap = abs(estimate.value - limit.value)
        if self.kind.unit is PERCENT:
            far = f"{gap:.2f} pp"
        elif limit.name in BOUNDS and BOUNDS[limit.name].ratio:
            far = format_ratio(gap / limit.value) if limit.value > 0 else times(gap)
        else:
            far = self.kind.unit.show(gap)
        whole = ", with the whole interval" if estimate.interval else ""
        return f"{far} {'above' if _upper(limit) else 'below'} {limit}{whole}"

    def how_to_measure(self, missing: Sequence[Limit]) -> str:
        """Say what would give the numbers that are missing."""
        stored = [limit for limit in missing if limit.name in BOUNDS and BOUNDS[limit.name].against == "stored"]
        if self.reading.value is not None and stored:
            file = self.policy.baseline_metrics
            if file is None:
                return (
                    "Keep those of the last release with `compress baseline write RUN_DIR`, and name the file in the "
                    "policy: `baseline: {metrics: compress-baseline.json}`"
                )
            return f"Keep those of the last release with `compress baseline write RUN_DIR -o {file}`"
        source, from_recipe = self.kind.source, "path" in self.report.recipe
        if source is SOURCES["bench"] and self.report.bench is not None:
            return "The benchmark ran, and this machine does not tell it: measure on one that does"
        if source is SOURCES["evaluation"] and self.report.evaluation is not None:
            return "These outputs do not give it, as boxes are no class scores: bound another number of them"
        if from_recipe and source.recipe:
            return f"Add `{source.recipe}` to the recipe, and run it again"
        if source.options and not from_recipe:
            return f"Measure it with `compress gate MODEL… {source.options}`"
        return "Run the recipe again" if from_recipe else "Measure again: this result does not hold it"

    def too_few(self, estimate: Estimate) -> str:
        """Say that an estimate rests on less than the policy wants; empty when it does not."""
        least = {"samples": self.rule.min_samples, "pairs": self.policy.settings.min_pairs}.get(estimate.counted, 0)
        if estimate.count >= least:
            return ""
        return f"rests on {estimate.count} {estimate.counted}, the policy wants {least}"

    def what_would_decide(self, limit: Limit, estimate: Estimate) -> str:
        """Say what the interval can tell apart, and about how many samples or pairs would decide."""
        if estimate.why:
            return estimate.why
        if not estimate.count:
            ends = f"{self.kind.unit.show(estimate.low)} to {self.kind.unit.show(estimate.high)}"
            inside = f" of {ends}" if BOUNDS[limit.name].against == "nothing" else ""
            return f"{limit} lies inside the interval{inside}"
        below = estimate.value <= limit.value
        half_width = estimate.high - estimate.value if below else estimate.value - estimate.low
        resolution = _points(self.kind, half_width) if limit.name == "max_drop" else format_ratio(half_width)
        # The upper end of a rate that was never seen shrinks with the count itself, others with its square root.
        power = 2 if estimate.differed else 1
        count = needed(estimate.count, half_width, abs(limit.value - estimate.value), power=power)
        advice = (
            f"about {count} would decide {limit}" if count else f"the measured value is too near to {limit} to decide"
        )
        return f"{estimate.count} {estimate.counted} resolve {resolution}; {advice}"

    def waive(self, finding: _Finding, waiver: Waiver, today: date) -> _Finding:
        issue = f", {waiver.issue}" if waiver.issue else ""
        if today > waiver.expires:
            level = _least(finding.level, self.policy.settings.expired_waiver)
            reason = f"{finding.reason} (the waiver of {waiver.owner}{issue} expired on {waiver.expires})"
            verdict = finding.verdict if finding.verdict == "inconclusive" else "waiver-expired"
            return replace(finding, verdict=verdict, level=level, reason=reason)
        looser = {limit.name: limit for limit in waiver.limits}
        loosened = self.judge([looser.get(limit.name, limit) for limit in self.rule.limits] if looser else ())
        if loosened.verdict == "pass":
            bounds = f", {', '.join(map(str, waiver.limits))}" if waiver.limits else ""
            days = (waiver.expires - today).days
            soon = f" (ends in {days} days)" if days <= SOON_DAYS else ""
            reason = f"until {waiver.expires}{soon} ({waiver.owner}{issue}{bounds}): {waiver.reason}"
            return _Finding(verdict="waived", level=finding.level, reason=reason)
        if loosened.verdict == "inconclusive":
            return loosened
        return replace(loosened, reason=f"{loosened.reason}, beyond the waiver of {waiver.owner}")


def _verdict(limit: Limit, estimate: Estimate) -> Verdict:
    if _upper(limit):
        within, beyond = estimate.high <= limit.value, estimate.low > limit.value
    else:
        within, beyond = estimate.low >= limit.value, estimate.high < limit.value
    return "pass" if within else "fail" if beyond else "inconclusive"


def _upper(limit: Limit) -> bool:
    """Tell whether a limit bounds from above; what must hold is a 1 that must not fall."""
    return BOUNDS[limit.name].upper if limit.name in BOUNDS else limit.name == "any"


def _resolution(kind: Kind, reading: Reading) -> str:
    """Say which drop of the accuracy the samples could have shown; empty for other numbers."""
    change = reading.change
    if change is None or change.interval is None or change.counted != "samples":
        return ""
    return f"{change.count} samples resolve {_points(kind, change.high - change.value)}"


def _points(kind: Kind, drop: float) -> str:
    return f"{drop:.2f} pp" if kind.unit is PERCENT else kind.unit.show(drop)


def _least(*levels: Level) -> Level:
    return min(levels, key=LEVELS.index)
