"""Spearman: 100 x the rank correlation of the model's score with the label.

C. Spearman, "The proof and measurement of association between two things", 1904. Ties get their average rank.
"""

from __future__ import annotations

import numpy as np

from onnxpress.evaluation.metrics import Array, rows

UNIT = "x100"
SCALE = None


def score(output: Array | None, labels: Array) -> Array:
    """Return the model's one score per sample; ``output`` is [N] or [N, 1]."""
    return np.asarray(rows("spearman", output, labels)[:, 0], np.float64)


def aggregate(values: Array, labels: Array) -> float:
    """Return 100 x the correlation of the ranks; 0 when one side is constant."""
    mine, theirs = _ranks(values), _ranks(labels.reshape(-1))
    if mine.std() == 0 or theirs.std() == 0:
        return 0.0
    return float(100 * np.corrcoef(mine, theirs)[0, 1])


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
