from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.report import figures
from onnxpress.report.figures import Part, Series


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=40))
def test_the_boxes_of_a_treemap_have_the_areas_and_fill_the_whole(values: list[float]) -> None:
    parts = [Part(label=str(value), value=value, kind=0) for value in sorted(values, reverse=True)]
    boxes = figures.squarified(parts, (5.0, 7.0, 300.0, 200.0))
    total = sum(part.value for part in parts)
    for part, (x, y, width, height) in zip(parts, boxes, strict=True):
        assert width * height == pytest.approx(60_000 * part.value / total, rel=1e-6, abs=1e-6)
        assert x >= 5 - 1e-6 and y >= 7 - 1e-6
        assert x + width <= 305 + 1e-6 and y + height <= 207 + 1e-6


def test_both_treemaps_have_one_scale_of_area() -> None:
    before, after = ([Part(label="w", value=value, kind=0)] for value in (400.0, 100.0))
    root = ET.fromstring(figures.treemap("t", "T", [("a", before), ("b", after)]))  # noqa: S314 - our own
    areas = [float(box.attrib["width"]) * float(box.attrib["height"]) for box in root.iter("rect")]
    assert areas[0] / areas[1] == pytest.approx(4, rel=0.01)


def test_a_stacked_bar_is_as_long_as_its_parts() -> None:
    parts = [Part(label="a", value=3, kind=0), Part(label="b", value=1, kind=1)]
    root = ET.fromstring(figures.stacked("s", "S", [("one", "4", parts), ("two", "2", parts[1:])]))  # noqa: S314
    widths = [float(box.attrib["width"]) for box in root.iter("rect")]
    assert widths[0] / widths[1] == pytest.approx(3, rel=0.01)
    assert widths[2] == widths[1]


def test_lines_of_equal_values_can_be_drawn() -> None:
    drawn = figures.lines(
        "l", "L", [Series(label="a", xs=[1.0], ys=[2.0])], x_title="x", x_axis=str, y_axis=str, logarithmic=True
    )
    assert drawn.count("<polyline") == 1
