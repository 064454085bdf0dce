"""The tables of a report, as text: every form lays the same cells out in its own way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxpress.report import view
from onnxpress.report.numbers import NOT_MEASURED, drop_within
from onnxpress.report.report import Document, Report
from onnxpress.units import digits, format_bytes, format_change_pct, format_count, format_ms, format_usd

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    """How many columns, from the left, hold words; the others hold numbers."""


def sizes(report: Report) -> Table:
    """Return what each model file holds."""
    free = next((axes for variant in report.variants if (axes := variant.get("free_axes"))), None)
    of = "MACs are of one sample" + (f" with {free} (model.shape in the recipe)." if free else ".")
    return Table(
        caption=f"Model files. Ratio and counts are exact. {of}",
        headings=("variant", "steps", "size", "ratio", "parameters", "MACs", "opset"),
        words=2,
        rows=tuple(
            (
                variant["id"],
                view.steps(variant),
                format_bytes(variant["size_bytes"]),
                view.size(report, variant).detail,
                _shown(variant.get("parameters"), _thousands),
                _shown(variant.get("macs"), _thousands),
                _shown(variant.get("opset"), str),
            )
            for variant in report.variants
        ),
    )


def timings(report: Report) -> Table:
    """Return latency, throughput, memory and cold start."""
    return Table(
        caption="Latency of one inference; the ratio is measured in paired blocks, with its 95% interval. "
        "Peak memory and cold start (import, session, first run) are of a fresh process.",
        headings=("variant", "p50", "ratio [95%]", "p90", "p99", "per second", "peak memory", "cold start"),
        rows=tuple(_timing(report, variant["id"]) for variant in report.variants),
    )


def _timing(report: Report, variant: str) -> tuple[str, ...]:
    speed, latency = report.speed(variant), view.latency(report, variant)
    if speed is None:
        return (variant, *[NOT_MEASURED] * 7)
    latency_ms, cold_start_ms = speed["latency_ms"] or {}, speed["cold_start_ms"].values()
    return (
        variant,
        latency.text,
        latency.beside,
        *(_shown(latency_ms.get(tail), format_ms, absent="too few runs") for tail in ("p90", "p99")),
        _shown(speed["throughput_per_s"]["value"], rate),
        _shown(speed["memory"]["vm_hwm_bytes"], format_bytes),
        _shown(None if None in cold_start_ms else sum(cold_start_ms), format_ms),
    )


def qualities(report: Report) -> Table:
    """Return accuracy and fidelity."""
    data = report.evaluation["data"] if report.evaluation else None
    on = f" on {data['samples']} samples of {data['origin']}" if data else ""
    return Table(
        caption=f"Accuracy{on}, with the paired 95% interval of the drop; lost and won are the samples that only the "
        "baseline, or only the variant, gets right. Agreement, cosine and SQNR compare outputs with the baseline's.",
        headings=("variant", view.metric_name(report), "drop [95%]", "lost / won", "agrees", "cosine", "SQNR"),
        rows=tuple(_quality(report, variant["id"]) for variant in report.variants),
    )


def _quality(report: Report, variant: str) -> tuple[str, ...]:
    quality, change, metric = report.quality(variant), report.quality_change(variant), report.metric
    if quality is None:
        return (variant, *[NOT_MEASURED] * 6)
    paired = change is not None and change["lost"] is not None
    return (
        variant,
        view.accuracy(report, variant).text,
        drop_within(change["drop"], change["ci95"], metric["unit"]) if change and metric else "",
        f"{change['lost']} / {change['won']}" if change and paired else "",
        _shown(quality["agreement_pct"], lambda percent: f"{percent:.2f}%"),
        _shown(quality["cosine"], lambda cosine: f"{cosine:.5f}"),
        "" if variant == report.baseline else view.noise_level(quality),
    )


def costs(report: Report) -> Table:
    """Return dollars by instance type."""
    cost = report.cost
    load = f" at {cost['utilisation']:.0%} utilisation" if cost else ""
    if cost and cost["inferences_per_month"] is not None:
        load += f", and for {format_count(cost['inferences_per_month'])} inferences a month"
    return Table(
        caption=f"Dollars per million inferences{load}. The interval is that of the measured throughput.",
        headings=("variant", "instance", "$ per million [95%]", "change", "replicas", "$ per month"),
        words=2,
        rows=tuple(
            (
                variant["id"],
                f"{price['instance']}{' (extrapolated)' if price['extrapolated'] else ''}",
                dollars(price["usd_per_million"]),
                _shown(
                    price["change_vs_baseline_pct"],
                    lambda percent: format_change_pct(percent).replace("-", "−"),
                    absent="",
                ),
                _shown(price["replicas"], str),
                _shown(price["usd_per_month"], lambda usd: f"{usd:,.2f}"),
            )
            for variant in report.variants
            for price in report.prices(variant["id"])
        ),
    )


MONTHLY = {
    "compute": "fleet",
    "storage": "storage",
    "transfer": "transfer",
    "starts": "starts",
    "electricity": "electricity",
    "total": "total",
    "serverless_instead": "functions instead",
}
"""Headings of the lines of a month's bill."""
DRAWN = {"kwh_per_month": "kWh", "kg_co2e_per_month": "kg CO2e"}


def months(report: Report) -> Table:
    """Return a month's bill line by line, where there is more than the fleet to it; energy and carbon stand beside."""
    rows = [
        (variant["id"], price["instance"], (price.get("monthly_usd") or {}) | (price.get("energy") or {}))
        for variant in report.variants
        for price in report.prices(variant["id"])
    ]
    lines = [name for name in (*MONTHLY, *DRAWN) if any(bill.get(name) is not None for *_, bill in rows)]
    shown = set(lines) - {"compute", "total"}
    return Table(
        caption="A month in dollars, line by line, and what it draws; lines without a price are left out.",
        headings=("variant", "instance", *((MONTHLY | DRAWN)[name] for name in lines)),
        words=2,
        rows=tuple(
            (variant, instance, *(_shown(bill.get(name), _amount, absent="") for name in lines))
            for variant, instance, bill in rows
        )
        if shown
        else (),
    )


def _amount(value: float) -> str:
    return "<0.01" if 0 < value < 0.01 else f"{value:,.2f}"


def dollars(usd: Document | None) -> str:
    """Return a price with its interval."""
    if usd is None or usd["value"] is None:
        return NOT_MEASURED
    low, middle, high = (None if usd[end] is None else format_usd(usd[end]).removesuffix(" USD") for end in _ENDS)
    return f"{middle}" if low is None or high is None else f"{middle} [{low}, {high}]"


_ENDS = ("low", "value", "high")


def prices(report: Report) -> Table:
    """Return what an hour of each instance type costs, and who says so."""
    return Table(
        caption="Prices, and where they come from.",
        headings=("instance", "date", "source", "$ per hour"),
        words=3,
        rows=tuple(
            (
                price["instance"],
                price["as_of"] or "no date",
                price["source"] or "not given",
                _shown(price["usd_per_hour"], lambda usd: format_usd(usd).removesuffix(" USD")),
            )
            for price in report.prices(report.baseline)
        ),
    )


def kernels(report: Report) -> Table:
    """Return what the loaded sessions run."""
    return Table(
        caption="Nodes of the graph that the loaded onnxruntime session really runs. Float counts nodes that multiply "
        "(convolutions, matrix products, recurrences); conversions only change between int8 and float.",
        headings=("variant", "int8", "float", "conversions", "other", "float weights left"),
        rows=tuple(
            (
                variant["id"],
                *(
                    _shown(view.kernel_counts(variant).get(name), str)
                    for name in ("int8", "float", "conversions", "other")
                ),
                _shown(view.kernel_counts(variant).get("float_bytes"), format_bytes),
            )
            for variant in report.variants
        ),
    )


def stayed_float(variant: Document) -> Table:
    """Return the multiplying nodes of a quantized variant that no int8 kernel runs."""
    quantized = any(step["step"] == "quantize" for step in variant["steps"])
    found = view.kernel_counts(variant).get("stayed_float", ()) if quantized else ()
    return Table(
        caption=f"{variant['id']}: {_counted(len(found), 'node')} stayed float",
        headings=("where", "operator", "reason"),
        words=3,
        rows=tuple((skip["where"], skip["op"], skip["reason"]) for skip in found),
    )


def skipped(variant: Document) -> Table:
    """Return what the steps of a variant left alone."""
    rows = tuple(
        (step["step"], skip["where"], skip["op"], skip["reason"])
        for step in variant["steps"]
        for skip in step["skipped"]
    )
    return Table(
        caption=f"{variant['id']}: {_counted(len(rows), 'place')} left alone",
        headings=("step", "where", "operator", "reason"),
        words=4,
        rows=rows,
    )


def lineage(variant: Document) -> Table:
    """Return the steps a model has been through, with the hashes of what went in."""
    return Table(
        caption=f"{variant['id']}: sha256 {variant['sha256']}",
        headings=("step", "options", "input sha256", "data sha256", "versions"),
        words=5,
        rows=tuple(
            (
                entry["step"],
                compact(entry.get("options")),
                (entry.get("input_sha256") or entry.get("source_sha256") or "")[:12],
                (entry.get("data_sha256") or "")[:12],
                compact(entry.get("versions")),
            )
            for entry in variant.get("lineage") or ()
        ),
    )


def provenance(report: Report) -> list[tuple[str, str]]:
    """Return where the report comes from: names and values."""
    facts = [("recipe", compact(report.recipe)), ("versions", compact(report.versions))]
    if report.export is not None:
        facts.append(("export", compact(report.export)))
    if report.bench is not None:
        facts += [(name, compact(report.bench[name])) for name in ("host", "runtime", "inputs")]
    if report.evaluation is not None:
        facts.append(("evaluation data", compact(report.evaluation["data"])))
    return facts


def checks(report: Report) -> Table:
    """Return what the gate found that is not a plain pass."""
    return _checks(report, view.tally(report.checks), passed=False)


def passed(report: Report) -> Table:
    """Return the checks that passed."""
    return _checks(report, f"{sum(check.verdict == 'pass' for check in report.checks)} checks passed", passed=True)


def _checks(report: Report, counts: str, *, passed: bool) -> Table:
    return Table(
        caption=f"{counts}. Every bound with an interval is judged on all of it.",
        headings=("verdict", "rule", "variant", "limit", "measured", "why"),
        words=6,
        rows=tuple(
            (
                view.VERDICT_MARKS[check.verdict],
                check.rule,
                check.variant,
                check.limit,
                check.measured or NOT_MEASURED,
                view.why(check) or check.note,
            )
            for check in sorted(report.checks, key=view.urgency)
            if (check.verdict == "pass") is passed
        ),
    )


def compact(value: Mapping[str, Any] | None) -> str:
    """Write options or versions in one line, without those that are not set."""
    pairs = {name: one for name, one in (value or {}).items() if one is not None}
    return ", ".join(
        f"{name} {one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)}" for name, one in pairs.items()
    )


def _shown(value: T | None, text: Callable[[T], str], *, absent: str = NOT_MEASURED) -> str:
    return absent if value is None else text(value)


def _thousands(count: int) -> str:
    return f"{count:,}"


def rate(per_second: float) -> str:
    """``11273.4`` → ``11,273``."""
    return f"{per_second:,.0f}" if per_second >= 1000 else digits(per_second, 4)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
