from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxpress.report.charts import Mark, Point, Scale, bars, intervals, plot, round_step, short


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
    (reference,) = {float(line.get("x1", "")) for line in chart.iter("line") if line.get("class") == "reference"}
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


def boxes(chart: ET.Element) -> list[tuple[float, float, float, float]]:
    """Return about where the labels of a plot are."""
    return [
        (float(text.get("x", "")), float(text.get("y", "")) - 12, len(text.text or "") * 7, 14)
        for text in chart.iter("text")
        if text.get("class") == "label halo"
    ]


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def whiskers(chart: ET.Element) -> list[tuple[float, float, float, float]]:
    found = []
    for drawn in chart.iter("line"):
        if "whisker" in drawn.get("class", ""):
            x1, y1, x2, y2 = (float(drawn.get(name, "")) for name in ("x1", "y1", "x2", "y2"))
            found.append((min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)))
    return found


close = st.lists(st.tuples(st.floats(0.9, 5), st.floats(96, 99), st.floats(0, 1)), min_size=1, max_size=8)


@settings(max_examples=60)
@given(close, st.sampled_from(["int8", "int8-static-calibrated-with-minmax"]))
def test_labels_cover_neither_each_other_nor_whiskers(places: list[tuple[float, float, float]], name: str) -> None:
    """Where names have no room there are numbers and a legend; points that coincide may share one label."""
    points = [
        Point(label=f"{name}-{i}", x=mark("", x, x - width / 2, x + width / 2), y=mark("", y, y - width, y + width))
        for i, (x, y, width) in enumerate(places)
    ]
    chart = ET.fromstring(plot("p", "P", points, "ms", "top1", str))  # noqa: S314
    texts = " ".join(text.text or "" for text in chart.iter("text"))
    assert all(point.label in texts for point in points)
    labels = boxes(chart)
    if len(labels) == len(points) and not any(
        "," in (text.text or "") for text in chart.iter("text") if text.get("class") == "label halo"
    ):
        assert not any(overlap(one, other) for i, one in enumerate(labels) for other in labels[:i])
        assert not any(overlap(label, other) for label in labels for other in whiskers(chart))


def test_labels_of_equal_points_are_one() -> None:
    same = [Point(label=f"variant-{i}", x=mark("", 1.0), y=mark("", 98.0)) for i in range(14)]
    chart = ET.fromstring(plot("p", "P", same, "ms", "top1", str))  # noqa: S314
    assert [text.text for text in chart.iter("text") if text.get("class") == "label halo"] == [
        ", ".join(map(str, range(1, 15)))
    ]
    assert sum("variant-" in (text.text or "") for text in chart.iter("text")) == 14


def test_long_names_keep_both_ends() -> None:
    assert short("int8-static-calibrated-with-minmax", 19) == "int8-stat…th-minmax"
    assert short("int8", 19) == "int8"


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


def test_a_scale_of_one_number_has_it_in_the_middle() -> None:
    for logarithmic in (False, True):
        scale = Scale(low=3.0, high=3.0, start=0.0, end=10.0, logarithmic=logarithmic)
        assert scale(3.0) == 5.0 and scale.ticks() == [3.0]


def test_a_logarithmic_scale_that_begins_at_nothing_is_linear() -> None:
    scale = Scale(low=0.0, high=10.0, start=0.0, end=10.0, logarithmic=True)
    assert scale(0.0) == 0 and scale(5.0) == 5 and scale.ticks()[0] == 0
