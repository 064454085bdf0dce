"""The report in words: what the terminal, Markdown and HTML forms all show, formatted once.

Nothing here decides or computes anything beyond a ratio; what was not measured is said so, never left blank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from onnxpress import cpu
from onnxpress.gate.check import Check, Outcome, Verdict, outcome
from onnxpress.report.headline import change_within, first_price
from onnxpress.report.loss import State, loss
from onnxpress.report.numbers import NOT_MEASURED, drop_within, points, score, times
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


MARKS: dict[State, str] = {
    "kept": "✓ kept",
    "open": "? open",
    "lost": "✗ lost",
    "ruined": "✗ ruined",
    "unknown": NOT_MEASURED,
}
"""What a variant lost by the default bounds, where no policy judges it; ruin is shown in any case."""
OUTCOMES: dict[State, Outcome | None] = {
    "kept": "pass",
    "open": "inconclusive",
    "lost": "fail",
    "ruined": "fail",
    "unknown": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the variants table, or its heading: the number, and what it is relative to the baseline."""

    text: str
    detail: str = ""
    interval: str = ""
    """Or what else stands below the detail."""

    @property
    def beside(self) -> str:
        """Detail and interval in one line."""
        return " ".join(filter(None, (self.detail, self.interval)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant."""

    variant: str
    steps: str
    outcome: Outcome | None
    """What the gate means for it, or without one the default bounds; None for the baseline, and what is unknown."""
    cells: tuple[Cell, ...]
    """Named by `headings`."""


def title(report: Report) -> str:
    """Return the name of what was compressed."""
    return str(report.recipe.get("name") or report.recipe.get("path") or "model")


def headings(report: Report) -> tuple[Cell, ...]:
    """Return the headings of the variants table."""
    return (
        Cell(text="size", detail="ratio"),
        Cell(text="latency p50", detail="ratio", interval="[95%]"),
        Cell(text=metric_name(report), detail="drop", interval="[95%]"),
        Cell(text="agrees", detail="SQNR"),
        Cell(text="$ / 1M", detail="ratio"),
        Cell(text="int8", detail="/ float"),
        Cell(text="verdict", detail="checks"),
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
            outcome=judged(report, variant["id"]),
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
    ratio, interval = _split(change_within(change)) if change else ("", "")
    return Cell(text=format_ms(speed["latency_ms"]["p50"]), detail=ratio, interval=interval)


def accuracy(report: Report, variant: str) -> Cell:
    """Return the accuracy, and the paired drop."""
    metric, quality, change = report.metric, report.quality(variant), report.quality_change(variant)
    if metric is None or quality is None or quality["value"] is None:
        return Cell(text=NOT_MEASURED)
    drop, interval = _split(drop_within(change["drop"], change["ci95"], metric["unit"])) if change else ("", "")
    return Cell(text=score(quality["value"], metric["unit"]), detail=drop, interval=interval)


def _split(number: str) -> tuple[str, str]:
    """``0.28 [−0.60, 1.20] pp`` → ``0.28 pp``, ``[−0.60, 1.20]``."""
    before, bracket, rest = number.partition(" [")
    interval, _, unit = rest.partition("]")
    return f"{before}{unit}", f"[{interval}]" if bracket else ""


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


def kernels(variant: Document) -> Cell:
    """Return how many nodes the loaded session runs as int8 and as float kernels."""
    counts = kernel_counts(variant)
    return Cell(text=f"{counts['int8']} / {counts['float']}") if counts else Cell(text=NOT_MEASURED)


def kernel_counts(variant: Document) -> Document:
    """Return what is known of the kernels; empty when the model was not loaded."""
    return variant.get("kernels") or {}


def judged(report: Report, variant: str) -> Outcome | None:
    """Return what a variant's checks mean for it, or without any what the default bounds do; ruin fails anyway."""
    if variant == report.baseline:
        return None
    checks, state = report.checks_of(variant), loss(report, variant).state
    return outcome(checks) if checks and state != "ruined" else OUTCOMES[state]


def gate(report: Report, variant: str) -> Cell:
    """Return what the gate says of one variant."""
    if variant == report.baseline:
        return Cell(text="baseline")
    checks, state = report.checks_of(variant), loss(report, variant).state
    if not checks:
        return Cell(text=MARKS[state], detail="no policy")
    passed = f"{sum(check.verdict == 'pass' for check in checks)} of {len(checks)}"
    waived = sum(check.verdict == "waived" for check in checks)
    text = MARKS[state] if state == "ruined" else VERDICT_MARKS[outcome(checks)]
    return Cell(text=text, detail=passed, interval=f"{waived} waived" if waived else "")


def tally(checks: tuple[Check, ...]) -> str:
    """``2 fail, 1 waived, 11 pass``."""
    counts = Counter(check.verdict for check in checks)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICT_MARKS if counts[verdict])


def urgency(check: Check) -> int:
    """Return 0 for what stops the release, then what is worth reading, then what passed."""
    return 0 if check.outcome == "fail" else 1 if check.outcome != "pass" else 3 if check.verdict == "pass" else 2


def found(check: Check) -> str:
    """Return what a check measured, with its reason and what to do or, where there is none, its limit."""
    if check.reason:
        return why(check) if check.verdict == "skipped" else f"{check.measured or NOT_MEASURED}: {why(check)}"
    return f"{check.measured} ({'; '.join(filter(None, (check.limit, check.note)))})"


def why(check: Check) -> str:
    """Return why a check does not simply pass, and what to do about it."""
    return ". ".join(filter(None, (check.reason, check.advice)))


def verdict(report: Report) -> str:
    """Return what the gate said."""
    if report.verdict is None:
        return "No gate was set."
    left = unjudged(report)
    so_far = " what it judged" if left and report.verdict == "pass" else ""
    return f"The gate {OUTCOME_WORDS[report.verdict]}{so_far}: {tally(report.checks)}.{left}"


def unjudged(report: Report) -> str:
    """Name the rules that may stop a release and were skipped, with the reason; empty when there is none."""
    skipped = [check for check in report.checks if check.verdict == "skipped" and check.level == "error"]
    if not skipped:
        return ""
    rules, reasons = (
        ", ".join(dict.fromkeys(texts)) for texts in zip(*((c.rule, c.reason) for c in skipped), strict=True)
    )
    return f" Not judged, though they may stop a release: {rules} ({reasons})."


def stops(report: Report) -> Iterator[tuple[Verdict, str]]:
    """Yield what stops the release, one sentence a rule: by how much, and what to do; then what is waived."""
    by_rule: dict[str, list[Check]] = {}
    for check in sorted(report.checks, key=lambda check: check.outcome != "fail"):
        if check.outcome != "pass":
            by_rule.setdefault(check.rule, []).append(check)
    for rule, checks in by_rule.items():
        first, *others = checks
        more = f", and {len(others)} more variant{'s' if others[1:] else ''}" if others else ""
        advice = f" {first.advice}." if first.advice else ""
        yield first.verdict, f"{rule} of {first.variant}{more}: {evidence(first)}.{advice}"
    for check in report.checks:
        if check.verdict == "waived":
            yield check.verdict, f"{check.rule} of {check.variant}: {evidence(check)}"


def evidence(check: Check) -> str:
    """Return what was measured and why it does not simply pass."""
    return ": ".join(filter(None, (check.measured, check.reason)))


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
    parts = _limits_of_evaluation(report), limits_of_bench(report), limits_of_cost(report)
    yield from dict.fromkeys(chain.from_iterable(parts))  # what both measurements warn of is said once


def _limits_of_evaluation(report: Report) -> Iterator[str]:
    if report.evaluation is None:
        yield "Accuracy and fidelity were not measured."
        return
    yield from report.evaluation.get("warnings", ())
    samples = report.evaluation["data"]["samples"]
    shared = report.evaluation["data"].get("shared_with_calibration")
    if shared:
        yield f"{shared} of the {samples} evaluation samples were calibrated with: models look better than they are."
    if report.metric is None:
        yield f"Without a metric, fidelity to {report.baseline} on {samples} samples stands in for accuracy."
        return
    yield from _resolution(report, samples)


def _resolution(report: Report, samples: int) -> Iterator[str]:
    """Yield which drop the samples can show, for the variants that are near enough to the baseline to ask."""
    ruined = report.headline.ruined
    reach = {
        change["candidate"]: change["drop"] - change["ci95"][0]
        for change in (report.evaluation or {})["comparisons"]
        if change["ci95"] is not None and change["candidate"] not in ruined
    }
    if not reach:
        yield f"Accuracy rests on {samples} samples, without an interval: a small drop cannot be told from chance."
        return
    unit = (report.metric or {})["unit"]
    least, most = min(reach, key=reach.__getitem__), max(reach, key=reach.__getitem__)
    shown = f"{points(reach[least], unit)} ({least})"
    if points(reach[most], unit) != points(reach[least], unit):
        shown += f" to {points(reach[most], unit)} ({most})"
    yield f"Accuracy rests on {samples} samples: a drop below {shown} cannot be told from none."


def limits_of_bench(report: Report) -> Iterator[str]:
    """Yield what the timings hold for, and what disturbed them."""
    if report.bench is None:
        yield "Latency, memory and cold start were not measured."
        return
    host, runtime = report.bench["host"], report.bench["runtime"]
    kind = f" ({host['kind']})" if host.get("kind") else ""
    yield (
        f"Timings hold for {host['cpu']}{kind} with onnxruntime {runtime['onnxruntime']}, provider "
        f"{runtime['provider']}, {runtime['threads']} thread(s); on another host measure again."
    )
    if not report.bench["fit_for_gating"]:
        yield "These timings are not fit for a decision, for the reasons below."
    yield from (warning["message"] for warning in report.bench["warnings"])


def made_for_others(report: Report) -> list[str]:
    """Return what is to be said of models that were quantized for another kind of CPU than they were measured on."""
    timed = report.bench["warnings"] if report.bench is not None else ()
    evaluated = report.evaluation.get("warnings", ()) if report.evaluation is not None else ()
    return list(dict.fromkeys([*evaluated, *(each["message"] for each in timed if each["code"] == cpu.DOUBT)]))


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
    ratios = f"Ratios are to {report.baseline}: below 1× is smaller, faster, cheaper"
    return "; ".join(filter(None, (ratios, price_caption(report)))) + "."
