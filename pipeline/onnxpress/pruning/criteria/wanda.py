"""Wanda: the size of a weight times the norm of what it multiplies.

M. Sun et al., "A simple and effective pruning approach for large language models", 2024 (arXiv:2306.11695), section 3.
"""

from __future__ import annotations

import numpy as np

from onnxpress.graph import Array
from onnxpress.pruning.evidence import Seen

NEEDS = "inputs"


def score(weight: Array, seen: Seen) -> Array:
    """Return ``|w| · √E[x²]``."""
    return np.abs(weight) * np.sqrt(seen.energy)
