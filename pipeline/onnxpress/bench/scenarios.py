"""How a model is used, and which number describes it then (the names are those of MLPerf)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from onnxpress.bench.measurement import rate_per_s

BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that are tried where the best one is wanted."""
SWEEP = "batch"
SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way of using a model that is measured in paired blocks."""

    metric: str
    """Name of what is compared."""
    value: Callable[[tuple[float, ...], int], float]
    """The number that describes a block: from its durations in milliseconds and its batch size."""
    batch: int | Literal["own", "best"] = "own"
    """Samples in one run: the model's own number (one, unless its batch axis is fixed), the number with the highest
    throughput, or this one."""
    copies: bool = False
    """Inputs are copied to the device and outputs back within the time that is taken."""
    lower_is_better: bool = True
    min_runs: int = 30
    """Runs in a block, at least."""


def _median(durations_ms: tuple[float, ...], _batch: int) -> float:
    return median(durations_ms)


PAIRED: Mapping[str, Scenario] = {
    "single": Scenario(metric="latency.p50", value=_median),
    "end_to_end": Scenario(metric="latency.end_to_end", value=_median, copies=True),
    "offline": Scenario(metric="throughput.offline", value=rate_per_s, batch="best", lower_is_better=False, min_runs=3),
}
"""Measured in paired blocks, as they are; `SWEEP` becomes several of them, see `of_batch`."""
SCENARIOS = (*PAIRED, SWEEP, SERVER)


def of_batch(size: int) -> tuple[str, Scenario]:
    """Return name and meaning of one batch size of a sweep."""
    name = f"{SWEEP}-{size}"
    return name, replace(PAIRED["offline"], metric=f"throughput.{name}", batch=size)
