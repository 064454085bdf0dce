"""Activation: how large the values are that a channel carries, whatever is done with them.

H. Hu et al., "Network trimming", 2016 (arXiv:1607.03250) and P. Molchanov et al., 2017 (arXiv:1611.06440), section 2.2.
"""

from __future__ import annotations

from onnxpress.graph import Array
from onnxpress.pruning.evidence import Seen

NEEDS = "inputs"


def score(_: Array, seen: Seen) -> Array:
    """Return the mean square of the input that each weight multiplies."""
    return seen.energy
