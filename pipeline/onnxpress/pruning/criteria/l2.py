"""L2 norm: the sum of squared weights, which orders channels as their Euclidean norm does."""

from __future__ import annotations

import numpy as np

from onnxpress.graph import Array
from onnxpress.pruning.evidence import Seen

NEEDS = "nothing"


def score(weight: Array, _: Seen) -> Array:
    """Return ``w²``."""
    return np.square(weight)
