"""How a model is used, and which number describes it then (the names are those of MLPerf)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from onnxpress.bench.measurement import rate_per_s

BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that are tried where the best one is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way of using a model."""

    metric: str
    """Name of what is compared."""
    value: Callable[[tuple[float, ...], int], float]
    """The number that describes a block: from its durations in milliseconds and its batch size."""
    best_batch: bool
    """Take the batch size with the highest throughput, instead of one sample at a time."""
    min_runs: int
    """Runs in a block, at least."""


SCENARIOS: Mapping[str, Scenario] = {
    "single": Scenario(
        metric="latency.p50", value=lambda durations, _batch: median(durations), best_batch=False, min_runs=30
    ),
    "offline": Scenario(metric="throughput.offline", value=rate_per_s, best_batch=True, min_runs=3),
}
