"""Mean squared error: the range whose rounding and clipping errors, added, are smallest.

S. Shin, K. Hwang, W. Sung, "Fixed-point performance analysis of recurrent neural networks", 2016 (arXiv:1512.01322);
R. Banner et al., "Post training 4-bit quantization", 2019 (arXiv:1810.05723). The error of a range follows from the
histogram alone: each value is rounded to the grid of that range and compared with itself.
"""

from __future__ import annotations

import numpy as np

from onnxpress_calibration.statistics import Array, TensorStatistics

SHRINK = np.linspace(1.0, 0.2, 65)
"""Each end of the range is tried at these fractions of the extreme value."""


def choose(statistics: TensorStatistics, *, levels: int) -> tuple[float, float]:
    """Search the upper end, then the lower end given the upper, twice."""
    values, weights = statistics.samples()
    low, high = min(statistics.low, 0.0), max(statistics.high, 0.0)  # zero must lie on the grid
    ends = low, high
    for _ in range(2):
        if high > 0:
            ends = (
                ends[0],
                high * SHRINK[np.argmin([_error(values, weights, ends[0], high * s, levels) for s in SHRINK])],
            )
        if low < 0:
            ends = low * SHRINK[np.argmin([_error(values, weights, low * s, ends[1], levels) for s in SHRINK])], ends[1]
        if low == 0 or high == 0:
            break  # one end only: nothing to alternate
    return float(ends[0]), float(ends[1])


def _error(values: Array, weights: Array, low: float, high: float, levels: int) -> float:
    """Return the summed squared error of quantizing ``values`` to ``levels`` steps between low and high."""
    step = (high - low) / (levels - 1)
    if step == 0:
        return float(np.dot(weights, values * values))
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, levels - 1) - zero) * step
    error = values - rounded
    return float(np.dot(weights, error * error))
