"""Figures of what is inside a model and a benchmark: treemap, stacked bars, distributions, ratios over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import SubElement

from onnxpress.report import charts
from onnxpress.report.charts import CHARACTER_WIDTH, LINE_HEIGHT, ROW_HEIGHT, WIDTH, Scale, short

KINDS = 8
"""Colours of a series: classes ``k0`` to ``k7`` of the style sheet (Okabe and Ito's palette)."""
GAP = 16
TREEMAP_HEIGHT = 260
LEAST_LABELLED = (56.0, 15.0)
LEAST_CHARACTERS = 12
SERIES_HEIGHT = 220
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a whole."""

    label: str
    value: float
    kind: int
    """Index of its colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one variant."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]


def treemap(name: str, title: str, wholes: Sequence[tuple[str, Sequence[Part]]]) -> str:
    """Draw wholes side by side, with one scale of area: the largest fills its column.

    M. Bruls, K. Huizing, J. van Wijk, "Squarified Treemaps", 2000.
    """
    totals = [sum(part.value for part in parts) for _, parts in wholes]
    description = "; ".join(f"{label}: {len(parts)} parts" for label, parts in wholes)
    drawing = charts.chart(name, title, description, TREEMAP_HEIGHT + 24)
    column = (WIDTH - GAP * (len(wholes) - 1)) / len(wholes)
    for index, (label, parts) in enumerate(wholes):
        share = totals[index] / max(totals) if max(totals) else 0
        left, width, height = index * (column + GAP), column * share**0.5, TREEMAP_HEIGHT * share**0.5
        charts.text(drawing, left, 14, short(label, int(column / CHARACTER_WIDTH)), "label")
        ordered = sorted((part for part in parts if part.value > 0), key=lambda part: (-part.value, part.label))
        for part, (x, y, w, h) in zip(ordered, squarified(ordered, (left, 24, width, height)), strict=True):
            tile = SubElement(drawing, "g", {"class": f"tile k{part.kind % KINDS}"})
            SubElement(tile, "title").text = part.label
            SubElement(tile, "rect", charts.at({"x": x, "y": y, "width": w, "height": h}, "area"))
            room = int((w - 8) / CHARACTER_WIDTH)
            if w >= LEAST_LABELLED[0] and h >= LEAST_LABELLED[1] and room >= LEAST_CHARACTERS:
                charts.text(tile, x + 4, y + 13, short(part.label, room), "inside")
    return charts.drawn(drawing)


def squarified(parts: Sequence[Part], box: Box) -> list[Box]:
    """Return a box for each part, in their order (the largest first), that together fill ``box``."""
    x, y, width, height = box
    total = sum(part.value for part in parts)
    if total <= 0 or width <= 0 or height <= 0:
        return [(x, y, 0.0, 0.0) for _ in parts]
    areas = [part.value / total * width * height for part in parts]
    found: list[Box] = []
    while areas:
        side = min(width, height)
        row = areas[:1]
        while len(row) < len(areas) and _worst([*row, areas[len(row)]], side) <= _worst(row, side):
            row.append(areas[len(row)])
        depth = sum(row) / side if side > 0 else 0.0
        along = 0.0
        for area in row:
            length = area / depth if depth > 0 else 0.0
            found.append((x, y + along, depth, length) if width >= height else (x + along, y, length, depth))
            along += length
        if width >= height:
            x, width = x + depth, max(0.0, width - depth)
        else:
            y, height = y + depth, max(0.0, height - depth)
        areas = areas[len(row) :]
    return found


def _worst(row: Sequence[float], side: float) -> float:
    """Return the worst ratio of sides among the boxes of a row."""
    total = sum(row)
    if side <= 0 or total <= 0 or min(row) <= 0:
        return float("inf")
    return max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row)))


def stacked(name: str, title: str, rows: Sequence[tuple[str, str, Sequence[Part]]]) -> str:
    """Draw one bar a row, in parts: label and text above it, and the parts from left to right."""
    description = "; ".join(f"{label}: {text}" for label, text, _ in rows)
    drawing = charts.chart(name, title, description, len(rows) * ROW_HEIGHT + 4)
    longest = max((sum(part.value for part in parts) for _, _, parts in rows), default=0) or 1
    scale = Scale(low=0, high=longest, start=0, end=WIDTH)
    for index, (label, text, parts) in enumerate(rows):
        y, done = charts.row_title(drawing, index, label, text), 0.0
        for part in parts:
            x, end = scale(done), scale(done + part.value)
            tile = SubElement(drawing, "g", {"class": f"tile k{part.kind % KINDS}"})
            SubElement(tile, "title").text = part.label
            SubElement(tile, "rect", charts.at({"x": x, "y": y - 7, "width": end - x, "height": 14}, "area"))
            done += part.value
    return charts.drawn(drawing)


def lines(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    x_title: str,
    x_axis: Callable[[float], str],
    y_axis: Callable[[float], str],
    logarithmic: bool = False,
    reference: float | None = None,
) -> str:
    """Draw a line a series, their names below; and a line across at ``reference``."""
    across = 2 if max(len(one.label) for one in series) * CHARACTER_WIDTH < WIDTH / 2 - 30 else 1
    height = SERIES_HEIGHT + -(-len(series) // across) * LINE_HEIGHT
    drawing = charts.chart(name, title, "; ".join(one.label for one in series), height)
    all_x = [x for one in series for x in one.xs]
    all_y = [y for one in series for y in one.ys] + ([] if reference is None else [reference])
    low_y, high_y = min(all_y), max(all_y)
    margin = (high_y - low_y) * 0.06 or 0.05
    low_x, high_x = min(all_x), max(all_x)
    if high_x <= low_x:
        high_x = low_x * 1.1 if logarithmic else low_x + 1
    xs = Scale(low=low_x, high=high_x, start=62, end=WIDTH - 12, logarithmic=logarithmic)
    ys = Scale(low=low_y - margin, high=high_y + margin, start=SERIES_HEIGHT - 42, end=10)
    for tick in xs.ticks():
        charts.line(drawing, xs(tick), ys.end, xs(tick), ys.start, "grid")
    charts.axis_labels(drawing, xs, x_axis, ys.start + 16)
    for tick in ys.ticks():
        charts.line(drawing, xs.start, ys(tick), xs.end, ys(tick), "grid")
        charts.text(drawing, xs.start - 8, ys(tick) + 4, y_axis(tick), "tick end")
    charts.text(drawing, (xs.start + xs.end) / 2, SERIES_HEIGHT - 8, x_title, "axis middle")
    if reference is not None:
        charts.line(drawing, xs.start, ys(reference), xs.end, ys(reference), "reference")
    for index, one in enumerate(series):
        points = " ".join(f"{charts.number(xs(x))},{charts.number(ys(y))}" for x, y in zip(one.xs, one.ys, strict=True))
        SubElement(drawing, "polyline", {"points": points, "class": f"series k{index % KINDS}"})
    for index, one in enumerate(series):
        x, y = index % across * WIDTH / 2, SERIES_HEIGHT + 14 + index // across * LINE_HEIGHT
        charts.line(drawing, x, y - 4, x + 18, y - 4, f"series k{index % KINDS}")
        charts.text(drawing, x + 26, y, short(one.label, int((WIDTH / across - 30) / CHARACTER_WIDTH)), "label")
    return charts.drawn(drawing)
