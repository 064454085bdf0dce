"""Charts as inline SVG: bars, intervals, and the plot of accuracy against latency.

Plain shapes with class names; the page's style sheet colours them, so they follow its dark mode and print. Each chart
has a title and a description, and stands beside a table with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from onnxpress.printing import printable

WIDTH = 520
"""Of all drawings: narrow enough for a telephone, so a page that is wider sets two side by side."""
ROW_HEIGHT = 44
"""A line of text, and below it the bar or the interval."""
LINE_HEIGHT = 20
CHARACTER_WIDTH = 7.6  # of the labels' font, rather more than on average
PLOT_HEIGHT = 340


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One variant in a chart."""

    label: str
    text: str
    """The number, as the tables write it."""
    value: float
    low: float
    high: float
    kind: str
    """``baseline``, ``pass``, ``fail``, ``inconclusive`` or ``waived``: a class name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One variant in the plot of one number against another."""

    label: str
    x: Mark
    y: Mark

    def beats(self, other: Point) -> bool:
        """Tell whether it is at least as good in both numbers, and better in one."""
        gains = (other.x.value - self.x.value, self.y.value - other.y.value)
        return min(gains) >= 0 and max(gains) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps numbers to positions."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    @property
    def _in_decades(self) -> bool:
        """Whether equal ratios are equally far apart; a scale that begins at 0 has none."""
        return self.logarithmic and self.low > 0

    def __call__(self, value: float) -> float:
        """Return the position of a number."""
        low, high, at = (
            (math.log(x) for x in (self.low, self.high, value)) if self._in_decades else (self.low, self.high, value)
        )
        share = (at - low) / (high - low) if high > low else 0.5  # one number alone stands in the middle
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return about five round numbers within the scale; of a scale with one number, that."""
        if self.high <= self.low:
            return [self.low]
        if self._in_decades and self.high > 4 * self.low:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            decades = [10.0**exponent for exponent in exponents]
            for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
                found = [digit * decade for decade in decades for digit in digits]
                ticks = [tick for tick in found if self.low <= tick <= self.high]
                if len(ticks) >= 4:
                    break
            return ticks
        step = round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        return [index * step for index in range(first, math.floor(self.high / step) + 1)]


def round_step(width: float) -> float:
    """Return the next of 1, 2, 5, 10, 20… (or 0.5, 0.2…) that is not below ``width``."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * 0.999)


def bars(name: str, title: str, marks: Sequence[Mark]) -> str:
    """Draw one horizontal bar a mark, from zero."""
    drawing = chart(name, title, _told(marks), len(marks) * ROW_HEIGHT + 4)
    scale = Scale(low=0, high=max(mark.value for mark in marks) or 1, start=0, end=WIDTH)
    for index, mark in enumerate(marks):
        y = row_title(drawing, index, mark.label, mark.text)
        place = {"x": 0, "y": y - 7, "width": max(1.0, scale(mark.value)), "height": 14}
        SubElement(drawing, "rect", at(place, f"bar {mark.kind}"))
    return drawn(drawing)


def intervals(name: str, title: str, marks: Sequence[Mark], reference: float, axis: Callable[[float], str]) -> str:
    """Draw one dot with its interval a mark, and a line at ``reference``, which stands for "no change"."""
    height = len(marks) * ROW_HEIGHT + 28
    drawing = chart(name, title, _told(marks), height)
    low, high = min(reference, *(mark.low for mark in marks)), max(reference, *(mark.high for mark in marks))
    margin = (high - low or 1) * 0.06
    scale = Scale(low=low - margin, high=high + margin, start=0, end=WIDTH)
    bottom = height - 22
    axis_labels(drawing, scale, axis, height - 6)
    for index, mark in enumerate(marks):
        y = row_title(drawing, index, mark.label, mark.text)
        for tick in scale.ticks():  # not through the text
            line(drawing, scale(tick), y - 9, scale(tick), min(y + 11, bottom), "grid")
        line(drawing, scale(reference), y - 9, scale(reference), min(y + 11, bottom), "reference")
        line(drawing, scale(mark.low), y, scale(mark.high), y, f"whisker {mark.kind}")
        _dot(drawing, scale(mark.value), y, mark.kind)
    return drawn(drawing)


def axis_labels(drawing: Element, scale: Scale, shown: Callable[[float], str], y: float) -> None:
    """Write the numbers of the ticks below an axis; one that would touch the last one is left out."""
    free = 0.0
    for tick in scale.ticks():
        label = shown(tick)
        half = len(label) * CHARACTER_WIDTH / 2
        x = min(scale(tick), WIDTH - half)
        if x - half >= free:
            text(drawing, x, y, label, "tick middle")
            free = x + half + 2 * CHARACTER_WIDTH


def row_title(drawing: Element, index: int, label: str, number_text: str) -> float:
    """Write a row's label at the left and its number at the right; return the height at which it is drawn below."""
    top = index * ROW_HEIGHT
    room = int((WIDTH - len(number_text) * CHARACTER_WIDTH) / CHARACTER_WIDTH) - 2
    text(drawing, 0, top + 15, short(label, room), "label")
    text(drawing, WIDTH, top + 15, number_text, "label end")
    return top + 29


def _told(marks: Sequence[Mark]) -> str:
    return "; ".join(f"{mark.label} {mark.text}" for mark in marks)


def plot(
    name: str,
    title: str,
    points: Sequence[Point],
    x_title: str,
    y_title: str,
    x_axis: Callable[[float], str],
    *,
    most_x: float | None = None,
    least_y: float | None = None,
) -> str:
    """Draw points with their intervals; a dashed line joins those that no other point beats.

    What a policy forbids is shaded: right of ``most_x`` and below ``least_y``.
    """
    description = "; ".join(f"{point.label}: {point.x.text}, {point.y.text}" for point in points)
    xs = _span([point.x for point in points], logarithmic=True, start=62, end=WIDTH - 12)
    ys = _span([point.y for point in points], logarithmic=False, start=PLOT_HEIGHT - 46, end=12)
    labels = _placed(points, [point.label for point in points], xs, ys)
    legend_lines = []
    if labels is None:  # no room for the names: numbers stand for them
        numbers = [str(index) for index in range(1, len(points) + 1)]
        labels = _placed(points, numbers, xs, ys) or _together(points, xs, ys)
        legend_lines = [
            f"{index}  {point.label}: {point.x.text}, {point.y.text}"
            for index, point in zip(numbers, points, strict=True)
        ]
    drawing = chart(name, title, description, PLOT_HEIGHT + len(legend_lines) * LINE_HEIGHT)
    if most_x is not None and most_x < xs.high:
        left = xs(max(most_x, xs.low))
        place = {"x": left, "y": ys.end, "width": xs.end - left, "height": ys.start - ys.end}
        SubElement(drawing, "rect", at(place, "infeasible"))
    if least_y is not None and least_y > ys.low:
        top = ys(min(least_y, ys.high))
        place = {"x": xs.start, "y": top, "width": xs.end - xs.start, "height": ys.start - top}
        SubElement(drawing, "rect", at(place, "infeasible"))
    for tick in xs.ticks():
        line(drawing, xs(tick), ys.end, xs(tick), ys.start, "grid")
    axis_labels(drawing, xs, x_axis, ys.start + 17)
    for tick in ys.ticks():
        line(drawing, xs.start, ys(tick), xs.end, ys(tick), "grid")
        text(drawing, xs.start - 8, ys(tick) + 4, f"{tick:.6g}", "tick end")
    text(drawing, (xs.start + xs.end) / 2, PLOT_HEIGHT - 9, x_title, "axis middle")
    turned = text(drawing, 0, 0, y_title, "axis middle")
    turned.set("transform", f"translate(14 {number((ys.start + ys.end) / 2)}) rotate(-90)")
    front = sorted((p for p in points if not any(q.beats(p) for q in points)), key=lambda point: point.x.value)
    corners = " ".join(f"{number(xs(point.x.value))},{number(ys(point.y.value))}" for point in front)
    SubElement(drawing, "polyline", {"points": corners, "class": "front"})
    for point in points:
        x, y, kind = xs(point.x.value), ys(point.y.value), point.y.kind
        line(drawing, xs(point.x.low), y, xs(point.x.high), y, f"whisker {kind}")
        line(drawing, x, ys(point.y.low), x, ys(point.y.high), f"whisker {kind}")
        _dot(drawing, x, y, kind if point in front else f"{kind} beaten")
    for label, x, y in labels:
        text(drawing, x, y, label, "label halo")
    for index, entry in enumerate(legend_lines):
        text(drawing, 0, PLOT_HEIGHT + 14 + index * LINE_HEIGHT, short(entry, FULL_LINE), "label")
    return drawn(drawing)


FULL_LINE = int(WIDTH / CHARACTER_WIDTH)
Box = tuple[float, float, float, float]


def _placed(
    points: Sequence[Point], labels: Sequence[str], xs: Scale, ys: Scale
) -> list[tuple[str, float, float]] | None:
    """Return a place beside each point where its label covers no label, point or whisker; None where there is none."""
    taken = [_box(xs(point.x.value) - 7, ys(point.y.value) - 7, 14, 14) for point in points]
    for point in points:
        x, y = xs(point.x.value), ys(point.y.value)
        taken.append((xs(point.x.low), y - 2, xs(point.x.high), y + 2))
        taken.append((x - 2, ys(point.y.high), x + 2, ys(point.y.low)))
    found = []
    for point, label in zip(points, labels, strict=True):
        box = _free(xs(point.x.value), ys(point.y.value), len(label) * CHARACTER_WIDTH, taken, xs, ys)
        if box is None:
            return None
        taken.append(box)
        found.append((label, box[0], box[1] + 13))
    return found


def _together(points: Sequence[Point], xs: Scale, ys: Scale) -> list[tuple[str, float, float]]:
    """Return one label for all points that lie on one another: their numbers, beside the first of them."""
    found: list[tuple[list[str], float, float]] = []
    for index, point in enumerate(points, start=1):
        x, y = xs(point.x.value), ys(point.y.value)
        near = next((place for place in found if abs(place[1] - x) < 24 and abs(place[2] - y) < 16), None)
        if near is None:
            found.append(([str(index)], x, y))
        else:
            near[0].append(str(index))
    return [(", ".join(names), min(x + 11, xs.end - len(names) * 2 * CHARACTER_WIDTH), y + 5) for names, x, y in found]


def _free(x: float, y: float, width: float, taken: Sequence[Box], xs: Scale, ys: Scale) -> Box | None:
    """Return the box of a label near a point that covers nothing; None where there is no such place."""
    for up in (0, -16, 16):
        for left in (x + 11, x - 11 - width, *((x - width / 2,) if up else ())):
            box = _box(left, y + up - 8, width, 16)
            inside = left >= xs.start and left + width <= xs.end and ys.end <= box[1] and box[3] <= ys.start
            if inside and not any(_overlap(box, other) for other in taken):
                return box
    return None


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x, y, x + width, y + height


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _span(marks: Sequence[Mark], *, logarithmic: bool, start: float, end: float) -> Scale:
    """Return a scale that shows all marks with their intervals, and some room around them."""
    low, high = min(mark.low for mark in marks), max(mark.high for mark in marks)
    if logarithmic:
        return Scale(low=low / 1.15, high=high * 1.15, start=start, end=end, logarithmic=True)
    margin = (high - low) * 0.08 or max(abs(high) * 0.01, 1e-6)
    return Scale(low=low - margin, high=high + margin, start=start, end=end)


def chart(name: str, title: str, description: str, height: float) -> Element:
    """Start a drawing with its title and description, which a screen reader tells."""
    labels = f"{name}-title {name}-description"
    drawing = Element("svg", {"viewBox": f"0 0 {WIDTH} {number(height)}", "role": "img", "aria-labelledby": labels})
    SubElement(drawing, "title", {"id": f"{name}-title"}).text = title
    SubElement(drawing, "desc", {"id": f"{name}-description"}).text = description
    return drawing


def drawn(drawing: Element) -> str:
    """Return a drawing as text; names in it are somebody else's."""
    for element in drawing.iter():
        element.text = element.text and printable(element.text)
    return tostring(drawing, encoding="unicode")


def line(drawing: Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    """Draw a line of a class."""
    SubElement(drawing, "line", at({"x1": x1, "y1": y1, "x2": x2, "y2": y2}, kind))


def _dot(drawing: Element, x: float, y: float, kind: str) -> None:
    SubElement(drawing, "circle", at({"cx": x, "cy": y, "r": 5}, f"dot {kind}"))


def text(drawing: Element, x: float, y: float, content: str, kind: str) -> Element:
    """Write a text of a class."""
    written = SubElement(drawing, "text", at({"x": x, "y": y}, kind))
    written.text = content
    return written


def at(positions: Mapping[str, float], kind: str) -> dict[str, str]:
    """Return the attributes of a shape: rounded positions and its class."""
    return {name: number(position) for name, position in positions.items()} | {"class": kind}


def short(label: str, room: int) -> str:
    """Return a label of so many characters: long names differ at their ends, so the middle goes."""
    if len(label) <= room:
        return label
    end = (room - 1) // 2
    return f"{label[: room - 1 - end]}…{label[len(label) - end :]}"


def number(value: float) -> str:
    """Write a position with one decimal."""
    return f"{value:.1f}".removesuffix(".0")
