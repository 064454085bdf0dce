"""What to release: computed once, shown alike by every form of the report.

Within the policy, or without one within the bounds of `onnxpress.report.loss`; the fastest, where timings are sound.
Where evidence is missing nothing is recommended, and the sentence says what would give it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxpress.gate.check import outcome
from onnxpress.report.loss import Loss, loss
from onnxpress.report.numbers import NOT_MEASURED, ratio_interval, times, times_within
from onnxpress.units import format_usd

if TYPE_CHECKING:
    from onnxpress.report.report import Document, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The variant to release and why, or what is missing."""

    variant: str | None
    """None where nothing is recommended."""
    text: str
    ruined: tuple[str, ...] = ()
    """Variants that no policy should let pass."""


def headline(report: Report) -> Headline:
    """Choose the variant to release."""
    if not report.candidates:
        return Headline(variant=None, text="There is only the baseline.")
    losses = {name: loss(report, name) for name in report.candidates}
    ruined = tuple(name for name in report.candidates if losses[name].state == "ruined")
    fit = [name for name in report.candidates if name not in ruined and _within(report, name, losses[name])]
    proven = [name for name in fit if not _unproven(report, name)]
    found = (
        _recommended(report, proven or fit, losses) if fit else Headline(variant=None, text=_nothing(report, losses))
    )
    if not ruined:
        return found
    named = "; ".join(f"{name} ({losses[name].text})" for name in ruined)
    return Headline(variant=found.variant, text=f"{found.text} Ruined: {named}.", ruined=ruined)


def _within(report: Report, variant: str, lost: Loss) -> bool:
    """Tell whether a variant keeps the policy; what that does not speak of, and all without one, the default bounds."""
    checks = report.checks_of(variant)
    if not checks:
        return lost.state == "kept"
    spoken = any(check.rule.startswith(("accuracy.", "fidelity.")) and check.verdict != "skipped" for check in checks)
    return outcome(checks) == "pass" and (spoken or lost.state != "lost")


def _unproven(report: Report, variant: str) -> str:
    """Name the rules that a variant keeps only because the policy does not insist on proof."""
    open_ = (check.rule for check in report.checks_of(variant) if check.verdict in ("inconclusive", "missing"))
    return ", ".join(dict.fromkeys(open_))


def _recommended(report: Report, fit: Sequence[str], losses: Mapping[str, Loss]) -> Headline:
    """Recommend the fastest, or the smallest where nothing was timed; nothing on timings that are not sound."""
    best = _best(report, fit)
    within = "that passes" if report.checks else f"within the default bound ({losses[best].bound})"
    facts = gains(report, best)
    if unproven := _unproven(report, best):
        facts += f"; not proven: {unproven}"
    if not any(report.speed_change(name) for name in fit):
        return Headline(variant=best, text=f"Smallest variant {within}: {best}, {facts}. Latency was {NOT_MEASURED}.")
    if not _sound(report):
        return Headline(
            variant=None,
            text="Nothing is recommended: the timings are not fit for a decision, for the reasons among the limits. "
            f"Measure again on a quiet host. The smallest variant {within} is {best}, {facts}.",
        )
    change = report.speed_change(best)
    if change is not None and ratio_interval(change["ci95_pct"])[0] > 1:
        return Headline(
            variant=None, text=f"No variant {within} is faster than {report.baseline}; {best} comes next, {facts}."
        )
    return Headline(variant=best, text=f"Fastest variant {within}: {best}, {facts}.")


def _best(report: Report, names: Sequence[str]) -> str:
    """Return the fastest by sound timings, else the smallest."""

    def weight(variant: str) -> tuple[float, int]:
        change = report.speed_change(variant) if _sound(report) else None
        return change["change_pct"] if change else math.inf, report.variant(variant)["size_bytes"]

    return min(names, key=weight)


def _sound(report: Report) -> bool:
    return report.bench is not None and bool(report.bench["fit_for_gating"])


def _nothing(report: Report, losses: Mapping[str, Loss]) -> str:
    """Say why nothing is recommended, and what would change that."""
    if report.checks:
        open_ = any(
            outcome(report.checks_of(name)) == "inconclusive" for name in losses if losses[name].state != "ruined"
        )
        return "No variant is shown to pass it." if open_ else "No variant passes it."
    undecided = [name for name, lost in losses.items() if lost.state == "open"]
    if undecided:
        best = _best(report, undecided)
        return (
            f"Nothing is recommended: no variant is shown to be within the default bound ({losses[best].bound}). "
            f"{best}: {losses[best].text}; {losses[best].decides}."
        )
    known = [lost for lost in losses.values() if lost.state != "unknown"]
    if not known:
        text = next(iter(losses.values())).text
        return f"Nothing is recommended: {text}. Add `data: {{evaluation: DATA, metric: top1}}` to the recipe."
    bounds = [lost.bound for lost in known if lost.bound]
    within = f"is within the default bound ({bounds[0]})" if bounds else "gives numbers"
    return f"No variant {within}: {report.baseline} stays."


def gains(report: Report, variant: str) -> str:
    """Say what a variant wins and loses."""
    sizes = [report.variant(name)["size_bytes"] for name in (variant, report.baseline)]
    facts = [f"{times(sizes[0] / sizes[1])} the size"]
    change, lost = report.speed_change(variant), loss(report, variant)
    sound = change is not None and _sound(report)
    if change is not None and sound:
        facts.append(f"{change_within(change)} the latency")
    facts.append(lost.text)
    before, after = first_price(report, report.baseline), first_price(report, variant)
    differs = change is not None and (change["ci95_pct"][1] < 0 or change["ci95_pct"][0] > 0)
    if before is not None and after is not None and sound and differs:  # a price follows the speed, and its evidence
        facts.append(f"{format_usd(after)} instead of {format_usd(before)} per million inferences")
    return ", ".join(facts)


def change_within(change: Document) -> str:
    """Write a comparison of two timings as a ratio with its interval."""
    return times_within(1 + change["change_pct"] / 100, ratio_interval(change["ci95_pct"]))


def first_price(report: Report, variant: str) -> float | None:
    """Return the dollars per million inferences on the first instance type of the recipe; None when not computed."""
    prices = report.prices(variant)
    found = prices[0]["usd_per_million"] if prices else None
    return None if found is None else found["value"]
