"""What a price per million rests on: how far it moves when one assumption is wrong and the others hold (a tornado)."""

from __future__ import annotations

from collections.abc import Sequence

from onnxpress.report import charts
from onnxpress.report.charts import Mark
from onnxpress.report.details import chosen
from onnxpress.report.numbers import NOT_MEASURED
from onnxpress.report.report import Document, Report
from onnxpress.report.tables import Table
from onnxpress.units import format_usd

OTHER_SPEED = 1.25
"""A machine of another type may be this much faster or slower than the one that was measured."""
OTHER_USE = 0.5
"""The machines may be used by this share more or less than planned."""


def tornado(report: Report) -> str:
    """Return the figure for the chosen variant on its cheapest machine; empty without a price."""
    marks = _marks(report)
    if not marks:
        return ""
    return charts.intervals("tornado", "What the price rests on", marks, marks[0].value, lambda usd: f"{usd:.3g}")


def table(report: Report) -> Table:
    """Return the numbers of the figure."""
    price = _price(report)
    where = f"{chosen(report)} on {price['instance']}" if price else NOT_MEASURED
    return Table(
        caption=f"Dollars per million inferences of {where} when one assumption changes and the others hold.",
        headings=("assumption", "price"),
        words=1,
        rows=tuple((mark.label, mark.text) for mark in _marks(report)),
    )


def _price(report: Report) -> Document | None:
    name = chosen(report)
    known = [price for price in report.prices(name) if price["usd_per_million"]] if name else []
    return min(known, key=lambda price: price["usd_per_million"]["value"], default=None)


def _marks(report: Report) -> Sequence[Mark]:
    """Return each assumption with the price at either end of it, the one that moves most first."""
    price = _price(report)
    if price is None or report.cost is None:
        return ()
    usd, use = price["usd_per_million"], report.cost["utilisation"]
    value = usd["value"]
    most, least = min(1.0, use * (1 + OTHER_USE)), use * (1 - OTHER_USE)
    ends = {f"used {100 * least:.0f} to {100 * most:.0f}%": (value * use / most, value * use / least)}
    if usd["low"] is not None and usd["high"] is not None:
        ends["measured speed"] = usd["low"], usd["high"]
    if price["extrapolated"]:
        ends[f"machine {1 / OTHER_SPEED:g} to {OTHER_SPEED:g}×"] = value / OTHER_SPEED, value * OTHER_SPEED
    ordered = sorted(ends.items(), key=lambda item: item[1][0] - item[1][1])
    return [
        Mark(
            label=label,
            text=f"{format_usd(low).removesuffix(' USD')} to {format_usd(high)}",
            value=value,
            low=low,
            high=high,
            kind="pass",
        )
        for label, (low, high) in ordered
    ]
