"""Entropy: the threshold whose quantized distribution diverges least from the real one (Kullback-Leibler).

S. Migacz, "8-bit inference with TensorRT", GTC 2017: magnitudes in 2,048 linear bins; for each threshold, what lies
beyond is added to the last bin kept (P), the bins kept are merged into the levels of the grid and spread again over
those that were occupied (Q), and the threshold with the smallest KL(P ‖ Q) wins. Many tools call the same thing with as
many bins as levels, which leaves one threshold to try: min-max. So does a grid finer than the bins, of 16 bits.
"""

from __future__ import annotations

import numpy as np

from onnxpress_calibration.statistics import Array, TensorStatistics

BINS = 2048
STRIDE = 8
"""Thresholds are tried at every so many bins."""


def choose(statistics: TensorStatistics, *, levels: int, importance: Array | None = None) -> tuple[float, float]:  # noqa: ARG001 - the contract's
    """Return the range of the best threshold, inside what was seen."""
    peak = max(abs(statistics.low), abs(statistics.high))
    if peak == 0:
        return 0.0, 0.0
    steps = levels if statistics.low >= 0 else levels // 2  # a two-sided grid spends half of its levels on each side
    values, counts = statistics.histogram()
    index = np.minimum((np.abs(values) / peak * BINS).astype(int), BINS - 1)
    magnitudes = np.bincount(index, weights=counts * (values != 0), minlength=BINS)  # any grid keeps exact zeros
    if not magnitudes.any():  # what is not zero was too rare to be counted
        return statistics.low, statistics.high
    stops = np.arange(min(steps, BINS), BINS + 1, STRIDE)
    threshold = peak * stops[int(np.argmin(divergences(magnitudes, stops, steps)))] / BINS
    return max(min(statistics.low, 0.0), -threshold), min(max(statistics.high, 0.0), threshold)


def divergences(counts: Array, stops: Array, steps: int) -> Array:
    """Return KL(P ‖ Q) of keeping the first ``stops[i]`` bins on ``steps`` levels, all from prefix sums."""
    total, occupied, self_information = (
        np.concatenate([[0.0], np.cumsum(each)]) for each in (counts, counts > 0, _times_log(counts, counts))
    )
    edges = np.arange(steps + 1) * stops[:, None] // steps
    mass, cells = (np.diff(sums[edges], axis=1) for sums in (total, occupied))
    kept, last = total[stops], counts[stops - 1]
    beyond = total[-1] - kept
    spread = mass / np.maximum(cells, 1) / np.maximum(kept, 1)[:, None]  # Q in each occupied cell of a level
    # P may have its outliers where Q has nothing: a large but finite cost.
    at_last = np.where(last > 0, np.maximum(spread[:, -1], 1e-12), 1e-12)
    p_log_p = self_information[stops - 1] + _times_log(last + beyond, last + beyond)
    p_log_q = _times_log(mass, np.maximum(spread, 1e-12)).sum(axis=1) + beyond * np.log(at_last)
    divergence: Array = (p_log_p - p_log_q) / total[-1] - np.log(total[-1])
    return divergence


def _times_log(factor: Array, values: Array) -> Array:
    """Return ``factor · log(values)``, zero where the factor is."""
    product: Array = factor * np.log(np.where(factor > 0, values, 1.0))
    return product
