"""Percentile: cut off the same share of values at both tails.

H. Wu et al., "Integer quantization for deep learning inference", 2020 (arXiv:2004.09602), section 5.
"""

from __future__ import annotations

import numpy as np

from onnxpress_calibration.statistics import Array, TensorStatistics

PERCENT = 99.99


def choose(statistics: TensorStatistics, *, levels: int, importance: Array | None = None) -> tuple[float, float]:  # noqa: ARG001 - the contract's
    """Return the range that leaves ``100 - PERCENT`` percent outside, half of it at each tail."""
    values, counts = statistics.histogram()
    share = np.cumsum(counts) / counts.sum()
    tail = (1 - PERCENT / 100) / 2
    low = values[np.searchsorted(share, tail, side="right")]
    high = values[min(int(np.searchsorted(share, 1 - tail)), len(values) - 1)]
    return float(low), float(high)
