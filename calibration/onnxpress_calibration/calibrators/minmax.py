"""Min-max: the range is everything that was seen. Never clips; one outlier sets the step for all."""

from __future__ import annotations

from onnxpress_calibration.statistics import Array, TensorStatistics


def choose(statistics: TensorStatistics, *, levels: int, importance: Array | None = None) -> tuple[float, float]:  # noqa: ARG001 - the contract's
    """Return the exact minimum and maximum."""
    return statistics.low, statistics.high
