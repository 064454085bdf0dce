"""The tables and figures of what is inside: weights, operators, distributions, memory, start-up, classes and flips.

Each asks the report for what an older or a smaller run may not hold, and is empty then: the page says "not measured".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from onnxpress.report import charts, figures
from onnxpress.report.charts import Mark
from onnxpress.report.figures import Part, Series
from onnxpress.report.numbers import NOT_MEASURED, drop_within, times
from onnxpress.report.report import Document, Report
from onnxpress.report.tables import Table
from onnxpress.units import digits, format_bytes, format_ms

DTYPES = ("float", "int8", "uint8", "float16", "int32", "int64", "int4", "uint4")
"""In the order of their colours."""
PHASES = ("import", "session", "first_run")
SHOWN_LAYERS = 12
SHOWN_OPERATORS = 7


def chosen(report: Report) -> str | None:
    """Return the variant that a before-and-after figure shows: the one to release, else the smallest."""
    smallest = min(report.candidates, key=lambda name: report.variant(name)["size_bytes"], default=None)
    return report.headline.variant or smallest


def treemap(report: Report) -> str:
    """Return the weights of the baseline and of the chosen variant, by area."""
    after = chosen(report)
    names = [report.baseline, *([after] if after else [])]
    wholes = [(f"{name}, {_bytes(report, name)}", _weights(report.variant(name))) for name in names]
    if not all(parts for _, parts in wholes):
        return ""
    return figures.treemap("treemap", "Weights by size, before and after", wholes)


def _bytes(report: Report, name: str) -> str:
    return format_bytes(report.variant(name)["size_bytes"])


def _weights(variant: Document) -> list[Part]:
    return [
        Part(
            label=f"{weight['name']}: {format_bytes(weight['bytes'])} {weight['dtype']}".rstrip(),
            value=weight["bytes"],
            kind=DTYPES.index(weight["dtype"]) if weight["dtype"] in DTYPES else figures.KINDS - 1,
        )
        for weight in variant.get("weights") or ()
    ]


def dtypes(report: Report) -> Table:
    """Return the bytes of the weights by type."""
    found: Counter[str] = Counter()
    for variant in report.variants:
        found.update(variant.get("bytes_by_dtype") or {})
    names = [name for name, _ in found.most_common(6)]
    return Table(
        caption="Bytes of the weights by type, and of the files after Zstandard, about what a registry moves.",
        headings=("variant", *names, "compressed"),
        rows=tuple(
            (
                variant["id"],
                *(format_bytes((variant["bytes_by_dtype"]).get(name, 0)) for name in names),
                _size(variant.get("compressed_bytes")),
            )
            for variant in report.variants
            if variant.get("bytes_by_dtype")
        ),
    )


def sparsity(report: Report) -> Table:
    """Return the largest weights of the chosen variant with their share of zeros."""
    name = chosen(report)
    weights = (report.variant(name).get("weights") or ()) if name else ()
    return Table(
        caption=f"{name or 'none'}: the largest weights, and which share of each is zero.",
        headings=("weight", "type", "size", "zeros"),
        words=2,
        rows=tuple(
            (weight["name"], weight["dtype"], format_bytes(weight["bytes"]), f"{weight['zeros_pct']:.1f}%")
            for weight in weights[:SHOWN_LAYERS]
            if weight["zeros_pct"] is not None
        ),
    )


def sensitive(report: Report) -> str:
    """Return the layers of the chosen variant (else of the first that knows) that lose most, as bars."""
    names = [name for name in (chosen(report), *report.candidates) if name]
    losses = [(layer, name) for name in dict.fromkeys(names) for layer, of in _losses(report) if of == name]
    shown = [layer for layer, name in losses if name == losses[0][1]][:SHOWN_LAYERS]
    marks = [
        Mark(label=layer["node"], text=digits(_loss(layer), 2), value=_loss(layer), low=0, high=0, kind="pass")
        for layer in shown
    ]
    title = f"Error of int8 in one layer alone, {losses[0][1]}" if losses else ""
    return charts.bars("sensitive", title, marks) if marks else ""


def _losses(report: Report) -> list[tuple[Document, str]]:
    """Return what each layer of each variant loses when it alone is int8, the worst first."""
    rows = [
        (layer, variant["id"])
        for variant in report.variants
        for step in variant["steps"]
        for layer in (step.get("facts") or {}).get("sensitivity") or ()
    ]
    return sorted(rows, key=lambda row: -_loss(row[0]))


def _loss(layer: Document) -> float:
    return float(layer.get("at_outputs") or layer["static"])


def sensitivity(report: Report) -> Table:
    """Return the layers that lose most when they alone are quantized."""
    return Table(
        caption="Squared error that int8 makes in one layer alone, relative to the squared signal; the worst first.",
        headings=("layer", "variant", "weights", "static"),
        words=2,
        rows=tuple(
            (layer["node"], name, digits(layer["weights"], 2), digits(layer["static"], 2))
            for layer, name in _losses(report)[:SHOWN_LAYERS]
        ),
    )


def distribution(report: Report) -> str:
    """Return the cumulative distribution of the latency of each variant."""
    series = [
        Series(label=speed["id"], xs=quantiles, ys=[100 * i / (len(quantiles) - 1) for i in range(len(quantiles))])
        for speed in _speeds(report)
        if (quantiles := (speed["latency_ms"] or {}).get("quantiles"))
    ]
    if not series:
        return ""
    return figures.lines(
        "distribution",
        "Latency distribution",
        series,
        x_title="latency (logarithmic); the share of runs that were faster",
        x_axis=format_ms,
        y_axis=lambda percent: f"{percent:.0f}%",
        logarithmic=True,
    )


def drift(report: Report) -> str:
    """Return the ratio of each pair of blocks, in the order in which they were measured."""
    series = [
        Series(label=variant, xs=list(range(1, len(ratios) + 1)), ys=ratios)
        for variant in report.candidates
        if (ratios := (report.speed_change(variant) or {}).get("ratios"))
    ]
    if not series:
        return ""
    return figures.lines(
        "drift",
        "Latency ratio of each pair of blocks",
        series,
        x_title="pair, in the order of measuring",
        x_axis=lambda pair: f"{pair:.0f}",
        y_axis=times,
        reference=1.0,
    )


def operators(report: Report) -> str:
    """Return where the time of a run goes, by operator."""
    total: Counter[str] = Counter()
    for speed in _speeds(report):
        total.update({row["op"]: row["ms"] for row in speed.get("operators") or ()})
    colours = {name: index for index, (name, _) in enumerate(total.most_common(SHOWN_OPERATORS))}
    rows = []
    for speed in _speeds(report):
        parts = [
            Part(
                label=f"{row['op']}: {format_ms(row['ms'])}, {row['share_pct']:.1f}%",
                value=row["ms"],
                kind=colours.get(row["op"], figures.KINDS - 1),
            )
            for row in speed.get("operators") or ()
        ]
        if parts:
            largest = speed["operators"][0]
            rows.append((speed["id"], f"{largest['op']} {largest['share_pct']:.0f}%", parts))
    return figures.stacked("operators", "Time by operator", rows) if rows else ""


def operator_table(report: Report) -> Table:
    """Return the operators that take most of the time, and which provider runs them."""
    return Table(
        caption="Time of one run by operator, from onnxruntime's profile of a process of its own: read it as shares.",
        headings=("variant", "operator", "provider", "nodes", "time", "share"),
        words=3,
        rows=tuple(
            (
                speed["id"],
                row["op"],
                row["provider"].removesuffix("ExecutionProvider"),
                str(row["nodes"]),
                format_ms(row["ms"]),
                f"{row['share_pct']:.1f}%",
            )
            for speed in _speeds(report)
            for row in (speed.get("operators") or ())[:SHOWN_OPERATORS]
        ),
    )


def start(report: Report) -> str:
    """Return the phases from a new process to the first result."""
    rows = []
    for speed in _speeds(report):
        phases = [(phase, speed["cold_start_ms"].get(phase)) for phase in PHASES]
        if all(ms is not None for _, ms in phases):
            parts = [
                Part(label=f"{phase.replace('_', ' ')}: {format_ms(ms)}", value=ms, kind=index)
                for index, (phase, ms) in enumerate(phases)
            ]
            rows.append((speed["id"], format_ms(sum(ms for _, ms in phases)), parts))
    return figures.stacked("start", "Cold start: import, session, first run", rows) if rows else ""


def resources(report: Report) -> Table:
    """Return memory, cold start and energy."""
    return Table(
        caption="Memory, cold start and energy of a fresh process; the arena is what onnxruntime's allocator gave out.",
        headings=(
            "variant",
            "peak memory",
            "loaded",
            "arena",
            *(phase.replace("_", " ") for phase in PHASES),
            "energy",
        ),
        rows=tuple(
            (
                speed["id"],
                *(
                    _size(speed["memory"].get(name))
                    for name in ("vm_hwm_bytes", "session_hwm_bytes", "arena_peak_bytes")
                ),
                *(_ms(speed["cold_start_ms"].get(phase)) for phase in PHASES),
                _energy(speed),
            )
            for speed in _speeds(report)
        ),
    )


def classes(report: Report) -> Table:
    """Return the classes that lose most."""
    return Table(
        caption="Classes whose accuracy drops most, with paired 95% intervals that hold for all classes together.",
        headings=("variant", "class", "samples", "drop [95%]", "lost / won"),
        words=2,
        rows=tuple(
            (
                change["candidate"],
                str(one["label"]),
                str(one["samples"]),
                drop_within(one["drop"], one["ci95"], "%"),
                f"{one['lost']} / {one['won']}",
            )
            for change in _changes(report)
            for one in (change.get("classes") or ())[:5]
            if one["lost"] or one["won"]
        ),
    )


def flips(report: Report) -> Table:
    """Return samples whose answer changed between right and wrong."""
    return Table(
        caption="Samples that only one of the two models gets right; the number is the sample's place in the data.",
        headings=("variant", "change", "sample", "label"),
        words=2,
        rows=tuple(
            (change["candidate"], one["change"], str(one["sample"]), "" if one["label"] is None else str(one["label"]))
            for change in _changes(report)
            for one in (change.get("flips") or ())[:10]
        ),
    )


def _speeds(report: Report) -> Sequence[Document]:
    return report.bench["variants"] if report.bench else ()


def _changes(report: Report) -> Sequence[Document]:
    return report.evaluation["comparisons"] if report.evaluation else ()


def _size(count: float | None) -> str:
    return NOT_MEASURED if count is None else format_bytes(count)


def _ms(value: float | None) -> str:
    return NOT_MEASURED if value is None else format_ms(value)


def _energy(speed: Document) -> str:
    joules = (speed.get("energy") or {}).get("j_per_inference")
    return "unavailable" if joules is None else f"{digits(joules, 3)} J"
