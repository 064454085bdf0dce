"""Which values of a large tensor are counted: a fixed choice of positions, one in each of equally long stretches.

Minimum, maximum and sums always take every value; only the histogram makes do with `LIMIT` values of each sample, from
which shares and errors follow as well. The choice depends on nothing but the number of values a sample has, so that
neither the order of the samples nor the batch can change it, and it has no period that a row length could hit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
LIMIT = 1 << 14
"""Values counted of each sample of a tensor."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ divided by the golden ratio: its multiples are spread evenly (D. Knuth, TAOCP 3, section 6.4)."""


@lru_cache(maxsize=256)
def positions(count: int) -> Array:
    """Return `LIMIT` ascending positions among ``count`` values, int64; ``count`` must not be smaller."""
    stretch = np.arange(LIMIT, dtype=np.uint64)
    starts, stops = stretch * np.uint64(count) // np.uint64(LIMIT), (stretch + 1) * np.uint64(count) // np.uint64(LIMIT)
    hashed = stretch * _GOLDEN >> np.uint64(40)  # 24 bits
    return (starts + (hashed * (stops - starts) >> np.uint64(24))).astype(np.int64)
