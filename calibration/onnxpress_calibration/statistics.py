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
from onnxpress_calibration.exact import ExactSum

Array = np.ndarray[Any, np.dtype[Any]]
BINS = 1 << 16
_HIGH_WORD = 1 if np.little_endian else 0


@dataclass(slots=True, kw_only=True)
class ChannelStatistics:
    """Minimum, maximum, mean and mean square of each channel of a tensor; independent of order and mergeable, too."""

    axis: int
    """Where the channels lie; negative counts from the end."""
    count: int = 0
    """Values seen of each channel."""
    low: Array = field(default_factory=lambda: np.empty(0, np.float32))
    """Exact minimum, float32 [channels]; empty as long as nothing was seen."""
    high: Array = field(default_factory=lambda: np.empty(0, np.float32))
    sums: ExactSum = field(default_factory=lambda: ExactSum.zeros(0))
    squares: ExactSum = field(default_factory=lambda: ExactSum.zeros(0))

    @property
    def peak(self) -> Array:
        """Largest magnitude, float32 [channels]."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def mean(self) -> Array:
        """Mean value, float64 [channels]."""
        return self.sums.values / max(self.count, 1)

    @property
    def mean_square(self) -> Array:
        """Mean of the squares, float64 [channels]."""
        return self.squares.values / max(self.count, 1)

    def update(self, values: Array) -> None:
        """Add one sample (float32, finite, with the channels on `axis`).

        Raises:
            DataError: the number of channels is another than before.
        """
        channels = values.shape[self.axis]
        if len(self.low) == 0:
            self._start(channels)
        if channels != len(self.low):
            raise DataError(f"has {channels} channels on axis {self.axis}, and had {len(self.low)} before")
        rows = np.moveaxis(values, self.axis, 0).reshape(channels, -1)
        self.count += rows.shape[1]
        self.low = np.minimum(self.low, rows.min(axis=1) + 0)  # + 0: of the two zeros always the same one
        self.high = np.maximum(self.high, rows.max(axis=1) + 0)
        self.sums.add(rows.sum(axis=1, dtype=np.float64))
        self.squares.add(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))

    def merge(self, other: ChannelStatistics) -> None:
        """Add what another shard of the data counted."""
        if len(other.low) == 0:
            return
        if len(self.low) == 0:
            self._start(len(other.low))
        self.count += other.count
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.sums.merge(other.sums)
        self.squares.merge(other.squares)

    def _start(self, channels: int) -> None:
        self.low, self.high = np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32)
        self.sums, self.squares = ExactSum.zeros(channels), ExactSum.zeros(channels)


@dataclass(slots=True, kw_only=True)
class TensorStatistics:
    """Minimum, maximum and histogram of all values a tensor took."""

    low: float = np.inf
    high: float = -np.inf
    counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Number of values whose upper 16 bits are the index, int64 [65536]."""
    channels: ChannelStatistics | None = None
    """Statistics by channel, where they were asked for."""

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
        low, high = float(flat.min()) + 0, float(flat.max()) + 0  # of the two zeros always the same one
        if not (np.isfinite(low) and np.isfinite(high)):  # NaN is the minimum of whatever holds it
            raise DataError("holds NaN or infinity")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.counts += np.bincount(flat.view(np.uint16)[_HIGH_WORD::2], minlength=BINS)
        if self.channels is not None:
            self.channels.update(flat.reshape(values.shape))

    def merge(self, other: TensorStatistics) -> None:
        """Add what another shard of the data counted."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.counts += other.counts
        if self.channels is not None and other.channels is not None:
            self.channels.merge(other.channels)

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
