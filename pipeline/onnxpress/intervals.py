"""What every interval rests on: Student's distribution, and which of the sorted values bound a percentile."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

CONFIDENCE = 0.95
Z95 = 1.959963984540054
_LARGE = 1000
"""Degrees of freedom beyond which Student's distribution is taken as with so many: wider by a thousandth."""


@cache
def student(confidence: float, freedom: int) -> float:
    """Return the two-sided quantile of Student's t distribution: ``P(|T| <= t) = confidence``.

    The probability is the finite sum of M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 26.7.3 and
    26.7.4; it is inverted by bisection.
    """
    freedom = min(freedom, _LARGE)

    def probability(t: float) -> float:
        angle = math.atan2(t, math.sqrt(freedom))
        sine, square = math.sin(angle), math.cos(angle) ** 2
        if freedom % 2:
            term, total = math.cos(angle), 0.0
            for step in range(1, freedom - 1, 2):
                total += term
                term *= square * (step + 1) / (step + 2)
            return 2 / math.pi * (angle + sine * total)
        term, total = 1.0, 0.0
        for step in range(0, freedom - 1, 2):
            total += term
            term *= square * (step + 1) / (step + 2)
        return sine * total

    low, high = NormalDist().inv_cdf((1 + confidence) / 2), 2.0
    while probability(high) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < confidence else (low, middle)
    return high


@cache
def place_above(count: int, share: float, error: float) -> int | None:
    """Return how many of ``count`` independent values may lie above one that a percentile hardly exceeds.

    The largest ``t`` with ``P(Binomial(count, 1 - share) <= t) <= error``: were the percentile higher than the value
    above which ``t`` lie, so few above it would be a surprise.

    Returns:
        ``t``; None where even none above would be no surprise.
    """
    total, whole = 0.0, math.lgamma(count + 1)
    for place in range(count + 1):
        ways = whole - math.lgamma(place + 1) - math.lgamma(count - place + 1)
        total += math.exp(ways + place * math.log(1 - share) + (count - place) * math.log(share))
        if total > error:
            return place - 1 if place else None
    return count
