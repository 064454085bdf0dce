"""Inside a worker: a loaded model, and the loops that time it."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

from onnxpress import host, session
from onnxpress.bench import nvml
from onnxpress.bench.binding import UNRECORDED, Bound, Feeder, device_id, read, run_options
from onnxpress.bench.messages import (
    Block,
    Dissect,
    Dissected,
    Load,
    Loaded,
    Measure,
    Serve,
    Served,
    WarmedUp,
    WarmUp,
)
from onnxpress.bench.serving import arrivals_ns, serve

LEAD_IN_RUNS = 2
"""Untimed runs before a block: they fetch back what the other variants pushed out of the caches."""
SPEEDOMETER_STEPS = 40_000
"""About two milliseconds of Python."""
WARM_UP_MS = (200, 2000)
"""At least and at most."""
WARM_UP_RUNS = (10, 300)
WARM_UP_SAMPLE = 20
"""Runs in each of the two samples whose agreement ends the warm-up."""


class Runner:
    """A model, loaded and run.

    Args:
        request: What to load.
        import_ms: How long the imports took.

    Raises:
        ModelError: onnxruntime cannot load or run it.
        UsageError: the provider does not work here.

    """

    def __init__(self, request: Load, *, import_ms: float) -> None:
        cpus = host.one_cpu_per_core()
        if request.threads * request.sessions <= len(cpus) and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)  # else two threads may share the vector units of one core
        options = session.SessionOptions(
            provider=request.provider,
            threads=request.threads,
            spin=request.spin,
            config=request.config,
            provider_options=request.provider_options,
            profile_prefix=None if request.profile is None else Path(request.profile),
        )
        gpu = nvml.gpu(device_id(request)) if session.provider_file(request.provider).DEVICE == "cuda" else None
        used_before = gpu.used_bytes() if gpu else None
        start = time.perf_counter()
        opened = session.open_session(Path(request.model), options)
        session_ms, session_hwm_bytes = 1e3 * (time.perf_counter() - start), host.peak_memory_bytes()
        feeds, plain = next(read(request)), run_options(request, UNRECORDED)
        start = time.perf_counter()
        outputs = session.run(opened, feeds, plain)
        ran = time.perf_counter()
        vm_hwm_bytes = host.peak_memory_bytes()
        used = gpu.used_bytes() if gpu else None
        again = time.perf_counter()
        session.run(opened, feeds, plain)
        self.loaded = Loaded(
            onnxruntime=session.onnxruntime().__version__,
            import_ms=import_ms,
            session_ms=session_ms,
            first_run_ms=1e3 * (ran - start),
            second_run_ms=1e3 * (time.perf_counter() - again),
            session_hwm_bytes=session_hwm_bytes,
            vm_hwm_bytes=vm_hwm_bytes,
            device_bytes=None if used is None or used_before is None else used - used_before,
        )
        self._request = request
        self._own_batch = next((len(value) for value in feeds.values() if value.ndim), 1)
        others = (session.open_session(Path(request.model), options) for _ in range(request.sessions - 1))
        self._sessions = [opened, *others]
        self._feeders = [Feeder(each, request, (feeds, outputs)) for each in self._sessions]
        gc.collect()
        gc.freeze()
        gc.disable()

    def warm_up(self, request: WarmUp) -> WarmedUp:
        """Run until two successive samples agree, within the limits of time and number."""
        for feeder in self._feeders[1:]:
            bindings = feeder.bindings(request.batch)
            for _ in range(LEAD_IN_RUNS):
                feeder.run(next(bindings), request.batch)
        durations = [self._time(request.batch)]
        while sum(durations) < WARM_UP_MS[0] or (len(durations) < WARM_UP_RUNS[0] and sum(durations) < WARM_UP_MS[1]):
            durations.append(self._time(request.batch))
        before: Sequence[float] = ()
        stable: bool | None = None
        while not stable and len(durations) + WARM_UP_SAMPLE <= WARM_UP_RUNS[1]:
            if sum(durations) + WARM_UP_SAMPLE * median(durations) > WARM_UP_MS[1]:
                break
            sample = [self._time(request.batch) for _ in range(WARM_UP_SAMPLE)]
            stable = agree(before, sample) if before else None
            durations += sample
            before = sample
        return WarmedUp(run_ms=median(durations[-WARM_UP_SAMPLE:]), stable=stable)

    def measure(self, request: Measure) -> Block:
        """Time one block of runs."""
        for feeder in self._feeders:
            feeder.bindings(request.batch)
        speed = _speedometer()
        for feeder in self._feeders:
            for _ in range(LEAD_IN_RUNS):
                feeder.run(next(feeder.bindings(request.batch)), request.batch)
        before = host.disturbances()
        if len(self._feeders) == 1:
            durations = self._alone(self._feeders[0], request)
        else:
            durations = _side_by_side([self._finished(feeder, request) for feeder in self._feeders])
        after = host.disturbances()
        return Block(
            durations_ns=tuple(durations),
            speed_ns=speed,
            ticks=after.ticks - before.ticks,
            stolen_ticks=after.stolen_ticks - before.stolen_ticks,
            throttled=after.throttled - before.throttled,
            preempted=after.preempted - before.preempted,
        )

    def serve(self, request: Serve) -> Served:
        """Serve requests of one run each that arrive at random; each session takes the next one when it is free."""
        due = arrivals_ns(request.rate_per_s, request.requests, request.seed)
        calls = [self._call(feeder) for feeder in self._feeders]
        for call in calls * LEAD_IN_RUNS:
            call()
        latencies, services = serve(calls, due)
        return Served(latencies_ns=tuple(latencies), services_ns=tuple(services))

    def dissect(self, request: Dissect) -> Dissected:
        """Run under the profiler and write what it saw."""
        for _ in range(request.runs):
            self._time(self._own_batch)
        return Dissected(file=self._sessions[0].end_profiling())

    def _alone(self, feeder: Feeder, request: Measure) -> list[int]:
        """Time the runs of a single session, each by itself."""
        bindings, options = feeder.bindings(request.batch), run_options(self._request, request.batch)
        # Written out: a call of our own would be a good part of a fast model's run.
        clock, run, durations = time.perf_counter_ns, feeder.call, []
        if request.copies:
            for _ in range(request.runs):
                bound = next(bindings)
                start = clock()
                bound.copy_in()
                run(bound.binding, options)
                bound.copy_out()
                durations.append(clock() - start)
            return durations
        for _ in range(request.runs):
            binding = next(bindings).binding
            start = clock()
            run(binding, options)
            durations.append(clock() - start)
        return durations

    def _finished(self, feeder: Feeder, request: Measure) -> Callable[[], Iterator[int]]:
        """Return a loop that yields the time at which each run of a session ended."""
        bindings = feeder.bindings(request.batch)

        def times() -> Iterator[int]:
            for _ in range(request.runs):
                feeder.run(next(bindings), request.batch)
                yield time.perf_counter_ns()

        return times

    def _call(self, feeder: Feeder) -> Callable[[], object]:
        """Return a function that serves one request with the next sample, copies to and from the device included."""
        bindings = feeder.bindings(self._own_batch)

        def call() -> None:
            bound: Bound = next(bindings)
            bound.copy_in()
            feeder.run(bound, self._own_batch)
            bound.copy_out()

        return call

    def _time(self, batch: int) -> float:
        feeder = self._feeders[0]
        bound = next(feeder.bindings(batch))
        start = time.perf_counter()
        feeder.run(bound, batch)
        return 1e3 * (time.perf_counter() - start)


def _side_by_side(loops: Sequence[Callable[[], Iterator[int]]]) -> list[int]:
    """Run loops in threads of their own and return the times between one end and the next, of whichever loop."""
    ends: list[list[int]] = [[] for _ in loops]
    errors: list[BaseException] = []
    ready = threading.Barrier(len(loops) + 1)

    def work(loop: Callable[[], Iterator[int]], found: list[int]) -> None:
        ready.wait()
        try:
            found.extend(loop())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(loops, ends, strict=True)]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [after - before for before, after in pairwise(sorted([start, *(end for one in ends for end in one)]))]


def agree(first: Sequence[float], second: Sequence[float]) -> bool:
    """Tell whether two successive samples of durations look alike: the warm-up is over.

    pyperf's rule (psf/pyperf, ``_worker.py``, ``test_calibrate_warmups``): both quartiles within 5%, the first mean at
    most 10% above and 50% below the second. The median absolute deviations may differ by 10% of the mean (pyperf: by
    10% of themselves, which twenty values rarely do even when nothing changes).
    """
    before, after = sum(first) / len(first), sum(second) / len(second)
    quartiles = zip(quantiles(first, n=4)[::2], quantiles(second, n=4)[::2], strict=True)
    return (
        all(abs(new / old - 1) <= 0.05 for old, new in quartiles)
        and -0.5 <= before / after - 1 <= 0.1
        and abs(_spread(first) - _spread(second)) <= 0.1 * after
    )


def _spread(values: Sequence[float]) -> float:
    middle = median(values)
    return median(abs(value - middle) for value in values)


def _speedometer() -> int:
    """Return how long a fixed piece of work takes: longer when the CPU is shared or slowed down."""
    start = time.perf_counter_ns()
    total = 0
    for i in range(SPEEDOMETER_STEPS):
        total += i
    return time.perf_counter_ns() - start
