"""Taylor: how far setting a weight to zero moves the model's outputs, to first order.

P. Molchanov et al., "Importance estimation for neural network pruning", 2019 (arXiv:1906.10771), equation 8, with the
model's own outputs in place of a labelled loss (see `gradients`). Needs PyTorch.
"""

from __future__ import annotations

import numpy as np

from onnxpress.graph import Array
from onnxpress.pruning.evidence import Seen

NEEDS = "gradients"


def score(weight: Array, seen: Seen) -> Array:
    """Return ``(w · ∂f/∂w)²``."""
    return np.square(weight) * seen.derivative
