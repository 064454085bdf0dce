"""Mean squared error: the range whose rounding and clipping errors, added, are smallest.

S. Shin, K. Hwang, W. Sung, "Fixed-point performance analysis of recurrent neural networks", 2016 (arXiv:1512.01322);
R. Banner et al., "Post training 4-bit quantization", 2019 (arXiv:1810.05723).

Per value, with step ``s``: clipping costs the squared distance to the range, a value within ``s / 2`` of zero becomes
zero and costs its square, and any other costs ``s² / 12``, the variance of uniform rounding. With prefix sums over the
histogram a range costs a few look-ups, so all pairs of ends are tried.
"""

from __future__ import annotations

import numpy as np

from onnxpress_calibration.statistics import Array, TensorStatistics

SHRINK = np.linspace(1.0, 0.1, 91)
"""Each end of the range is tried at these fractions of the extreme value."""


def choose(statistics: TensorStatistics, *, levels: int, importance: Array | None = None) -> tuple[float, float]:  # noqa: ARG001 - the contract's
    """Return the best of all pairs of a lower and an upper end."""
    lows = min(statistics.low, 0.0) * (SHRINK if statistics.low < 0 else SHRINK[:1])  # zero must lie on the grid
    highs = max(statistics.high, 0.0) * (SHRINK if statistics.high > 0 else SHRINK[:1])
    low, high = (ends.reshape(-1) for ends in np.meshgrid(lows, highs))
    rounding, clipping = errors(statistics, low, high, levels)
    best = int(np.argmin(rounding + clipping))
    return float(low[best]), float(high[best])


def errors(statistics: TensorStatistics, low: Array, high: Array, levels: int) -> tuple[Array, Array]:
    """Return the summed squared errors of rounding and of clipping, of each range (low[i], high[i]) around zero."""
    values, counts = statistics.histogram()
    moments = [np.concatenate([[0.0], np.cumsum(counts * values**power)]) for power in range(3)]

    def squares(start: Array, stop: Array, center: Array | float) -> Array:
        """Sum ``(x - center)²`` over the values with these indices."""
        zeroth, first, second = (moment[stop] - moment[start] for moment in moments)
        total: Array = second - 2 * center * first + center**2 * zeroth
        return total

    step = (high - low) / (levels - 1)
    first, last = np.searchsorted(values, low), np.searchsorted(values, high, side="right")
    near = np.clip(np.searchsorted(values, [-step / 2, step / 2]), first, last)
    ends = np.zeros_like(first), np.full_like(first, len(values))
    rounded = (moments[0][last] - moments[0][first]) - (moments[0][near[1]] - moments[0][near[0]])
    clipped = squares(ends[0], first, low) + squares(last, ends[1], high)
    return squares(near[0], near[1], 0.0) + rounded * step**2 / 12, clipped
