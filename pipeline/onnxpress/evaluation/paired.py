"""Intervals for the drop of a metric between two models, from the same samples.

Two models are judged on the same samples, so their errors go together; intervals that ignore this are several times too
wide. Proportions (top-1) use Newcombe's method 10, anything else the percentile bootstrap over samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Z95 = 1.959963984540054
BOOTSTRAPS = 2000


def newcombe(both: int, lost: int, won: int, neither: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two paired proportions, baseline minus candidate.

    R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired
    data", Statistics in Medicine 17 (1998), method 10.

    Args:
        both: Samples that both models get right.
        lost: Right for the baseline only.
        won: Right for the candidate only.
        neither: Wrong for both.
    """
    n = both + lost + won + neither
    first, second = (both + lost) / n, (both + won) / n
    low1, high1 = wilson(both + lost, n)
    low2, high2 = wilson(both + won, n)
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    product = float(both * neither - lost * won)
    if product > 0:
        product = max(product - n / 2, 0)  # continuity correction
    phi = product / math.sqrt(margins) if margins else 0.0
    down1, up1, down2, up2 = first - low1, high1 - first, second - low2, high2 - second
    difference = first - second
    below = math.sqrt(max(down1**2 - 2 * phi * down1 * up2 + up2**2, 0))
    above = math.sqrt(max(up1**2 - 2 * phi * up1 * down2 + down2**2, 0))
    return max(difference - below, -1.0), min(difference + above, 1.0)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion (E. B. Wilson, 1927)."""
    share, square = successes / n, Z95**2
    middle = share + square / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, (middle - half) / (1 + square / n)), min(1.0, (middle + half) / (1 + square / n))


def bootstrap(
    baseline: Array, candidate: Array, labels: Array, aggregate: Callable[[Array, Array], float], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of ``aggregate(baseline) - aggregate(candidate)``.

    B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993. Samples are drawn in pairs, `BOOTSTRAPS` times.
    """
    random = np.random.default_rng(seed)
    n = len(baseline)
    drops = []
    for _ in range(BOOTSTRAPS):
        chosen = random.integers(0, n, n)
        drops.append(aggregate(baseline[chosen], labels[chosen]) - aggregate(candidate[chosen], labels[chosen]))
    low, high = np.percentile(drops, [2.5, 97.5])
    return float(low), float(high)
