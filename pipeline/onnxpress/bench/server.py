"""Scenario ``server``: the highest rate of random requests at which a latency percentile stays within a limit.

Requests arrive as a Poisson process, wait in one queue for the sessions of one process, and their latency counts from
the moment at which they were due (`serving`). The rate is found by binary search, and the number that is reported comes
from a last run with arrivals that the search has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from onnxpress.bench import statistics
from onnxpress.bench.messages import Served

SHORTEST_S = 1.0
"""Of one trial."""
STEPS = 8
"""Of the search: from a factor of ten between the ends to 1%."""
CLOSE = 1.02
"""High end ÷ low end at which the search is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sla:
    """A service level: a percentile of the latency, and its limit."""

    percent: float
    """99 for p99."""
    limit_ms: float

    @property
    def requests(self) -> int:
        """How many requests show whether it holds: enough to name the percentile."""
        return statistics.minimal_count(self.percent / 100)

    def met_by(self, latencies_ns: Sequence[int]) -> bool:
        """Tell whether these latencies keep it."""
        percentile = statistics.percentile(latencies_ns, self.percent)
        return percentile is not None and percentile <= 1e6 * self.limit_ms


class Server(Protocol):
    """What serves requests (`process.WorkerProcess`)."""

    def serve(self, rate_per_s: float, requests: int, seed: int) -> Served:
        """Serve requests that arrive at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was found: the highest rate, and the latencies at it."""

    rate_per_s: float | None
    """None when not even a tenth of the capacity keeps the limit."""
    too_high_per_s: float | None
    """The lowest rate that was seen to break it: the end of the search's bracket."""
    capacity_per_s: float
    """What the sessions can do at most, one request after the other."""
    latencies_ns: tuple[int, ...]
    """Of the last run; empty without a rate."""
    services_ns: tuple[int, ...]
    """How long of that requests were being served; the rest they waited."""

    def to_json(self, sla: Sla, *, sessions: int) -> dict[str, Any]:
        """Return the result as in onnxpress.bench/1."""

        def percentile_ms(percent: float) -> float | None:
            found = statistics.percentile(self.latencies_ns, percent) if self.latencies_ns else None
            return None if found is None else found / 1e6

        return {
            "rate_per_s": self.rate_per_s,
            "too_high_per_s": self.too_high_per_s,
            "capacity_per_s": self.capacity_per_s,
            "utilisation": None if self.rate_per_s is None else self.rate_per_s / self.capacity_per_s,
            "sla": {"percent": sla.percent, "limit_ms": sla.limit_ms},
            "p50_ms": percentile_ms(50),
            "p90_ms": percentile_ms(90),
            "p99_ms": percentile_ms(99),
            "service_ms": median(self.services_ns) / 1e6 if self.services_ns else None,
            "requests": len(self.latencies_ns),
            "sessions": sessions,
        }


def highest_rate(server: Server, sla: Sla, *, run_ms: float, sessions: int, seed: int, budget_ms: float) -> Load:
    """Search for the highest rate that keeps a service level.

    Args:
        server: Serves the requests; warmed up.
        sla: The service level.
        run_ms: How long one request takes on an idle server.
        sessions: How many are served at once.
        seed: Of the arrivals.
        budget_ms: About how long the search may take.

    """
    capacity = 1e3 * sessions / run_ms
    trial_ms = budget_ms / (STEPS + 2)

    def trial(rate_per_s: float, number: int) -> Served:
        longest_ms = max(1e3 * SHORTEST_S, trial_ms)
        requests = max(sla.requests, math.ceil(rate_per_s * min(longest_ms, 1e4) / 1e3))
        return server.serve(rate_per_s, requests, seed + number)

    low, high = capacity / 10, capacity
    broken: float | None = None
    nothing = Load(rate_per_s=None, too_high_per_s=low, capacity_per_s=capacity, latencies_ns=(), services_ns=())
    if not sla.met_by(trial(low, 0).latencies_ns):
        return nothing
    for number in range(1, STEPS + 1):
        if high / low < CLOSE:
            break
        middle = math.sqrt(low * high)
        if sla.met_by(trial(middle, number).latencies_ns):
            low = middle
        else:
            high = broken = middle
    confirmed = _confirm(lambda rate, number: trial(rate, STEPS + number), sla, low)
    if confirmed is None:
        return nothing
    rate, served = confirmed
    return Load(
        rate_per_s=rate,
        too_high_per_s=broken,
        capacity_per_s=capacity,
        latencies_ns=served.latencies_ns,
        services_ns=served.services_ns,
    )


def _confirm(trial: Callable[[float, int], Served], sla: Sla, rate_per_s: float) -> tuple[float, Served] | None:
    """Return the rate and what it gave on new arrivals; a rate that only had luck in the search is lowered by 5%."""
    for number in range(1, 6):
        served = trial(rate_per_s, number)
        if sla.met_by(served.latencies_ns):
            return rate_per_s, served
        rate_per_s *= 0.95
    return None
