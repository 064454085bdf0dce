from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from onnxpress.report.charts import Mark, Point, Scale, bars, intervals, plot, round_step


def mark(label: str, value: float, low: float | None = None, high: float | None = None) -> Mark:
    return Mark(
        label=label,
        text=f"{value:g}",
        value=value,
        low=value if low is None else low,
        high=value if high is None else high,
        kind="pass",
    )


def test_bars_are_proportional_to_their_values() -> None:
    chart = ET.fromstring(bars("sizes", "Sizes", [mark("a", 100), mark("b", 25)]))  # noqa: S314 - our own
    one, other = (float(bar.get("width", "")) for bar in chart.iter("rect"))
    assert other / one == pytest.approx(0.25)


def test_an_interval_lies_where_its_numbers_are() -> None:
    marks = [mark("a", 0.5, 0.4, 0.6), mark("b", 1.2, 1.1, 1.3)]
    chart = ET.fromstring(intervals("i", "I", marks, 1.0, str))  # noqa: S314
    (reference,) = (float(line.get("x1", "")) for line in chart.iter("line") if line.get("class") == "reference")
    one, other = (float(dot.get("cx", "")) for dot in chart.iter("circle"))
    assert one < reference < other
    assert (reference - one) / (other - reference) == pytest.approx(0.5 / 0.2, rel=0.01)
    first, _ = ((line.get("x1"), line.get("x2")) for line in chart.iter("line") if "whisker" in line.get("class", ""))
    assert sum(map(float, filter(None, first))) / 2 == pytest.approx(one, abs=0.1)


def points() -> list[Point]:
    return [
        Point(label="float", x=mark("float", 4.0), y=mark("float", 98.0)),
        Point(label="int8", x=mark("int8", 1.0), y=mark("int8", 97.5, 97.0, 98.0)),
        Point(label="slow", x=mark("slow", 5.0), y=mark("slow", 97.0)),
    ]


def test_the_plot_joins_what_nothing_beats() -> None:
    chart = ET.fromstring(plot("p", "P", points(), "ms", "top1", str))  # noqa: S314
    (front,) = chart.iter("polyline")
    assert len(front.get("points", "").split()) == 2
    assert [dot.get("class") for dot in chart.iter("circle")] == ["dot pass", "dot pass", "dot pass beaten"]
    assert {"float", "int8", "slow"} <= {text.text for text in chart.iter("text")}


def test_equal_points_do_not_beat_each_other() -> None:
    one, other = points()[0], points()[0]
    assert not one.beats(other)
    assert points()[0].beats(points()[2])


def test_labels_of_equal_points_do_not_cover_each_other() -> None:
    same = [Point(label=f"variant-{i}", x=mark("", 1.0), y=mark("", 98.0)) for i in range(4)]
    chart = ET.fromstring(plot("p", "P", same, "ms", "top1", str))  # noqa: S314
    places = {(text.get("x"), text.get("y")) for text in chart.iter("text") if text.get("class") == "label halo"}
    assert len(places) == 4


def test_every_chart_says_what_it_shows() -> None:
    for text in (bars("c", "T", [mark("a", 1)]), intervals("c", "T", [mark("a", 1)], 1, str)):
        chart = ET.fromstring(text)  # noqa: S314
        assert chart.get("role") == "img"
        assert chart.get("aria-labelledby") == "c-title c-description"
        assert [chart.findtext("title"), chart.findtext("desc")] == ["T", "a 1"]


def test_text_is_escaped() -> None:
    assert "<b>" not in bars("c", "<b>", [mark("<b>&", 1)])


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e4), st.booleans())
def test_ticks_are_few_and_within_the_scale(low: float, factor: float, logarithmic: bool) -> None:
    scale = Scale(low=low, high=low * factor, start=0, end=100, logarithmic=logarithmic)
    ticks = scale.ticks()
    assert len(ticks) <= 12
    assert all(-1e-6 <= scale(tick) <= 100 + 1e-6 for tick in ticks)
    assert len(ticks) >= 2


@given(st.floats(1e-9, 1e9))
def test_steps_are_round(width: float) -> None:
    assume(width > 0)
    assert 0.99 <= round_step(width) / width <= 2.6
