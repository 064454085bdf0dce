"""Intervals that evaluation and benchmark share: of a mean, whatever the shape of the values, and of a percentile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
CONFIDENCE = 0.95
Z95 = 1.959963984540054
_LARGE = 1000
"""Degrees of freedom beyond which Student's distribution is taken as with so many: wider by a thousandth."""
BOOTSTRAPS = 2000
SKEWED = 0.1
"""Skewness ÷ the square root of the count beyond which the end on the long tail's side is computed at `TAIL`."""
TAIL = 0.99
"""A sample of a skewed distribution mostly lacks its tail, and looks steadier than it is: studentising alone leaves 5
to 10 % of false passes on lognormal values, this 1 to 5 %."""
GROUPS = 500
"""Of values, at most: more are averaged in so many groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """A 95 % interval, or why there is none."""

    low: float = -math.inf
    high: float = math.inf
    why: str = ""

    @property
    def ci95(self) -> list[float] | None:
        """Both ends; None where there is no interval."""
        return None if self.why else [self.low, self.high]


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


@cache
def share_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a proportion.

    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934). Wilson's is shorter, but one failure in a hundred excludes 99.9 %.
    """
    error = (1 - CONFIDENCE) / 2

    def solved(a: int, b: int, chance: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _incomplete_beta(middle, a, b) < chance else (low, middle)
        return high

    low = 0.0 if successes == 0 else solved(successes, count - successes + 1, error)
    high = 1.0 if successes == count else solved(successes + 1, count - successes, 1 - error)
    return low, high


def _incomplete_beta(x: float, a: int, b: int) -> float:
    """Return the regularized incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    if x <= 0:
        return 0.0
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    value, upper, lower = 1.0, 1.0, 0.0  # Lentz's method
    for step in range(1, 10_000):
        half = step // 2
        term = (
            half * (b - half) * x / ((a + step - 1) * (a + step))
            if step % 2 == 0
            else -(a + half) * (a + b + half) * x / ((a + step - 1) * (a + step))
        )
        lower = 1 / (1 + term * lower or 1e-300)
        upper = 1 + term / upper or 1e-300
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-14:
            break
    return math.exp(logarithm) / (a * value)


def student_interval(values: Sequence[float] | Array, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Student's interval of the mean of independent values, two at least."""
    half = student(confidence, len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    centre = float(np.mean(values))
    return centre - half, centre + half


def mean_interval(parts: Array, centre: float) -> Ends:
    """Return the interval of a mean: the wider of Student's and the studentised bootstrap's.

    P. Hall, "Theoretical comparison of bootstrap confidence intervals", Annals of Statistics 16 (1988). The bootstrap
    follows the skewness of the values, which Student's interval ignores; where they are skewed, the end on the side of
    the long tail is computed at `TAIL`.

    Args:
        parts: What independent samples, or groups of them, contribute [N].
        centre: The statistic that they add up to.
    """
    if not np.isfinite(parts).all():
        return Ends(why="some of the values are no finite numbers")
    if len(parts) > GROUPS:
        parts = np.array([parts[group::GROUPS].mean() for group in range(GROUPS)])
    count = len(parts)
    away = parts - parts.mean()
    spread = float(away.std(ddof=1))
    if spread <= 1e-9 * max(1e-300, float(np.abs(parts).max())):
        return Ends(why="all samples differ by the same, which tells nothing of how others would")
    error = spread / math.sqrt(count)
    skew = float((away**3).mean()) / float(away.std()) ** 3 / math.sqrt(count)
    below, above = (TAIL if sign * skew > SKEWED else CONFIDENCE for sign in (-1, 1))
    found = _studentised(away)
    highest, lowest = np.quantile(found, [(1 + below) / 2, (1 - above) / 2], method="inverted_cdf")
    low = centre - error * max(student(below, count - 1), float(highest))
    high = centre + error * max(student(above, count - 1), -float(lowest))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Ends(why=f"a few of {count} samples decide everything: about {2 * count} may tell")
    return Ends(low=low, high=high)


def _studentised(away: Array) -> Array:
    """Return the t statistics of resampled means, [BOOTSTRAPS]; ``away`` has the mean 0."""
    count, drawn = len(away), _resamples(len(away))
    means = drawn @ away / count
    errors = np.sqrt(np.maximum(drawn @ away**2 / count - means**2, 0) / (count - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((errors == 0) & (means == 0), 0.0, means / errors)


@lru_cache(maxsize=4)
def _resamples(count: int) -> Array:
    """Return how often each of so many values is drawn, in each resample: [BOOTSTRAPS, count]; always the same."""
    drawn = np.random.default_rng(0).integers(0, count, (BOOTSTRAPS, count))
    places = drawn + count * np.arange(BOOTSTRAPS)[:, None]
    return np.bincount(places.ravel(), minlength=BOOTSTRAPS * count).reshape(BOOTSTRAPS, count).astype(np.float64)
