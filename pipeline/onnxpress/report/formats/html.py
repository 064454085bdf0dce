"""HTML: the whole report in one file that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onnxpress.gate.rules import RULES
from onnxpress.printing import printable, visible
from onnxpress.report import assumptions, charts, details, tables, view
from onnxpress.report.charts import Mark, Point
from onnxpress.report.headline import change_within
from onnxpress.report.numbers import NOT_MEASURED, ratio_interval, signed, times
from onnxpress.report.report import Report
from onnxpress.units import format_bytes, format_count, format_ms

SCRIPT = Path(__file__).with_name("report.js")
SECTIONS = (
    "trade-off",
    "gate",
    "speed",
    "accuracy",
    "size",
    "layers",
    "memory",
    "cost",
    "kernels",
    "lineage",
    "limits",
)
COLOURS = {"✗": "fail", "?": "inconclusive", "!": "inconclusive", "~": "waived", "-": "note", "✓": "pass"}
"""Classes by the mark that a verdict begins with."""
SHOWN = 200
"""Rows of a list of nodes; a large model has thousands, and report.json has them all."""


def render(report: Report) -> str:
    """Return the report as one HTML document; equal reports give equal text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # the others are markup of ours
    )
    script = SCRIPT.read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("html.jinja").render(
        report=report,
        view=view,
        tables=tables,
        details=details,
        assumptions=assumptions,
        chart=_charts(report),
        stops=list(view.stops(report)),
        left_out=_left_out(report),
        gists=_gists(report),
        colours=COLOURS,
        shown=SHOWN,
        script=script,
        script_hash=f"sha256-{digest}",
    )
    return "\n".join(visible(line) for line in page.split("\n"))


def _gists(report: Report) -> dict[str, str]:
    """Return what sections come to, for those who do not unfold them: of the variant to release."""
    name = details.chosen(report)
    if name is None:
        return dict.fromkeys(SECTIONS, "")
    before, after = report.variant(report.baseline), report.variant(name)
    cells = {
        "size": (view.size(report, before), view.size(report, after)),
        "speed": (view.latency(report, report.baseline), view.latency(report, name)),
        "accuracy": (view.accuracy(report, report.baseline), view.accuracy(report, name)),
        "cost": (view.price(report, report.baseline), view.price(report, name)),
    }
    measured = {
        section: f"{name}: {old.text} → {new.text}{f', {new.beside}' if new.beside else ''}"
        for section, (old, new) in cells.items()
        if NOT_MEASURED not in (old.text, new.text)
    }
    return dict.fromkeys(SECTIONS, "") | measured


def _charts(report: Report) -> dict[str, str]:
    """Return the charts by name, as SVG; a chart whose numbers were not measured is an empty text."""
    return {
        "sizes": _sizes(report),
        "treemap": details.treemap(report),
        "latencies": _latencies(report),
        "sensitive": details.sensitive(report),
        "tornado": assumptions.tornado(report),
        "distribution": details.distribution(report),
        "drift": details.drift(report),
        "operators": details.operators(report),
        "start": details.start(report),
        "drops": _drops(report),
        "plot": _plot(report),
        "work": _work(report),
    }


def _sizes(report: Report) -> str:
    marks = []
    for variant in report.variants:
        cell = view.size(report, variant)
        text = f"{cell.text}, {cell.detail}" if cell.detail else cell.text
        marks.append(_mark(report, variant["id"], variant["size_bytes"], None, text))
    return charts.bars("sizes", "Size on disk", marks)


def _latencies(report: Report) -> str:
    marks = []
    for variant in report.candidates:
        change = report.speed_change(variant)
        if change is not None:
            ratio, interval = 1 + change["change_pct"] / 100, ratio_interval(change["ci95_pct"])
            marks.append(_mark(report, variant, ratio, interval, change_within(change)))
    title = f"Latency p50 as a ratio to {report.baseline}, with 95% interval"
    return charts.intervals("latencies", title, marks, 1.0, times) if marks else ""


def _drops(report: Report) -> str:
    marks = []
    for variant in report.candidates:
        change = report.quality_change(variant)
        if change is not None:
            marks.append(_mark(report, variant, change["drop"], change["ci95"], view.accuracy(report, variant).beside))
    title = f"Drop of {view.metric_name(report)} against {report.baseline}, with paired 95% interval"
    return charts.intervals("drops", title, marks, 0.0, lambda drop: signed(drop, 1)) if marks else ""


def _plot(report: Report) -> str:
    """Draw accuracy (or what stands in for it) against latency (or size)."""
    across, x_title, x_axis = (
        (_latency, "latency p50 (logarithmic), left is faster", format_ms)
        if report.bench and any(speed["latency_ms"] for speed in report.bench["variants"])
        else (_size, "size (logarithmic), left is smaller", format_bytes)
    )
    most = _most(report, across, "latency.p50" if across is _latency else "size.total_bytes")
    return _against(report, "plot", across, x_title, x_axis, most)


def _work(report: Report) -> str:
    """Draw accuracy against multiply-accumulates, where variants differ in those: the curve of pruning."""
    ruined = _left_out(report)
    if len({variant.get("macs") for variant in report.variants if variant["id"] not in ruined}) < 2:
        return ""
    return _against(report, "work", _macs, "MACs of one sample (logarithmic), left is less work", format_count, None)


def _left_out(report: Report) -> tuple[str, ...]:
    """Return the ruined variants, which would press all others into a corner; empty where no other is left."""
    ruined = report.headline.ruined
    return ruined if len(ruined) < len(report.candidates) else ()


Across = Callable[[Report, str], Mark | None]


def _against(
    report: Report, name: str, across: Across, x_title: str, x_axis: Callable[[float], str], most: float | None
) -> str:
    """Draw accuracy, or what stands in for it, against something; nothing where fewer than two variants have both."""
    upwards, y_title = (
        (_accuracy, view.metric_name(report)) if report.metric else (_agreement, f"agreement with {report.baseline}, %")
    )
    points = []
    ruined = _left_out(report)
    for variant in report.variants:
        if variant["id"] in ruined:
            continue
        x, y = across(report, variant["id"]), upwards(report, variant["id"])
        if x is not None and y is not None:
            points.append(Point(label=x.label, x=x, y=y))
    if len(points) < 2:
        return ""
    return charts.plot(
        name,
        f"{y_title} against {x_title.partition(' (')[0]}",
        points,
        x_title,
        f"{y_title}, up is better",
        x_axis,
        most_x=most,
        least_y=_least(report, points[0]) if upwards is _accuracy else None,
    )


def _limits(report: Report, rule: str) -> dict[str, float]:
    """Return the bounds that the gate judged by, as the checks tell them."""
    check = next((check for check in report.checks if check.rule == rule), None)
    pairs = [limit.partition(" ") for limit in check.limit.split(", ")] if check else []
    return {name: RULES[rule].parse(name, text) for name, _, text in pairs if name in RULES[rule].bounds}


def _most(report: Report, across: Across, rule: str) -> float | None:
    """Return the largest value on the horizontal axis that the policy allows."""
    found, baseline = _limits(report, rule), across(report, report.baseline)
    names = [name for name in ("max_ratio", "max_regression") if name in found]
    ratios = [baseline.value * found[name] for name in names] if baseline is not None else []
    return min([*ratios, *([found["max"]] if "max" in found else [])], default=None)


def _least(report: Report, baseline: Point) -> float | None:
    """Return the lowest accuracy that the policy allows."""
    for rule in RULES:
        if rule.startswith("accuracy.") and rule != "accuracy.worst_class" and (found := _limits(report, rule)):
            allowed = [baseline.y.value - found["max_drop"]] if "max_drop" in found else []
            return max([*allowed, *([found["min"]] if "min" in found else [])], default=None)
    return None


def _latency(report: Report, variant: str) -> Mark | None:
    base, own, change = report.speed(report.baseline), report.speed(variant), report.speed_change(variant)
    if base is None or own is None or base["latency_ms"] is None or own["latency_ms"] is None:
        return None
    base_ms, own_ms = base["latency_ms"]["p50"], own["latency_ms"]["p50"]
    if change is None:
        return _mark(report, variant, own_ms, None, format_ms(own_ms))
    low, high = ratio_interval(change["ci95_pct"])
    place_ms = base_ms * (1 + change["change_pct"] / 100)  # where the interval is, which is that of the paired ratio
    return _mark(report, variant, place_ms, (base_ms * low, base_ms * high), format_ms(own_ms))


def _size(report: Report, variant: str) -> Mark | None:
    size = report.variant(variant)["size_bytes"]
    return _mark(report, variant, size, None, format_bytes(size))


def _macs(report: Report, variant: str) -> Mark | None:
    macs = report.variant(variant).get("macs")
    return _mark(report, variant, macs, None, f"{macs:,} MACs") if macs else None


def _accuracy(report: Report, variant: str) -> Mark | None:
    base, own, change = report.quality(report.baseline), report.quality(variant), report.quality_change(variant)
    if base is None or own is None or base["value"] is None or own["value"] is None:
        return None
    interval = (
        (base["value"] - change["ci95"][1], base["value"] - change["ci95"][0]) if change and change["ci95"] else None
    )
    return _mark(report, variant, own["value"], interval, view.accuracy(report, variant).text)


def _agreement(report: Report, variant: str) -> Mark | None:
    quality = report.quality(variant)
    if quality is None or quality["agreement_pct"] is None:
        return None
    return _mark(report, variant, quality["agreement_pct"], None, f"{quality['agreement_pct']:.2f}%")


def _mark(report: Report, variant: str, value: float, interval: tuple[float, float] | None, text: str) -> Mark:
    low, high = interval or (value, value)
    kind = "baseline" if variant == report.baseline else view.judged(report, variant) or "pass"
    waived = kind == "pass" and any(check.verdict == "waived" for check in report.checks_of(variant))
    return Mark(
        label=f"{variant} (waived)" if waived else variant,
        text=text,
        value=value,
        low=low,
        high=high,
        kind="waived" if waived else kind,
    )
