from __future__ import annotations

import pytest

from onnxpress.report import assumptions
from onnxpress.report.details import chosen
from onnxpress.report.report import Report


def test_each_assumption_moves_the_price_alone(report: Report) -> None:
    name = chosen(report)
    assert name is not None and report.cost is not None
    cheapest = min(report.prices(name), key=lambda price: price["usd_per_million"]["value"])
    usd = cheapest["usd_per_million"]
    marks = {mark.label: mark for mark in assumptions._marks(report)}
    assert all(mark.value == usd["value"] and mark.low <= mark.value <= mark.high for mark in marks.values())
    assert report.cost["utilisation"] == 0.5
    used = marks["used 25 to 75%"]  # a machine used half as much costs twice as much for each inference
    assert (used.low, used.high) == pytest.approx((usd["value"] / 1.5, usd["value"] * 2))
    assert (marks["measured speed"].low, marks["measured speed"].high) == (usd["low"], usd["high"])
    assert ("machine 0.8 to 1.25×" in marks) == cheapest["extrapolated"]
    widths = [mark.high - mark.low for mark in assumptions._marks(report)]
    assert widths == sorted(widths, reverse=True)
    assert "used 25 to 75%" in assumptions.tornado(report)


def test_without_a_price_there_is_nothing_to_show(bare: Report) -> None:
    assert assumptions.tornado(bare) == ""
    assert assumptions.table(bare).rows == ()
