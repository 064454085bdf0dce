"""Statistics by channel, for what treats channels apart: equalization, SmoothQuant, bias correction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxpress_calibration.errors import DataError
from onnxpress_calibration.exact import ExactSum

Array = np.ndarray[Any, np.dtype[Any]]


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
        others = tuple(i for i in range(values.ndim) if i != self.axis % values.ndim)
        self.count += values.size // channels
        self.low = np.minimum(self.low, values.min(axis=others) + 0)  # + 0: of the two zeros always the same one
        self.high = np.maximum(self.high, values.max(axis=others) + 0)
        wide = values.astype(np.float64)
        self.sums.add(wide.sum(axis=others))
        np.multiply(wide, wide, out=wide)
        self.squares.add(wide.sum(axis=others))

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
