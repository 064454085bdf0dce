"""Statistics by channel, for what treats channels apart: equalization, SmoothQuant, bias correction."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxpress_calibration.errors import DataError
from onnxpress_calibration.exact import ExactSum

Array = np.ndarray[Any, np.dtype[Any]]


AT_ONCE = 1 << 15
"""Values that are gone through at a time: as float64 they fit into a core's cache, and are read there three times."""


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

    def update(self, values: Array, samples: int = 1) -> tuple[float, float]:
        """Add samples; return the minimum and maximum of all their values.

        Args:
            values: float32, in C order, with the channels on `axis` and the samples stacked on axis 0.
            samples: How many these are. Each adds a term of its own to the sums, so that stacking changes no bit.

        Raises:
            DataError: a value is NaN or infinite, or the number of channels is another than before.
        """
        channels, behind = values.shape[self.axis], math.prod(values.shape[self.axis % values.ndim + 1 :])
        parts = values.reshape(samples, -1, channels, behind)
        step = max(AT_ONCE * channels // values.size, 1)
        each = [_summary(parts[:, :, start : start + step]) for start in range(0, channels, step)]
        low, high, sums, squares = (np.concatenate(found, axis=-1) for found in zip(*each, strict=True))
        whole = span(low, high)
        if len(self.low) == 0:
            self._start(channels)
        if channels != len(self.low):
            raise DataError(f"has {channels} channels on axis {self.axis}, and had {len(self.low)} before")
        self.count += values.size // channels
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.sums.add(sums)
        self.squares.add(squares)
        return whole

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


def span(low: Array, high: Array) -> tuple[float, float]:
    """Return the least and the greatest value of two arrays.

    Raises:
        DataError: one is NaN or infinite; NaN is the minimum of whatever holds it.
    """
    least, greatest = float(low.min()) + 0, float(high.max()) + 0  # + 0: of the two zeros always the same one
    if not (math.isfinite(least) and math.isfinite(greatest)):
        raise DataError("holds NaN or infinity")
    return least, greatest


def _summary(values: Array) -> tuple[Array, Array, Array, Array]:
    """Return minimum and maximum [channels], sum and sum of squares [samples, channels].

    Args:
        values: float32 [samples, positions, channels, positions].
    """
    low, high = values.min(axis=(0, 1, 3)), values.max(axis=(0, 1, 3))
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity; the caller refuses it
        sums = wide.sum(axis=(1, 3))
    np.multiply(wide, wide, out=wide)
    return low + 0, high + 0, sums, wide.sum(axis=(1, 3))
