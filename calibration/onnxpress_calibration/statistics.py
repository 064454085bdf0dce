"""Activation statistics of one tensor, from which every range is computed afterwards.

The upper 16 bits of a float32 are its sign, its exponent and 7 bits of its mantissa: a logarithmic grid of 65,536 bins,
2⁻⁷ wide relative to the value, which needs no range known beforehand. Counting into that grid is a single pass, takes
memory that does not grow with the data, and is integer addition: the same samples give the same bits in any order, in
any batch size and from any number of merged shards. Exact minimum and maximum are kept beside the counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from onnxpress_calibration.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]
BINS = 1 << 16
_HIGH_WORD = 1 if np.little_endian else 0


@dataclass(slots=True, kw_only=True)
class TensorStatistics:
    """Minimum, maximum and histogram of all values a tensor took."""

    low: float = np.inf
    high: float = -np.inf
    counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Number of values whose upper 16 bits are the index, int64 [65536]."""

    @property
    def count(self) -> int:
        """Number of values seen."""
        return int(self.counts.sum())

    def update(self, values: Array) -> None:
        """Count the values of one batch (float32 or float16, any shape; an empty one changes nothing).

        Raises:
            DataError: a value is NaN or infinite; the caller knows which tensor and sample it was.
        """
        if values.size == 0:
            return
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):  # NaN is the minimum of whatever holds it
            raise DataError("holds NaN or infinity")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.counts += np.bincount(flat.view(np.uint16)[_HIGH_WORD::2], minlength=BINS)

    def merge(self, other: TensorStatistics) -> None:
        """Add what another shard of the data counted."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.counts += other.counts

    def histogram(self) -> tuple[Array, Array]:
        """Return (values float64 [n] ascending, counts int64 [n]) of the occupied bins.

        A bin's value is its middle, clipped to the exact minimum and maximum.
        """
        values, order = _grid()
        counts = self.counts[order]
        occupied = counts > 0
        return np.clip(values[order][occupied], self.low, self.high), counts[occupied]


@cache
def _grid() -> tuple[Array, Array]:
    """Return the middle of each bin, float64 [65536], and the finite bins in ascending order of value."""
    bits = (np.arange(BINS, dtype=np.uint32) << np.uint32(16)) | np.uint32(0x8000)
    bits[[0, BINS // 2]] = [0, BINS // 2 << 16]  # zeros (of either sign) fill their bins: keep them exact
    with np.errstate(invalid="ignore"):
        values = bits.view(np.float32).astype(np.float64)
    order = np.argsort(values, kind="stable")
    return values, order[np.isfinite(values[order])]
