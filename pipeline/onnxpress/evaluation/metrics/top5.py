"""Top-5: the share of samples whose label is among the five highest scores."""

from __future__ import annotations

import numpy as np

from onnxpress.evaluation.metrics import Array, rows

UNIT = "%"
SCALE = 100.0
K = 5


def score(output: Array | None, labels: Array) -> Array:
    """Return 1.0 where fewer than five classes score above the label; ``output`` is [N, classes]."""
    flat = rows("top5", output, labels, classes=True)
    own = np.take_along_axis(flat, labels.reshape(-1, 1).astype(np.int64), axis=1)
    return np.asarray((flat > own).sum(1) < K, np.float64)


def aggregate(values: Array, labels: Array) -> float:  # noqa: ARG001 - the contract's
    """Return the share in percent."""
    return float(100 * values.mean())
