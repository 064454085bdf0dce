"""What a benchmark found beyond latency, as tables of text: verdicts, batches, service levels, energy, operators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnxpress.report.report import Document
from onnxpress.report.tables import Table, rate
from onnxpress.units import digits, format_bytes, format_ms, format_ratio

SHOWN_OPERATORS = 6
"""For each variant; the JSON result has all of them. Older results have fewer fields: what they lack is no table."""
UNKNOWN = "-"


def tables(bench: Document) -> list[Table]:
    """Return the tables that have something to say, in the order of interest."""
    made = (verdicts(bench), end_to_end(bench), batches(bench), servers(bench), energies(bench), operators(bench))
    return [table for table in made if table.rows]


def verdicts(bench: Document) -> Table:
    """Return every comparison with its verdict."""
    return Table(
        caption=f"Against {bench['baseline']}; the limit is {bench.get('max_regression_pct', 0):g}% worse.",
        headings=("variant", "metric", "verdict", "change [95%]", "pairs"),
        words=3,
        rows=tuple(
            (
                change["candidate"],
                change["metric"],
                f"{change['verdict']}{', improved' if change['improved'] else ''}",
                _interval(change),
                str(change["pairs"]),
            )
            for change in bench["comparisons"]
            if "verdict" in change
        ),
    )


def _interval(change: Document) -> str:
    low, high = change["ci95_pct"]
    return f"{change['change_pct']:+.1f}% [{low:+.1f}, {high:+.1f}]"


def end_to_end(bench: Document) -> Table:
    """Return latency with the copies to the device and back."""
    return Table(
        caption="Latency with the copies of inputs to the device and of outputs back.",
        headings=("variant", "p50", "p90", "p99"),
        rows=tuple(
            (variant["id"], *(_ms(variant["end_to_end_ms"][name]) for name in ("p50", "p90", "p99")))
            for variant in bench["variants"]
            if variant.get("end_to_end_ms")
        ),
    )


def batches(bench: Document) -> Table:
    """Return the sweep over batch sizes, and the best way to throughput."""
    return Table(
        caption="Throughput by batch size, with its 95% interval.",
        headings=("variant", "batch", "per second", "threads × sessions", "p50"),
        rows=tuple(
            (
                variant["id"],
                str(row["batch"]),
                f"{rate(row['value'])} [{rate(row['low'])}, {rate(row['high'])}]",
                f"{row['threads']} × {row['sessions']}",
                _ms(row.get("p50_ms")),
            )
            for variant in bench["variants"]
            for row in _rates(variant)
        ),
    )


def _rates(variant: Document) -> Iterator[Any]:
    yield from variant.get("batches", ())
    if "sessions" in variant["throughput_per_s"] and variant["throughput_per_s"]["scenario"] == "offline":
        yield variant["throughput_per_s"]


def servers(bench: Document) -> Table:
    """Return the highest rates within the service level."""
    served = [(variant["id"], variant["server"]) for variant in bench["variants"] if variant.get("server")]
    return Table(
        caption="The highest rate of random requests that keeps the service level.",
        headings=("variant", "level", "per second", "p50", "p99", "of capacity"),
        words=2,
        rows=tuple(
            (
                name,
                f"p{server['sla']['percent']:g} ≤ {format_ms(server['sla']['limit_ms'])}",
                _highest_rate(server),
                _ms(server["p50_ms"]),
                _ms(server["p99_ms"]),
                UNKNOWN if server["utilisation"] is None else format_ratio(server["utilisation"]),
            )
            for name, server in served
        ),
    )


def _highest_rate(server: Document) -> str:
    """Return the rate, or why there is none: the lowest one that was tried, and what share of the capacity it is."""
    if server["rate_per_s"] is not None:
        return rate(server["rate_per_s"])
    tried, capacity = server.get("too_high_per_s"), server["capacity_per_s"]
    if server.get("why"):
        return f"none: {server['why']}"
    if tried is None:
        return "none"
    return f"none: {rate(tried)}/s, {tried / capacity:.0%} of the capacity, are too many already"


def energies(bench: Document) -> Table:
    """Return the energy of one inference."""
    return Table(
        caption="Energy of one inference, as the machine's own counters say.",
        headings=("variant", "source", "joules", "net of idling"),
        words=2,
        rows=tuple(
            (
                variant["id"],
                variant["energy"]["source"],
                digits(variant["energy"]["j_per_inference"], 3),
                digits(variant["energy"]["net_j_per_inference"], 3),
            )
            for variant in bench["variants"]
            if variant.get("energy", {}).get("j_per_inference") is not None
        ),
    )


def operators(bench: Document) -> Table:
    """Return where the time of each variant goes."""
    return Table(
        caption="Where the time goes, by onnxruntime's own profile, which slows runs down: read the shares.",
        headings=("variant", "operator", "provider", "nodes", "time", "share", "allocator's peak"),
        words=3,
        rows=tuple(
            (
                variant["id"] if place == 0 else "",
                row["op"],
                row["provider"].removesuffix("ExecutionProvider"),
                str(row["nodes"]),
                format_ms(row["ms"]),
                format_ratio(row["share_pct"] / 100),
                format_bytes(variant["memory"]["arena_peak_bytes"] or 0) if place == 0 else "",
            )
            for variant in bench["variants"]
            for place, row in enumerate(variant.get("operators", ())[:SHOWN_OPERATORS])
        ),
    )


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else format_ms(value)
