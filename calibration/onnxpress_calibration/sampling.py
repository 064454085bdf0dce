"""Which values of a large tensor are counted: all of the tails, and of the rest one in each of equally long stretches.

Clipping is decided by few large values, which often sit at the same place in every sample (one channel of one token,
say), so those are never left to chance. Of the many others a choice is enough; each stands for all of its stretch.
The choice depends on nothing but the values of the sample itself, so that neither the order of the samples nor the
batch can change it. Minimum, maximum and sums always take every value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
LARGE = 1 << 16
"""A tensor with at least so many values a sample is large; counting all of a smaller one costs no more."""
LIMIT = 1 << 13
"""Values that are counted of each sample of a large tensor, besides the tails."""
TAIL = 1 / 64
"""Largest share of the values that counts as tails; their bound is a power of two, so that rounding rarely moves it."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ divided by the golden ratio: its multiples are spread evenly (D. Knuth, TAOCP 3, section 6.4)."""


def split(values: Array, low: float) -> tuple[int, Array, Array]:
    """Return how many values each of the chosen ones stands for, those, and the tails.

    Args:
        values: One sample of a tensor, finite float32 [n], at least `LARGE`.
        low: None of them is below this.
    """
    stretch = len(values) // LIMIT
    chosen = values.take(positions(len(values), stretch))
    exponents = chosen.view(np.uint32) >> np.uint32(23) & np.uint32(0xFF)  # of the magnitude, plus 127
    at_least = np.cumsum(np.bincount(exponents, minlength=256)[::-1])[::-1]
    first = int(np.argmax(at_least <= TAIL * len(chosen)))  # there is one: no finite value has the exponent 255
    bound = np.uint32(first << 23).view(np.float32)  # 2^(first - 127)
    tails = values >= bound
    if low <= -bound:  # behind a Relu there is nothing to be seen
        tails |= values <= -bound
    return stretch, chosen[exponents < first], values.take(np.flatnonzero(tails))


@lru_cache(maxsize=256)
def positions(count: int, stretch: int) -> Array:
    """Return one position in each stretch of so many among ``count`` values, int64 [count // stretch]."""
    starts = np.arange(count // stretch, dtype=np.uint64)
    offsets = (starts * _GOLDEN >> np.uint64(32)) * np.uint64(stretch) >> np.uint64(32)  # without a period
    return (starts * np.uint64(stretch) + offsets).astype(np.int64)
