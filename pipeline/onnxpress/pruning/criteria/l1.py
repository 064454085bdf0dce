"""L1 norm: the sum of absolute weights.

H. Li et al., "Pruning filters for efficient ConvNets", 2017 (arXiv:1608.08710), section 3.1.
"""

from __future__ import annotations

import numpy as np

from onnxpress.graph import Array
from onnxpress.pruning.evidence import Seen

NEEDS = "nothing"


def score(weight: Array, _: Seen) -> Array:
    """Return ``|w|``."""
    return np.abs(weight)
