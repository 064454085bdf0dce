"""The report in words: what the terminal, Markdown and HTML forms all show, formatted once.

Nothing here decides or computes anything beyond a ratio; what was not measured is said so, never left blank.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from onnxpress.gate.check import Check, Outcome, Verdict, outcome
from onnxpress.report.numbers import NOT_MEASURED, drop_within, ratio_interval, score, times, times_within
from onnxpress.report.report import Document, Report
from onnxpress.units import format_bytes, format_ms, format_usd

OUTCOME_WORDS: dict[Outcome, str] = {"pass": "passes", "fail": "fails", "inconclusive": "cannot be decided"}
VERDICT_MARKS: dict[Verdict, str] = {
    "fail": "✗ fail",
    "waiver-expired": "✗ waiver expired",
    "missing": "? missing",
    "inconclusive": "? inconclusive",
    "warn": "! warn",
    "waived": "~ waived",
    "skipped": "- skipped",
    "pass": "✓ pass",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the variants table, or its heading: the number, and what it is relative to the baseline."""

    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant."""

    variant: str
    steps: str
    outcome: Outcome | None
    """What the gate means for it; None for the baseline, and without a gate."""
    cells: tuple[Cell, ...]
    """Named by `headings`."""


def printable(text: str) -> str:
    """Take out control characters, which steer a terminal and break XML: names in a model are somebody else's text."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def title(report: Report) -> str:
    """Return the name of what was compressed."""
    return str(report.recipe.get("name") or report.recipe.get("path") or "model")


def headings(report: Report) -> tuple[Cell, ...]:
    """Return the headings of the variants table."""
    drop = "drop, pp [95%]" if report.metric and report.metric["unit"] else "drop [95%]"
    return (
        Cell(text="size", detail="ratio"),
        Cell(text="latency p50", detail="ratio [95%]"),
        Cell(text=metric_name(report), detail=drop),
        Cell(text="agrees", detail="SQNR"),
        Cell(text="$ / 1M", detail="ratio"),
        Cell(text="int8", detail="float"),
        Cell(text="gate", detail="checks"),
    )


def metric_name(report: Report) -> str:
    """Return the name of the accuracy metric."""
    return str(report.metric["name"]) if report.metric else "accuracy"


def rows(report: Report) -> tuple[Row, ...]:
    """Return the variants table, the baseline first."""
    return tuple(
        Row(
            variant=variant["id"],
            steps=steps(variant),
            outcome=outcome(checks) if (checks := report.checks_of(variant["id"])) else None,
            cells=(
                size(report, variant),
                latency(report, variant["id"]),
                accuracy(report, variant["id"]),
                fidelity(report, variant["id"]),
                price(report, variant["id"]),
                kernels(variant),
                gate(report, variant["id"]),
            ),
        )
        for variant in report.variants
    )


def steps(variant: Document) -> str:
    """``prune l2 → quantize static``; the baseline has none."""
    words = ((step["step"], step["options"].get("mode") or step["facts"].get("method")) for step in variant["steps"])
    return " → ".join(" ".join(filter(None, pair)) for pair in words) or "none: the baseline"


def size(report: Report, variant: Document) -> Cell:
    """Return the bytes on disk, and their ratio to the baseline's."""
    baseline = report.variant(report.baseline)["size_bytes"]
    ratio = "" if variant["id"] == report.baseline else times(variant["size_bytes"] / baseline)
    return Cell(text=format_bytes(variant["size_bytes"]), detail=ratio)


def latency(report: Report, variant: str) -> Cell:
    """Return the median latency, and the paired ratio to the baseline's."""
    speed, change = report.speed(variant), report.speed_change(variant)
    if speed is None or speed["latency_ms"] is None:  # as when only throughput was asked for
        return Cell(text=NOT_MEASURED)
    return Cell(text=format_ms(speed["latency_ms"]["p50"]), detail=change_within(change) if change else "")


def change_within(change: Document) -> str:
    """Write a comparison of two timings as a ratio with its interval."""
    return times_within(1 + change["change_pct"] / 100, ratio_interval(change["ci95_pct"]))


def accuracy(report: Report, variant: str) -> Cell:
    """Return the accuracy, and the paired drop."""
    metric, quality, change = report.metric, report.quality(variant), report.quality_change(variant)
    if metric is None or quality is None or quality["value"] is None:
        return Cell(text=NOT_MEASURED)
    drop = drop_within(change["drop"], change["ci95"], metric["unit"]).removesuffix(" pp") if change else ""
    return Cell(text=score(quality["value"], metric["unit"]), detail=drop)


def fidelity(report: Report, variant: str) -> Cell:
    """Return how far the outputs agree with the baseline's."""
    quality = report.quality(variant)
    if quality is None:
        return Cell(text=NOT_MEASURED)
    agreement, cosine = quality["agreement_pct"], quality["cosine"]
    noise = "" if variant == report.baseline else noise_level(quality)
    if agreement is None:
        return Cell(text=NOT_MEASURED if cosine is None else f"cosine {cosine:.4f}", detail=noise)
    return Cell(text=f"{agreement:.1f}%", detail=noise)


def noise_level(quality: Document) -> str:
    """Return the signal-to-quantization-noise ratio; outputs that are equal have no noise."""
    sqnr = quality["sqnr_db"]
    return f"{sqnr:.1f} dB" if sqnr is not None else NOT_MEASURED if quality["cosine"] is None else "no noise"


def price(report: Report, variant: str) -> Cell:
    """Return the dollars per million inferences on the first instance type of the recipe, and the ratio."""
    own, base = first_price(report, variant), first_price(report, report.baseline)
    if own is None:
        return Cell(text=NOT_MEASURED)
    ratio = times(own / base) if base and variant != report.baseline else ""
    return Cell(text=format_usd(own).removesuffix(" USD"), detail=ratio)


def first_price(report: Report, variant: str) -> float | None:
    """Return the dollars per million inferences on the first instance type of the recipe; None when not computed."""
    prices = report.prices(variant)
    found = prices[0]["usd_per_million"] if prices else None
    return None if found is None else found["value"]


def kernels(variant: Document) -> Cell:
    """Return how many nodes the loaded session runs as int8 and as float kernels."""
    counts = kernel_counts(variant)
    return Cell(text=str(counts["int8"]), detail=str(counts["float"])) if counts else Cell(text=NOT_MEASURED)


def kernel_counts(variant: Document) -> Document:
    """Return what is known of the kernels; empty when the model was not loaded."""
    return variant.get("kernels") or {}


def gate(report: Report, variant: str) -> Cell:
    """Return what the gate says of one variant."""
    checks = report.checks_of(variant)
    if variant == report.baseline:
        return Cell(text="baseline")
    if not checks:
        return Cell(text="no policy")
    passed = sum(check.verdict == "pass" for check in checks)
    return Cell(text=VERDICT_MARKS[outcome(checks)], detail=f"{passed} of {len(checks)}")


def tally(checks: tuple[Check, ...]) -> str:
    """``2 fail, 1 waived, 11 pass``."""
    counts = Counter(check.verdict for check in checks)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICT_MARKS if counts[verdict])


def found(check: Check) -> str:
    """Return what a check measured, and its reason or, where there is none, its limit."""
    if check.verdict == "skipped":
        return check.reason
    if check.reason:
        return f"{check.measured or NOT_MEASURED}: {check.reason}"
    return f"{check.measured} ({'; '.join(filter(None, (check.limit, check.note)))})"


def best(report: Report) -> str | None:
    """Return the variant to release: of those the gate lets pass, the fastest, or the smallest without latencies."""

    def weight(variant: str) -> tuple[float, int]:
        change = report.speed_change(variant)
        return change["change_pct"] if change else math.inf, report.variant(variant)["size_bytes"]

    allowed = [variant for variant in report.candidates if outcome(report.checks_of(variant)) == "pass"]
    return min(allowed, key=weight, default=None)


def verdict(report: Report) -> str:
    """Return what the gate said."""
    if report.verdict is None:
        return "No gate was set."
    return f"The gate {OUTCOME_WORDS[report.verdict]}: {tally(report.checks)}."


def choice(report: Report) -> str:
    """Return the variant to release, and what it wins and loses, in one sentence."""
    chosen = best(report)
    if chosen is None:
        return "No variant passes it." if report.candidates else "There is only the baseline."
    facts = [f"{size(report, report.variant(chosen)).detail} the size"]
    change, drop = report.speed_change(chosen), report.quality_change(chosen)
    if change is not None:
        facts.append(f"{change_within(change)} the latency")
    if drop is not None and report.metric is not None:
        facts.append(f"{report.metric['name']} drop {drop_within(drop['drop'], drop['ci95'], report.metric['unit'])}")
    before, after = first_price(report, report.baseline), first_price(report, chosen)
    if before is not None and after is not None:
        facts.append(f"{format_usd(after)} instead of {format_usd(before)} per million inferences")
    among = "Smallest variant" if change is None else "Fastest variant"
    which = f"{among} that passes" if report.checks else among
    return f"{which}: {chosen}, {', '.join(facts)}."


def limits(report: Report) -> Iterator[str]:
    """Yield what these measurements cannot say, and what they hold for."""
    if report.export is None or report.export["max_abs_error"] is None:
        yield "The exported model was not compared with its source."
    else:
        yield (
            f"The exported model was compared with {report.export['against']} on "
            f"{len(report.export['shapes_checked'])} input shapes; the largest error was "
            f"{report.export['max_abs_error']:.2g} absolute, {report.export['max_rel_error']:.2g} relative."
        )
    yield from _limits_of_evaluation(report)
    yield from limits_of_bench(report)
    yield from limits_of_cost(report)


def _limits_of_evaluation(report: Report) -> Iterator[str]:
    if report.evaluation is None:
        yield "Accuracy and fidelity were not measured."
        return
    samples = report.evaluation["data"]["samples"]
    if report.metric is None:
        yield f"Without a metric, fidelity to {report.baseline} on {samples} samples stands in for accuracy."
        return
    widths = [
        change["ci95"][1] - change["drop"] for change in report.evaluation["comparisons"] if change["ci95"] is not None
    ]
    if widths:
        resolution = drop_within(max(widths), None, report.metric["unit"])
        yield f"Accuracy rests on {samples} samples: a drop below {resolution} cannot be told from none."
    else:
        yield "The accuracy has no interval: a small drop cannot be told from chance."


def limits_of_bench(report: Report) -> Iterator[str]:
    """Yield what the timings hold for, and what disturbed them."""
    if report.bench is None:
        yield "Latency, memory and cold start were not measured."
        return
    host, runtime = report.bench["host"], report.bench["runtime"]
    yield (
        f"Timings hold for {host['cpu']} with onnxruntime {runtime['onnxruntime']}, provider {runtime['provider']}, "
        f"{runtime['threads']} thread(s); on another host measure again."
    )
    if not report.bench["fit_for_gating"]:
        yield "These timings are not fit for a decision, for the reasons below."
    yield from (warning["message"] for warning in report.bench["warnings"])


def limits_of_cost(report: Report) -> Iterator[str]:
    """Yield what the dollars assume."""
    if report.cost is None:
        yield "Cost was not computed."
        return
    yield from report.cost["notes"]
    yield from (warning["message"] for warning in report.cost["warnings"])


def price_caption(report: Report) -> str:
    """Say what the dollars of the variants table are for."""
    prices = report.prices(report.baseline)
    if report.cost is None or not prices:
        return ""
    return f"$ on {prices[0]['instance']} at {report.cost['utilisation']:.0%} utilisation"


def caption(report: Report) -> str:
    """Say how the variants table is read."""
    parts = [f"Ratios are to {report.baseline}: below 1× is smaller, faster, cheaper", "a positive drop is a loss"]
    return "; ".join(filter(None, (*parts, price_caption(report)))) + "."
