"""Scenario ``server``: the highest rate of random requests at which a latency percentile is proven to keep a limit.

Requests arrive as a Poisson process, wait in one queue for the sessions of one process, and their latency counts from
the moment at which they were due (`serving`). The rate is found by binary search, and the number that is reported comes
from a last run with arrivals that the search has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from onnxpress.bench import statistics
from onnxpress.bench.messages import Served
from onnxpress.intervals import CONFIDENCE
from onnxpress.units import digits

SHORTEST_S = 1.0
"""Of one trial."""
STEPS = 8
"""Of the search: from a factor of ten between the ends to 1%."""
CLOSE = 1.02
"""High end ÷ low end at which the search is over."""
LONGER = 4
"""Times the requests of a trial, for the proof at the end."""
PROOFS, LOWER = 5, 0.9
"""How often a proof is tried, each time at a rate that much lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sla:
    """A service level: a percentile of the latency, and its limit."""

    percent: float
    """99 for p99."""
    limit_ms: float

    def __str__(self) -> str:
        return f"p{self.percent:g} <= {self.limit_ms:g} ms"

    @property
    def requests(self) -> int:
        """How many requests show whether it holds: enough to name the percentile."""
        return statistics.minimal_count(self.percent / 100)

    def met_by(self, latencies_ns: Sequence[int]) -> bool:
        """Tell whether these latencies seem to keep it."""
        percentile = statistics.percentile(latencies_ns, self.percent)
        return percentile is not None and percentile <= 1e6 * self.limit_ms

    def proven_by(self, latencies_ns: Sequence[int], error: float = 1 - CONFIDENCE) -> bool:
        """Tell whether these latencies show that it is kept: whether the guaranteed percentile does."""
        return statistics.guaranteed(latencies_ns, self.percent / 100, error) <= 1e6 * self.limit_ms


class Server(Protocol):
    """What serves requests (`process.WorkerProcess`)."""

    def serve(self, rate_per_s: float, requests: int, seed: int) -> Served:
        """Serve requests that arrive at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was found: the highest rate, and the latencies at it."""

    rate_per_s: float | None
    """None when no rate from a tenth of the capacity on was proven to keep the limit."""
    too_high_per_s: float | None
    """The lowest rate at which that was not proven: the end of the search's bracket."""
    capacity_per_s: float
    """What the sessions can do at most, one request after the other."""
    latencies_ns: tuple[int, ...]
    """Of the last run; empty without a rate."""
    services_ns: tuple[int, ...]
    """How long of that requests were being served; the rest they waited."""
    why: str = ""
    """Why there is no rate."""

    def to_json(self, sla: Sla, *, sessions: int) -> dict[str, Any]:
        """Return the result as in onnxpress.bench/1."""

        def percentile_ms(percent: float) -> float | None:
            found = statistics.percentile(self.latencies_ns, percent) if self.latencies_ns else None
            return None if found is None else found / 1e6

        return {
            "rate_per_s": self.rate_per_s,
            "too_high_per_s": self.too_high_per_s,
            "why": self.why,
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
    """Search for the highest rate at which a service level is proven.

    A trial that keeps the level by its guaranteed percentile goes on with a higher rate. The rate that is reported is
    proven once more, with more requests that the search has not seen, so that no luck of the search is in it.

    Args:
        server: Serves the requests; warmed up.
        sla: The service level.
        run_ms: How long one request takes on an idle server.
        sessions: How many are served at once.
        seed: Of the arrivals.
        budget_ms: About how long the search may take.

    """
    capacity = 1e3 * sessions / run_ms
    trial_ms = budget_ms / (STEPS + 1 + LONGER)

    def trial(rate_per_s: float, number: int, longer: int = 1) -> Served:
        longest_ms = max(1e3 * SHORTEST_S, min(trial_ms, 1e4))
        requests = max(sla.requests, math.ceil(rate_per_s * longest_ms / 1e3))
        return server.serve(rate_per_s, longer * requests, seed + number)

    low, high = capacity / 10, capacity
    broken: float | None = None

    def nothing(why: str) -> Load:
        return Load(
            rate_per_s=None,
            too_high_per_s=low if broken is None else broken,
            capacity_per_s=capacity,
            latencies_ns=(),
            services_ns=(),
            why=why,
        )

    first = trial(low, 0)
    if not sla.met_by(first.latencies_ns):
        found = statistics.percentile(first.latencies_ns, sla.percent)
        return nothing(f"{sla} broken at {digits(low, 4)}/s already, 10% of the capacity: {_shown_ms(found)}")
    for number in range(1, STEPS + 1):
        if high / low < CLOSE:
            break
        middle = math.sqrt(low * high)
        if sla.proven_by(trial(middle, number).latencies_ns):
            low = middle
        else:
            high = broken = middle
    # One of several proofs may hold by chance, so each must hold at a higher confidence.
    for number in range(1, PROOFS + 1):
        served = trial(low, STEPS + number, LONGER)
        if sla.proven_by(served.latencies_ns, (1 - CONFIDENCE) / PROOFS):
            return Load(
                rate_per_s=low,
                too_high_per_s=broken,
                capacity_per_s=capacity,
                latencies_ns=served.latencies_ns,
                services_ns=served.services_ns,
            )
        if number < PROOFS:
            broken, low = low, LOWER * low
    found = statistics.percentile(served.latencies_ns, sla.percent)
    return nothing(
        f"{len(served.latencies_ns)} requests at {digits(low, 4)}/s ({_shown_ms(found)}) do not prove {sla}: "
        "give a larger budget, or a looser level"
    )


def _shown_ms(latency_ns: float | None) -> str:
    return "too few requests" if latency_ns is None else f"measured {latency_ns / 1e6:.4g} ms"
