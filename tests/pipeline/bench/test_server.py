"""The search for the highest rate, on a server that obeys queueing theory."""

import numpy as np

from onnxpress.bench.messages import Served
from onnxpress.bench.server import Sla, highest_rate
from onnxpress.bench.serving import arrivals_ns

SERVICE_NS = 1_000_000


class Queue:
    """First come, first served, and every request takes a millisecond."""

    def __init__(self, slow: float = 1.0) -> None:
        self.service_ns = slow * SERVICE_NS
        self.rates: list[float] = []

    def serve(self, rate_per_s: float, requests: int, seed: int) -> Served:
        self.rates.append(rate_per_s)
        free, latencies = 0.0, []
        for due in arrivals_ns(rate_per_s, requests, seed):
            free = max(free, due) + self.service_ns
            latencies.append(int(free - due))
        return Served(latencies_ns=tuple(latencies), services_ns=(int(self.service_ns),) * requests)


def search(queue: Queue, sla: Sla) -> float | None:
    found = highest_rate(queue, sla, run_ms=1.0, sessions=1, seed=0, budget_ms=300_000)
    assert found.capacity_per_s == 1000
    if found.rate_per_s is not None:
        assert sla.met_by(found.latencies_ns)
        assert found.too_high_per_s is None or found.rate_per_s < found.too_high_per_s
    return found.rate_per_s


def test_the_highest_rate_is_where_the_percentile_meets_the_limit() -> None:
    sla = Sla(percent=99, limit_ms=5)
    found = search(Queue(), sla)
    assert found is not None

    def p99_ms(rate: float) -> float:
        return float(np.percentile(Queue().serve(rate, 200_000, 99).latencies_ns, 99)) / 1e6

    assert p99_ms(0.93 * found) < 5 < p99_ms(1.12 * found)


def test_a_stricter_level_allows_less() -> None:
    rates = [search(Queue(), Sla(percent=99, limit_ms=limit)) for limit in (2, 5, 20)]
    assert rates == sorted(rates, key=lambda rate: rate or 0) and len(set(rates)) == 3


def test_a_level_that_cannot_be_kept_has_no_rate() -> None:
    queue = Queue()
    assert search(queue, Sla(percent=99, limit_ms=0.5)) is None
    assert len(queue.rates) == 1  # nothing is searched for


def test_a_trial_has_enough_requests_for_its_percentile() -> None:
    assert Sla(percent=99.9, limit_ms=1).requests == 4742
    assert not Sla(percent=99, limit_ms=1e9).met_by([1] * 100)  # too few to name a p99
    assert Sla(percent=99, limit_ms=1).met_by([1000] * 473)


def test_the_result_in_json() -> None:
    sla = Sla(percent=99, limit_ms=5)
    found = highest_rate(Queue(), sla, run_ms=1.0, sessions=1, seed=0, budget_ms=20_000).to_json(sla, sessions=1)
    assert found["sla"] == {"percent": 99, "limit_ms": 5} and found["sessions"] == 1
    assert found["service_ms"] == 1 <= found["p50_ms"] <= found["p99_ms"] <= 5
    assert found["utilisation"] == found["rate_per_s"] / 1000
    empty = highest_rate(Queue(slow=9), sla, run_ms=1.0, sessions=1, seed=0, budget_ms=20_000).to_json(sla, sessions=1)
    assert empty["rate_per_s"] is None and empty["p99_ms"] is None and empty["requests"] == 0
