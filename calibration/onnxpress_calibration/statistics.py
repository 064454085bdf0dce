"""Activation statistics of one tensor, from which every range is computed afterwards.

The upper 16 bits of a float32 are its sign, its exponent and 7 bits of its mantissa: a logarithmic grid of 65,536 bins,
2⁻⁷ wide relative to the value, which needs no range known beforehand. Counting into that grid is a single pass, takes
memory that does not grow with the data, and is integer addition: the same samples give the same bits in any order, in
any batch size and from any number of merged shards. Exact minimum and maximum are kept beside the counts.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from onnxpress_calibration import sampling
from onnxpress_calibration.channels import ChannelStatistics, span

Array = np.ndarray[Any, np.dtype[Any]]
BINS = 1 << 16
MOST_COUNT = 1 << 62
"""Counts stay below: two of them can be added."""
FLOAT32_MAX = float(np.finfo(np.float32).max)
_HIGH_WORD = 1 if np.little_endian else 0


class TensorStatistics:
    """Minimum, maximum and histogram of the values a tensor took."""

    __slots__ = ("_counts", "_held", "_waiting", "channels", "high", "low")

    def __init__(self, *, channels: ChannelStatistics | None = None) -> None:
        self.low = np.inf
        """Exact minimum of all values."""
        self.high = -np.inf
        self.channels = channels
        """Statistics by channel, where they were asked for."""
        self._counts = np.zeros(BINS, np.int64)
        self._waiting: dict[int, list[Array]] = {}
        self._held = 0

    @classmethod
    def restored(cls, low: float, high: float, bins: Array, counts: Array) -> TensorStatistics:
        """Return statistics from the occupied bins, in ascending order, and how often each was counted.

        Raises:
            ValueError: no values can have been counted like this.
        """
        made = cls()
        if len(bins) == 0 and (low, high) == (made.low, made.high):
            return made
        if not len(bins) or not -FLOAT32_MAX <= low <= high <= FLOAT32_MAX:
            raise ValueError(f"the range {low} to {high} with {len(bins)} occupied bins")
        if (np.diff(bins.astype(np.int32)) <= 0).any() or not np.isfinite(_grid()[0][bins]).all():
            raise ValueError("bins that are no numbers, or not in order")
        if (counts <= 0).any() or counts.astype(np.float64).sum() >= MOST_COUNT:
            raise ValueError("counts that are not positive, or too large")
        made.low, made.high = low, high
        made._counts[bins] = counts
        return made

    @property
    def counts(self) -> Array:
        """Number of counted values whose upper 16 bits are the index, int64 [65536]."""
        self._flush()
        return self._counts

    @property
    def count(self) -> int:
        """Number of values seen; of a large tensor nearly, see `sampling`."""
        return int(self.counts.sum())

    def update(self, values: Array, *, samples: int = 1, thin: bool = True) -> None:
        """Take in one sample, or several that are stacked on axis 0.

        Args:
            values: float32 or float16, any shape; an empty one changes nothing.
            samples: How many samples these are.
            thin: Of a large tensor, count only the tails and some of the rest; see `sampling`.

        Raises:
            DataError: a value is NaN or infinite; the caller knows which tensor and sample it was.
        """
        if values.size == 0:
            return
        values = np.ascontiguousarray(values, np.float32)
        low, high = span(values, values) if self.channels is None else self.channels.update(values, samples)
        self.low, self.high = min(self.low, low), max(self.high, high)
        if not thin or values.size < samples * sampling.LARGE:
            self._hold(values.ravel(), 1)
        else:
            for row in values.reshape(samples, -1):
                stretch, chosen, tails = sampling.split(row, low)
                self._hold(chosen, stretch)
                self._hold(tails, 1)
        if self._held >= BINS:
            self._flush()

    def merge(self, other: TensorStatistics) -> None:
        """Add what another shard of the data counted."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        counts = self.counts
        counts += other.counts
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

    def _hold(self, values: Array, weight: int) -> None:
        """Keep the upper 16 bits of values that count ``weight`` times each."""
        self._waiting.setdefault(weight, []).append(values.view(np.uint16)[_HIGH_WORD::2].copy())
        self._held += len(values)

    def _flush(self) -> None:
        """Count what waits. Going through all bins costs more than counting, so it is not done for each sample.

        Only occupied bins are written to: the values of a tensor lie in a few of them, and pages of counters that
        nothing was ever written to take no memory.
        """
        for weight, waiting in self._waiting.items():
            added = np.bincount(np.concatenate(waiting, dtype=np.intp))
            occupied = np.flatnonzero(added > 0)  # of booleans it is several times as fast
            self._counts[occupied] += weight * added[occupied]
        self._waiting.clear()
        self._held = 0


@cache
def _grid() -> tuple[Array, Array]:
    """Return the middle of each bin, float64 [65536], and the finite bins in ascending order of value."""
    bits = (np.arange(BINS, dtype=np.uint32) << np.uint32(16)) | np.uint32(0x8000)
    bits[[0, BINS // 2]] = [0, BINS // 2 << 16]  # zeros (of either sign) fill their bins: keep them exact
    with np.errstate(invalid="ignore"):
        values = bits.view(np.float32).astype(np.float64)
    order = np.argsort(values, kind="stable")
    return values, order[np.isfinite(values[order])]
