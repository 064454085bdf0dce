"""Top-1: the share of samples whose label has the highest score."""

from __future__ import annotations

import numpy as np

from onnxpress.evaluation.metrics import Array

UNIT = "%"
SCALE = 100.0


def score(output: Array, labels: Array) -> Array:
    """Return 1.0 where the label is the arg max; ``output`` is [N, classes]."""
    return np.asarray(output.reshape(len(output), -1).argmax(1) == labels, np.float64)


def aggregate(values: Array, labels: Array) -> float:  # noqa: ARG001 - the contract's
    """Return the share in percent."""
    return float(100 * values.mean())
