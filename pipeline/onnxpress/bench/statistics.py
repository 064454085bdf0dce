"""Statistics of timings: robust, paired, and silent where there is too little data to speak.

Runs of one process are autocorrelated and processes differ from each other, so a test on single runs cries wolf (an A/A
comparison fails it three times out of four). Everything that compares works on *paired blocks* instead: block ``i`` of
two models runs back to back on the same noisy machine, and ``d_i = ln(b_i / a_i)`` is one observation (duet
benchmarking: Bulej et al., ICPE 2020, arXiv:2001.05811). The estimate of the change is the Hodges-Lehmann median of the
Walsh averages of ``d``, its interval is the one that inverts Wilcoxon's signed-rank test (Hollander and Wolfe,
*Nonparametric Statistical Methods*, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from onnxpress.intervals import CONFIDENCE, place_above, student

Array = np.ndarray[Any, np.dtype[np.float64]]

EARLY_CONFIDENCE = 0.997
"""Of an interval that ends a measurement early: three standard errors. Looking k times before the end then adds at most
0.3% k to the 5% that the last look may err (Haybittle 1971, Peto et al. 1976)."""
MIN_PAIRS = 6
"""Below this, no 95% interval of the signed-rank test exists."""
MIN_BLOCKS = 30
"""Below this, the mean of blocks has no interval: the rare slow ones are not among them."""
MIN_PROCESSES = 3
"""Below this, nothing tells how much processes differ, and a comparison decides nothing."""
NOISE = 2.0
"""Design effects of five processes up to this come from chance in one of ten cases."""
STRETCHES = 10
"""Of time, at least, whose counts are compared."""
GAUSS_MAD = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95% confidence interval."""

    value: float
    low: float
    high: float
    count: int
    """How many observations it rests on."""

    def exp(self) -> Interval:
        """Return the interval of the exponential, for estimates made on logarithms."""
        return Interval(value=math.exp(self.value), low=math.exp(self.low), high=math.exp(self.high), count=self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """How many values lie outside Tukey's fences; they are counted, never dropped."""

    mild: int
    """Outside 1.5 interquartile ranges from the quartiles."""
    severe: int
    """Outside 3 (these are not counted as mild)."""


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return a percentile; None where there are too few values for it, see `minimal_count`."""
    if len(values) < minimal_count(percent / 100):
        return None
    return float(np.percentile(values, percent))


@cache
def minimal_count(share: float, confidence: float = CONFIDENCE) -> int:
    """Return how many values a percentile needs before it may be named.

    MLPerf's early-stopping rule with one discarded value: the smallest ``h + 1`` for which the regularized incomplete
    beta function ``I(p; h, 2) = p^h (1 + h (1 - p))`` is at most ``1 - confidence`` (mlcommons/inference,
    ``loadgen/early_stopping.cc``).

    Args:
        share: The percentile as a share, 0.99 for p99. The median and what lies below it need one value.
        confidence: 0.99 gives MLPerf's own counts: 64, 662 and 6,636 for p90, p99 and p99.9.

    """
    if share <= 0.5:
        return 1
    h = 1
    while share**h * (1 + h * (1 - share)) > 1 - confidence:
        h += 1
    return h + 1


def percentile_bounds(
    processes: Sequence[Sequence[Sequence[float]]], share: float, error: float = 1 - CONFIDENCE
) -> tuple[float, float]:
    """Return two values between which a percentile lies; the upper one errs at most so often, the lower half as often.

    Runs that follow each other are slow together: when other work comes, the clock falls or pages move. In the worst
    case all runs of a block are, so blocks are counted and not runs: of ``n`` blocks the upper end leaves as many runs
    above as ``t`` blocks have, for the largest ``t`` at which no more than ``t`` of ``n`` would be a surprise. Where
    processes differ more than their blocks, there are fewer still (`design_effect`).

    Args:
        processes: Durations, by process and by block.
        share: The percentile as a share, 0.99 for p99.
        error: How often the upper end may be wrong.

    Returns:
        Both ends; infinite where there are too few blocks, see `enough_blocks`, or fewer than `MIN_PROCESSES`.
    """
    if sum(map(bool, processes)) < MIN_PROCESSES:
        return -math.inf, math.inf
    blocks = [np.asarray(block, float) for blocks in processes for block in blocks]
    values = np.concatenate(blocks)
    weights = np.concatenate([np.full(len(block), 1 / len(block)) for block in blocks])
    usual = np.quantile(values, share)
    effect = design_effect([[float(np.mean(np.asarray(block) > usual)) for block in part] for part in processes])
    effect = effect if effect > NOISE else 1.0
    order = np.argsort(values, kind="stable")
    ends = []
    for places, part, wrong in ((order, 1 - share, error / 2), (order[::-1], share, error)):
        beyond = place_above(int(len(blocks) / effect), part, wrong)
        if beyond is None:
            ends.append(math.inf)
            continue
        left_out = int(np.searchsorted(np.cumsum(weights[places]), beyond * effect * (1 + 1e-9), side="right"))
        ends.append(float(values[places[min(left_out, len(values) - 1)]]))
    low, high = ends
    return -math.inf if math.isinf(low) else low, high


def enough_blocks(share: float, error: float = 1 - CONFIDENCE) -> int:
    """Return how many blocks bound a percentile from above: that none of them is slow must be a surprise."""
    return math.ceil(math.log(error) / math.log(share))


def guaranteed(values: Sequence[float], share: float, error: float = 1 - CONFIDENCE) -> float:
    """Return a value that a percentile of values in the order of time does not exceed; infinite where they are too few.

    Of independent values it is the one that so few exceed that it would be a surprise (MLPerf's early stopping,
    ``loadgen/early_stopping.cc``). Requests that wait in one queue are late together, so their number is divided by how
    many times larger the variance of a count is for it: of those above the percentile, above the middle of its tail,
    and above the median, over stretches of 1, 2, 4 … values, whichever is largest. A disturbance that did not come
    while they were taken cannot be known.
    """
    array = np.asarray(values, float)
    effect = max(_clustering(array > np.quantile(array, level)) for level in (0.5, share, (1 + share) / 2))
    place = place_above(int(len(array) / effect), share, error)
    return math.inf if place is None else float(np.sort(array)[len(array) - 1 - int(place * effect)])


def _clustering(marks: Array) -> float:
    """Return how many times larger the variance of a count over a stretch of time is than with independent marks."""
    share, length, effect = float(marks.mean()), 1, 1.0
    if not 0 < share < 1:
        return 1.0
    while len(marks) // length >= STRETCHES:
        counts = marks[: len(marks) // length * length].reshape(-1, length).sum(1)
        effect = max(effect, float(np.var(counts, ddof=1)) / (length * share * (1 - share)))
        length *= 2
    return effect


def mad(values: Sequence[float]) -> float:
    """Return the median absolute deviation, scaled to a normal distribution's standard deviation."""
    return GAUSS_MAD * float(np.median(np.abs(np.asarray(values) - np.median(values))))


def cov_pct(values: Sequence[float]) -> float | None:
    """Return the coefficient of variation in percent; None for a single value."""
    return None if len(values) < 2 else 100 * float(np.std(values, ddof=1) / np.mean(values))


def outliers(values: Sequence[float]) -> Outliers:
    """Count the values outside Tukey's inner and outer fences."""
    low, high = np.percentile(values, [25, 75])
    beyond = np.maximum(low - np.asarray(values), np.asarray(values) - high)
    severe = int(np.sum(beyond > 3 * (high - low)))
    return Outliers(mild=int(np.sum(beyond > 1.5 * (high - low))) - severe, severe=severe)


def center(groups: Sequence[Sequence[float]], confidence: float = CONFIDENCE) -> Interval:
    """Estimate the centre of a symmetric distribution from observations that come in groups (processes).

    The Hodges-Lehmann estimate and its Wilcoxon interval take all observations as independent. Those of one process are
    not: memory layout and placement move all of them together, by tenths of a percent to some percent. The half-widths
    are therefore multiplied by the square root of Kish's design effect, taken from the ranks: the mean square between
    groups over the total mean square, never below 1. That quotient is Kruskal and Wallis' ``H / (groups - 1)``. Where
    groups differ more than observations within one, that still holds in 81 to 91% of cases only, so the interval is
    never narrower than Student's on the groups' medians (medians, because a block that the host disturbed says nothing
    of its process). Together they hold in 94% and more (``benchmarks/statistics/coverage.py``).

    Args:
        groups: Observations, one sequence per group; at least `MIN_PAIRS` in all. With fewer than `MIN_PROCESSES` the
            interval holds for these groups, and says nothing of others.
        confidence: That the interval holds.

    Raises:
        ValueError: too few observations.

    """
    values = np.concatenate([np.asarray(group, dtype=float) for group in groups])
    critical = signed_rank_critical(len(values), confidence)
    if critical is None:
        raise ValueError(f"{len(values)} observations are too few for an interval of {confidence:.1%}")
    walsh = np.sort(walsh_averages(values))
    estimate = float(np.median(walsh))
    widen = math.sqrt(design_effect(groups))
    low, high = float(walsh[critical]), float(walsh[len(walsh) - 1 - critical])
    apart = _between(groups, confidence)
    return Interval(
        value=estimate,
        low=estimate - max(widen * (estimate - low), apart),
        high=estimate + max(widen * (high - estimate), apart),
        count=len(values),
    )


def _between(groups: Sequence[Sequence[float]], confidence: float) -> float:
    """Return the half-width of Student's interval on the medians of groups; 0 with fewer than `MIN_PROCESSES`."""
    medians = [float(np.median(group)) for group in groups if len(group)]
    if len(medians) < MIN_PROCESSES:
        return 0.0
    return student(confidence, len(medians) - 1) * float(np.std(medians, ddof=1)) / math.sqrt(len(medians))


def walsh_averages(values: Array) -> Array:
    """Return the means of all pairs of values, each value with itself too: [n (n + 1) / 2]."""
    i, j = np.triu_indices(len(values))
    averages: Array = (values[i] + values[j]) / 2
    return averages


@cache
def signed_rank_critical(count: int, confidence: float = CONFIDENCE) -> int | None:
    """Return Wilcoxon's two-sided critical value: the largest ``t`` with ``P(T+ <= t) <= (1 - confidence) / 2``.

    Exact for every count: ``T+`` takes a value as often as there are subsets of 1…n with that sum.

    Returns:
        The value, which is also the number of Walsh averages to leave out at each end of the interval (the interval
        then starts with the next one); None when there are too few observations for this confidence.

    """
    subsets = np.zeros(count * (count + 1) // 2 + 1)
    subsets[0] = 1
    for rank in range(1, count + 1):
        subsets[rank:] = (subsets[rank:] + subsets[:-rank]) / 2  # halved in each step: probabilities, no overflow
        subsets[:rank] /= 2
    within = np.flatnonzero(np.cumsum(subsets) <= (1 - confidence) / 2)
    return int(within[-1]) if len(within) else None


def design_effect(groups: Sequence[Sequence[float]]) -> float:
    """Return how many times larger the variance of a mean is because observations come in groups; at least 1."""
    filled = [group for group in groups if len(group)]
    if len(filled) < 2:
        return 1.0
    ranks = _ranks(np.concatenate([np.asarray(group, dtype=float) for group in filled]))
    total = float(np.var(ranks, ddof=1))
    if total == 0:
        return 1.0
    parts = np.split(ranks, np.cumsum([len(group) for group in filled])[:-1])
    between = sum(len(part) * (part.mean() - ranks.mean()) ** 2 for part in parts) / (len(parts) - 1)
    return max(1.0, float(between) / total)


def _ranks(values: Array) -> Array:
    """Return the ranks of values, from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
