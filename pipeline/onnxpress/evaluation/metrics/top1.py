"""Top-1: the share of samples whose label has the highest score, or is the one that the model gives."""

from __future__ import annotations

import numpy as np

from onnxpress.evaluation.metrics import Array, rows
from onnxpress_calibration.dataset import TEXT

UNIT = "%"
SCALE = 100.0


def score(output: Array | None, labels: Array) -> Array:
    """Return 1.0 where the label is the arg max; ``output`` is [N, classes], or [N], no floats: labels themselves."""
    if output is not None and output.dtype.kind in TEXT + "iub" and output.shape in (labels.shape, (*labels.shape, 1)):
        return np.asarray(output.reshape(labels.shape) == labels, np.float64)
    return np.asarray(rows("top1", output, labels, classes=True).argmax(1) == labels, np.float64)


def aggregate(values: Array, labels: Array) -> float:  # noqa: ARG001 - the contract's
    """Return the share in percent."""
    return float(100 * values.mean())
