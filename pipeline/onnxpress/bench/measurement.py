"""A measurement: raw values with unit and context. What is derived from them is computed when asked, never stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxpress.bench import statistics
from onnxpress.bench.statistics import Interval
from onnxpress.intervals import mean_interval, student_interval

_TAIL: Mapping[str, float] = {"p90": 90, "p95": 95, "p99": 99, "p999": 99.9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Values of one quantity of one variant, in the order in which they were taken."""

    variant: str
    quantity: str
    """``latency.single``, ``cold_start.session``, ``memory.vm_hwm``…"""
    unit: str
    batch: int
    """Samples in each run."""
    processes: tuple[tuple[tuple[float, ...], ...], ...]
    """The values, by process and by block."""

    @property
    def values(self) -> tuple[float, ...]:
        """All values."""
        return tuple(value for process in self.processes for block in process for value in block)

    @property
    def median(self) -> float:
        """The median of all values."""
        return float(np.median(self.values))

    def percentile(self, percent: float) -> float | None:
        """Return a percentile; None where there are too few values for it."""
        return statistics.percentile(self.values, percent)

    def rate_per_s(self) -> Interval:
        """Return samples per second, from blocks of durations in milliseconds.

        Raises:
            ValueError: too few blocks.

        """
        return statistics.center(
            [[math.log(rate_per_s(block, self.batch)) for block in blocks] for blocks in self.processes]
        ).exp()

    def bounds(self) -> dict[str, list[float | None]]:
        """Return, for the statistics of `summary`, two values between which each lies; each end holds at 95%.

        None for an end that cannot be told: with fewer than `statistics.MIN_PROCESSES`, or too few blocks.
        """
        found = {name: list(statistics.percentile_bounds(self.processes, share / 100)) for name, share in _TAIL.items()}
        blocks = [[float(np.median(block)) for block in blocks] for blocks in self.processes if blocks]
        if len(blocks) >= statistics.MIN_PROCESSES:
            if sum(map(len, blocks)) >= statistics.MIN_PAIRS:
                middle = statistics.center([[math.log(one) for one in part] for part in blocks]).exp()
                found["p50"] = [min(middle.low, self.median), max(middle.high, self.median)]
            found["mean"] = self._mean_bounds()
        return {name: [_finite(end) for end in ends] for name, ends in found.items()}

    def _mean_bounds(self) -> list[float]:
        """Return the wider of the interval of the blocks' means, and of Student's on those of the processes."""
        blocks = np.array([np.mean(block) for blocks in self.processes for block in blocks])
        if len(blocks) < statistics.MIN_BLOCKS:
            return [-math.inf, math.inf]
        ends = mean_interval(blocks, float(np.mean(self.values)))
        low, high = student_interval([float(np.mean(np.concatenate(blocks))) for blocks in self.processes if blocks])
        return [min(ends.low, low), max(ends.high, high)]

    def summary(self) -> dict[str, Any]:
        """Return the statistics of all values, as in onnxpress.bench/1."""
        values = self.values
        return {
            "n": len(values),
            "min": min(values),
            "p50": self.median,
            "mean": float(np.mean(values)),
            **{name: self.percentile(percent) for name, percent in _TAIL.items()},
            "p99_guaranteed": _finite(statistics.percentile_bounds(self.processes, 0.99)[1]),
            "quantiles": [float(value) for value in np.percentile(values, np.arange(0, 101, 5))],
            "mad": statistics.mad(values),
            "cov_pct": statistics.cov_pct(values),
            "outliers": asdict(statistics.outliers(values)),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rate_per_s(durations_ms: tuple[float, ...], batch: int) -> float:
    """Return samples per second of a block of runs."""
    return 1000 * batch * len(durations_ms) / sum(durations_ms)
