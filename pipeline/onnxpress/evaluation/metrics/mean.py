"""Mean: the average of one number per sample, where higher is better, whatever a user's function computes."""

from __future__ import annotations

import numpy as np

from onnxpress.evaluation.metrics import Array, rows

UNIT = ""
SCALE: float | None = 1.0


def score(output: Array | None, labels: Array) -> Array:
    """Return the model's one number per sample; ``output`` is [N] or [N, 1]."""
    return np.asarray(rows("mean", output, labels)[:, 0], np.float64)


def aggregate(values: Array, labels: Array) -> float:  # noqa: ARG001 - the contract's
    """Return the mean."""
    return float(values.mean())
