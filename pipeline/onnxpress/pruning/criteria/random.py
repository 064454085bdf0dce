"""Random: the baseline that every other criterion must beat. The same weights always get the same scores."""

from __future__ import annotations

import zlib

import numpy as np

from onnxpress.graph import Array
from onnxpress.pruning.evidence import Seen

NEEDS = "nothing"


def score(weight: Array, _: Seen) -> Array:
    """Return one number from 0 to 1 for each weight."""
    generator = np.random.default_rng(zlib.crc32(np.ascontiguousarray(weight).tobytes()))
    return generator.random(weight.size).reshape(weight.shape)
