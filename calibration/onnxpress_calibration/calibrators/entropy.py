"""Entropy: the threshold whose quantized distribution diverges least from the real one (Kullback-Leibler).

S. Migacz, "8-bit inference with TensorRT", GTC 2017: magnitudes in 2,048 linear bins; for each threshold, what lies
beyond is added to the last bin kept (P), the bins kept are merged into the levels of the grid and spread again over
those that were occupied (Q), and the threshold with the smallest KL(P ‖ Q) wins. Many tools call the same thing with as
many bins as levels, which leaves one threshold to try: min-max.
"""

from __future__ import annotations

import numpy as np

from onnxpress_calibration.statistics import Array, TensorStatistics

BINS = 2048
STRIDE = 8
"""Thresholds are tried at every so many bins."""


def choose(statistics: TensorStatistics, *, levels: int) -> tuple[float, float]:
    """Return the range of the best threshold, inside what was seen."""
    peak = max(abs(statistics.low), abs(statistics.high))
    if peak == 0:
        return 0.0, 0.0
    steps = levels if statistics.low >= 0 else levels // 2  # a two-sided grid spends half of its levels on each side
    counts = _magnitudes(statistics, peak)
    stops = np.arange(min(steps, BINS), BINS + 1, STRIDE)
    divergences = [divergence(counts, int(stop), steps) for stop in stops]
    threshold = peak * stops[int(np.argmin(divergences))] / BINS
    return max(min(statistics.low, 0.0), -threshold), min(max(statistics.high, 0.0), threshold)


def divergence(counts: Array, stop: int, steps: int) -> float:
    """Return KL(P ‖ Q) of keeping the first ``stop`` bins on ``steps`` levels."""
    kept = counts[:stop].copy()
    edges = (np.arange(steps) * stop) // steps
    occupied = kept > 0
    merged = np.add.reduceat(kept, edges)
    share = merged / np.maximum(np.add.reduceat(occupied.astype(float), edges), 1)
    spread = np.where(occupied, np.repeat(share, np.diff([*edges, stop])), 0)
    kept[-1] += counts[stop:].sum()
    p, q = kept / kept.sum(), spread / max(spread.sum(), 1)
    q = np.maximum(q, 1e-12)  # P may have its outliers where Q has nothing: a large but finite cost
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def _magnitudes(statistics: TensorStatistics, peak: float) -> Array:
    """Return the histogram of absolute values in `BINS` linear bins, without exact zeros (any grid keeps those)."""
    values, counts = statistics.histogram()
    index = np.minimum((np.abs(values) / peak * BINS).astype(int), BINS - 1)
    nonzero = values != 0
    return np.bincount(index[nonzero], weights=counts[nonzero], minlength=BINS)
