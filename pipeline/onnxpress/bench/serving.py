"""Inside a worker: an open loop. Requests arrive at random times, whether the last one is finished or not.

Latency counts from the moment at which a request was *due*. A closed loop, which sends the next request when the last
one has come back, hides every stall (coordinated omission: Gil Tene's wrk2; MLPerf's Server scenario counts likewise).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

SPIN_NS = 200_000
"""A sleeping thread wakes up some tens of microseconds late: a single session's thread waits the rest awake."""


def arrivals_ns(rate_per_s: float, count: int, seed: int) -> list[int]:
    """Return the times at which requests are due, of a Poisson process: gaps are exponential with mean 1 / rate."""
    gaps = np.random.default_rng(seed).exponential(1e9 / rate_per_s, count)
    return [int(time_ns) for time_ns in np.cumsum(gaps)]


def serve(
    calls: Sequence[Callable[[], object]],
    due_ns: Sequence[int],
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], object] = time.sleep,
) -> tuple[list[int], list[int]]:
    """Serve requests in the order in which they are due.

    Each call serves one request and belongs to one server; a server that is free takes the next request, and waits for
    it when it is not due yet. Together they are one queue, first come, first served, of as many servers.

    Args:
        calls: One function per server.
        due_ns: When each request is due, after the start.
        clock: Nanoseconds.
        sleep: Waits for seconds.

    Returns:
        How long each took from the moment it was due, and how long of that it was being served, in nanoseconds.

    """
    latencies, services = [0] * len(due_ns), [0] * len(due_ns)
    numbers = itertools.count()  # its next() is atomic
    awake = SPIN_NS if len(calls) == 1 else 0  # several spinning threads would keep Python's lock from each other
    errors: list[BaseException] = []
    start = clock()

    def work(call: Callable[[], object]) -> None:
        try:
            while (number := next(numbers)) < len(due_ns):
                due = start + due_ns[number]
                while (left := due - clock()) > 0:
                    if left > awake:
                        sleep((left - awake) / 1e9)
                begin = clock()
                call()
                end = clock()
                latencies[number], services[number] = end - due, end - begin
        except Exception as error:
            errors.append(error)

    if len(calls) == 1:
        work(calls[0])
    else:
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return latencies, services
