"""Intervals for the drop of a metric between two models, from the same samples.

Two models are judged on the same samples, so their errors go together; intervals that ignore this are several times too
wide. Samples that are right or wrong get Tango's score interval. All else gets a studentised bootstrap of what each
sample contributes, and no interval where too few samples differ: what was not seen cannot be resampled.
How often each holds is simulated by ``benchmarks/statistics/coverage.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxpress.evaluation.metrics import Metric
from onnxpress.intervals import CONFIDENCE, GROUPS, Z95, Ends, mean_interval, place_above, share_interval

Array = np.ndarray[Any, np.dtype[Any]]
LEAST_SAMPLES, LEAST_CHANGES = 30, 10
"""Samples, and samples among them that differ, below which a mean gets no interval."""


def tango(lost: int | Array, won: int | Array, count: int | Array, z: float = Z95) -> tuple[Array, Array]:
    """Return the score interval of the difference of two paired proportions, baseline minus candidate.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17 (1998): all differences that the score test does not reject. Found by bisection.

    Args:
        lost: Samples that only the baseline gets right; arrays give an interval for each entry.
        won: Samples that only the candidate gets right.
        count: All samples.
        z: Quantile of the normal distribution: `Z95` for 95 %.
    """
    b, c, n = (np.asarray(each, np.float64) for each in np.broadcast_arrays(lost, won, count))

    def kept(difference: Array) -> Array:
        """Tell whether the score test does not reject a difference."""
        first = -b - c + (2 * n - b + c) * difference
        second = -c * difference * (1 - difference)
        share = (np.sqrt(np.maximum(first**2 - 8 * n * second, 0)) - first) / (4 * n)  # won, under the hypothesis
        variance = np.maximum(n * (2 * share + difference * (1 - difference)), 0)
        within: Array = np.abs(b - c - n * difference) <= z * np.sqrt(variance)
        return within

    ends = []
    for side in (-1.0, 1.0):
        inside, outside = (b - c) / n, np.full(b.shape, side)
        for _ in range(60):
            middle = (inside + outside) / 2
            within = kept(middle)
            inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
        ends.append(outside)
    return ends[0], ends[1]


def wilson(successes: float, count: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion (E. B. Wilson, 1927)."""
    share, square = successes / count, z**2
    middle = share + square / (2 * count)
    half = z * math.sqrt(max(0.0, share * (1 - share)) / count + square / (4 * count * count))
    return max(0.0, (middle - half) / (1 + square / count)), min(1.0, (middle + half) / (1 + square / count))


def either_interval(values: Array, worse: float, better: float) -> tuple[float, float]:
    """Return the interval of the mean of values of which each is one of two."""
    low, high = share_interval(int((values == better).sum()), len(values))
    return worse + (better - worse) * low, worse + (better - worse) * high


def two_values(baseline: Array, candidate: Array) -> tuple[float, float] | None:
    """Return the two values that all samples have, the worse first; None where there are others.

    0 and 1 always count, seen or not. Other values count where each is seen `LEAST_CHANGES` times or more: fewer may
    be two of many.
    """
    values, counts = np.unique(np.concatenate([baseline, candidate]), return_counts=True)
    if np.isin(values, (0, 1)).all():
        return 0.0, 1.0
    if len(values) == 2 and np.isfinite(values).all() and counts.min() >= LEAST_CHANGES:
        return float(values[0]), float(values[1])
    return None


def drop_interval(baseline: Array, candidate: Array, labels: Array, metric: Metric) -> Ends:
    """Return the interval of a metric's drop, baseline minus candidate.

    Args:
        baseline: One number per sample [N].
        candidate: The same samples' numbers [N].
        labels: Of the samples [N, …].
        metric: Turns numbers and labels into one number: a mean, a correlation.
    """
    changed = int(np.count_nonzero(baseline != candidate))
    why = _too_few(len(baseline), changed, "differ between the models")
    if why:
        return Ends(why=why)
    parts = contributions(baseline, labels, metric) - contributions(candidate, labels, metric)
    return mean_interval(parts, metric.aggregate(baseline, labels) - metric.aggregate(candidate, labels))


def value_interval(values: Array, labels: Array, metric: Metric) -> Ends:
    """Return the interval of a metric for one model, as `drop_interval` does for two."""
    _, counts = np.unique(values, return_counts=True)
    why = _too_few(len(values), len(values) - int(counts.max()), "differ from the rest")
    if why:
        return Ends(why=why)
    return mean_interval(contributions(values, labels, metric), metric.aggregate(values, labels))


def percentile_interval(values: Array, share: float) -> Ends:
    """Return the interval of a percentile of independent values: two of the sorted values, from the binomial law."""
    error, ordered, count = (1 - CONFIDENCE) / 2, np.sort(values), len(values)
    above, below = place_above(count, share, error), place_above(count, 1 - share, error)
    if above is None or below is None:
        least = math.ceil(math.log(error) / math.log(max(share, 1 - share)))
        return Ends(why=f"{count} samples do not bound a {100 * share:g} % point: {least} are needed")
    return Ends(low=float(ordered[below]), high=float(ordered[count - 1 - above]))


def contributions(values: Array, labels: Array, metric: Metric) -> Array:
    """Return what each sample adds to a metric: to a mean its value, else the jackknife's pseudo-value.

    M. H. Quenouille, 1956; J. W. Tukey, 1958. With more than `GROUPS` samples, groups of them are left out.
    """
    if metric.SCALE is not None:
        return metric.SCALE * values
    count = len(values)
    groups = min(count, GROUPS)
    whole, kept = metric.aggregate(values, labels), np.ones(count, bool)
    found = np.empty(groups)
    for group in range(groups):
        kept[group::groups] = False
        found[group] = groups * whole - (groups - 1) * metric.aggregate(values[kept], labels[kept])
        kept[group::groups] = True
    return found


def _too_few(count: int, changed: int, differ: str) -> str:
    """Say what is too little for an interval; empty where it is enough."""
    if changed >= LEAST_CHANGES and count >= LEAST_SAMPLES:
        return ""
    if changed == 0:
        return f"none of {count} samples {differ}: nothing shows how much others would"
    needed = max(LEAST_SAMPLES, math.ceil(count * LEAST_CHANGES / changed))
    return f"only {changed} of {count} samples {differ}, too few for an interval: about {needed} would do"
