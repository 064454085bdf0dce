"""The open loop, on a clock of its own, against queueing theory."""

import numpy as np
import pytest

from onnxpress.bench.serving import arrivals_ns, serve


class Time:
    """A clock that only sleeping and serving move."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def clock(self) -> int:
        self.now += 100  # so that spinning ends
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(1e9 * seconds)


def one_server(due: list[int], service_ns: int) -> list[int]:
    """Return the latencies."""
    time = Time()

    def call() -> None:
        time.now += service_ns

    latencies, services = serve([call], due, clock=time.clock, sleep=time.sleep)
    assert services == pytest.approx([service_ns] * len(due), abs=1000)
    return latencies


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    gaps = np.diff(arrivals_ns(500, 100_000, seed=3)) / 1e9
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 500, rel=0.02)  # exponential: as large as the mean
    assert arrivals_ns(500, 10, seed=3) == arrivals_ns(500, 10, seed=3) != arrivals_ns(500, 10, seed=4)


def test_latency_counts_from_the_moment_a_request_was_due() -> None:
    found = one_server([0, 1_000_000, 2_000_000], service_ns=5_000_000)
    assert found == pytest.approx([5e6, 9e6, 13e6], abs=5e4)  # the second one waits 4 ms for the first


def test_a_server_that_is_in_time_shows_the_service_only() -> None:
    assert one_server([0, 10**9, 2 * 10**9], service_ns=5_000_000) == pytest.approx([5e6] * 3, abs=5e4)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_mean_wait_is_that_of_m_d_1(load: float) -> None:
    service_ns = 1_000_000
    due = arrivals_ns(load * 1000, 60_000, seed=5)
    waits = np.array(one_server(due, service_ns)) - service_ns
    # Pollaczek and Khinchine: W = rho s / (2 (1 - rho))
    assert waits.mean() == pytest.approx(load * service_ns / (2 * (1 - load)), rel=0.08, abs=300)


def test_two_servers_share_one_queue() -> None:
    served: list[int] = []

    def server(number: int) -> object:
        return lambda: served.append(number)

    latencies, services = serve([server(0), server(1)], [0] * 50)  # type: ignore[list-item]
    assert len(latencies) == len(services) == len(served) == 50 and min(services) > 0
    assert all(latency > service for latency, service in zip(latencies, services, strict=True))


@pytest.mark.parametrize("servers", [1, 2])
def test_an_error_of_a_server_is_raised(servers: int) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        serve([fail] * servers, [0, 0, 0])
