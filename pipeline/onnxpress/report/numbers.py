"""Numbers with intervals, as every form of the report and the gate write them.

A ratio is always candidate ÷ baseline: below 1 means smaller or faster. A drop is always baseline − candidate: above 0
means worse. An interval is shown with as many decimals as it takes to see its width, and its number
with no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxpress.units import digits

NOT_MEASURED = "not measured"


def times(ratio: float) -> str:
    """``0.4837`` → ``0.48×``; small ratios keep two digits: ``0.0032×``."""
    if ratio == 0:
        return "0×"
    return f"{ratio:.{2 if ratio >= 0.095 else 3 if ratio >= 0.0095 else 4}f}×"


def times_within(ratio: float, interval: Sequence[float]) -> str:
    """``0.4837, (0.471, 0.4962)`` → ``0.48× [0.47, 0.50]``."""
    places = decimals(interval)
    return f"{ratio:.{places}f}× {bracket(interval, places)}"


def score(value: float, unit: str) -> str:
    """Write an accuracy in the unit of its metric: ``98.33%``, ``89.12 (×100)``, or ``0.8712`` for a user's own."""
    return {"%": f"{value:.2f}%", "x100": f"{value:.2f} (×100)"}.get(unit, digits(value, 4))


def drop_within(drop: float, interval: Sequence[float] | None, unit: str) -> str:
    """``0.278, (-0.6, 1.2), "%"`` → ``drop 0.28 [−0.60, 1.20] pp``; what is below zero is a gain."""
    places, suffix = (2, " pp") if unit in ("%", "x100") else (4, "")
    word, value, ends = "drop", drop, interval
    if round(drop, places) < 0:
        word, value, ends = "gain", -drop, interval and (-interval[1], -interval[0])
    within = f" {bracket(ends, places)}" if ends else ""
    return f"{word} {signed(value, places)}{within}{suffix}"


def points(value: float, unit: str) -> str:
    """Write a size of a drop in the unit of its metric: ``1.54 pp``."""
    return f"{value:.2f} pp" if unit in ("%", "x100") else digits(value, 3)


def bracket(interval: Sequence[float], places: int) -> str:
    """``(-0.6, 1.2), 1`` → ``[−0.6, 1.2]``."""
    low, high = interval
    return f"[{signed(low, places)}, {signed(high, places)}]"


def signed(value: float, places: int) -> str:
    """Write a number with a true minus sign, and never as minus zero."""
    text = f"{value:.{places}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def decimals(interval: Sequence[float]) -> int:
    """Return how many decimals show half the width of an interval: two at least, four at most."""
    low, high = interval
    return min(4, max(2, math.ceil(-math.log10((high - low) / 2)))) if high > low else 2


def ratio_interval(change_pct: Sequence[float]) -> tuple[float, float]:
    """``(-52.9, -50.4)`` percent → ``(0.471, 0.496)``."""
    low, high = change_pct
    return 1 + low / 100, 1 + high / 100


def needed(count: int, half_width: float, margin: float, *, power: int = 2) -> int | None:
    """Return about how many pairs or samples would decide, when the estimate stays where it is.

    Args:
        count: How many there are now.
        half_width: How far the interval reaches from the estimate towards the limit.
        margin: How far the limit lies from the estimate.
        power: 2, because an interval shrinks with the square root of the count; 1 where nothing differed in the
            sample, because the upper bound of a rate that was never seen shrinks with the count itself.

    Returns:
        The count, two digits exact; None when the estimate lies on the limit, where no count would do.

    """
    if margin <= 0 or half_width <= 0 or half_width > 1e9 * margin:
        return None
    ratio = half_width / margin
    exact = max(count + 1.0, count * math.pow(ratio, power)) if ratio < 1e9 else math.inf
    if exact > 1e9:
        return None
    step: int = 10 ** max(0, math.floor(math.log10(exact)) - 1)
    return math.ceil(exact / step) * step
