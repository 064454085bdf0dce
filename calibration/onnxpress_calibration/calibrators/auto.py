"""Auto: of the ranges that the other calibrators choose, the one that loses least on the output of the layers behind.

An error ``e`` of a layer's input costs ``‖W e‖²`` at its output. With errors that are independent between channels that
is the sum over channels of ``importance[c] · e[c]²``, where ``importance[c]`` is the squared norm of the weights that
read channel ``c``: the diagonal of the Gram matrix, as in M. Nagel et al., "Up or down? Adaptive rounding for
post-training quantization", 2020 (arXiv:2004.10568), section 3. Rounding hits all channels alike; clipping hits those
whose extremes lie outside of the range, each by the square of what sticks out.
"""

from __future__ import annotations

import numpy as np

from onnxpress_calibration.calibrators import entropy, minmax, mse, percentile
from onnxpress_calibration.statistics import Array, TensorStatistics

OTHERS = (mse, minmax, percentile, entropy)


def choose(statistics: TensorStatistics, *, levels: int, importance: Array | None = None) -> tuple[float, float]:
    """Return the best of the others' ranges.

    Args:
        statistics: Of the tensor; by channel where ``importance`` is to matter.
        levels: Steps of the grid.
        importance: Squared norm of the weights that read each channel, float [channels].
    """
    ranges = np.array([calibrator.choose(statistics, levels=levels) for calibrator in OTHERS], np.float64)
    low, high = np.minimum(ranges[:, 0], 0.0), np.maximum(ranges[:, 1], 0.0)
    rounding, clipping = mse.errors(statistics, low, high, levels)
    weight = np.ones(len(OTHERS))
    channels = statistics.channels
    if importance is not None and channels is not None and len(channels.low) == len(importance):
        outside = np.maximum(low[:, None] - channels.low, 0) ** 2 + np.maximum(channels.high - high[:, None], 0) ** 2
        weight = (outside * importance).sum(axis=1) / np.maximum(outside.sum(axis=1), 1e-300)
        weight /= max(float(importance.mean()), 1e-300)
    best = int(np.argmin(rounding + clipping * weight))
    return float(low[best]), float(high[best])
