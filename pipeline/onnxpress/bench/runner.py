"""Inside a worker: a loaded model, its inputs bound, and the loop that times it."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from onnxpress import host, session
from onnxpress.bench.messages import Block, Load, Loaded, Measure, WarmedUp, WarmUp
from onnxpress.session import Arrays

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
    """A model, loaded and run once.

    Args:
        request: What to load.
        import_ms: How long the imports took.

    Raises:
        ModelError: onnxruntime cannot load or run it.

    """

    def __init__(self, request: Load, *, import_ms: float) -> None:
        cpus = host.one_cpu_per_core()
        if request.threads <= len(cpus) and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)  # else two threads may share the vector units of one core
        options = session.SessionOptions(provider=request.provider, threads=request.threads, spin=request.spin)
        start = time.perf_counter()
        self._session = session.open_session(Path(request.model), options)
        opened = time.perf_counter()
        self._names, self._samples = request.names, request.samples
        self._bound: dict[int, Iterator[Any]] = {}
        feeds = next(self._read())
        running = time.perf_counter()
        self._outputs = session.run(self._session, feeds)
        ran = time.perf_counter()
        self._feeds = feeds
        self.loaded = Loaded(
            onnxruntime=session.onnxruntime().__version__,
            import_ms=import_ms,
            session_ms=1e3 * (opened - start),
            first_run_ms=1e3 * (ran - running),
            vm_hwm_bytes=host.peak_memory_bytes(),
        )
        gc.collect()
        gc.freeze()
        gc.disable()

    def warm_up(self, request: WarmUp) -> WarmedUp:
        """Run until two successive samples agree, within the limits of time and number."""
        bindings = self._bindings(request.batch)
        durations = [self._time(next(bindings))]
        while sum(durations) < WARM_UP_MS[0] or (len(durations) < WARM_UP_RUNS[0] and sum(durations) < WARM_UP_MS[1]):
            durations.append(self._time(next(bindings)))
        before: Sequence[float] = ()
        stable: bool | None = None
        while not stable and len(durations) + WARM_UP_SAMPLE <= WARM_UP_RUNS[1]:
            if sum(durations) + WARM_UP_SAMPLE * median(durations) > WARM_UP_MS[1]:
                break
            sample = [self._time(next(bindings)) for _ in range(WARM_UP_SAMPLE)]
            stable = agree(before, sample) if before else None
            durations += sample
            before = sample
        return WarmedUp(run_ms=median(durations[-WARM_UP_SAMPLE:]), stable=stable)

    def measure(self, request: Measure) -> Block:
        """Time one block of runs."""
        bindings = self._bindings(request.batch)
        speed = _speedometer()
        for _ in range(LEAD_IN_RUNS):
            self._time(next(bindings))
        before = host.disturbances()
        # Written out: a call of our own would be a good part of a fast model's run.
        clock, run, durations = time.perf_counter_ns, self._session.run_with_iobinding, []
        for _ in range(request.runs):
            binding = next(bindings)
            start = clock()
            run(binding)
            durations.append(clock() - start)
        after = host.disturbances()
        return Block(
            durations_ns=tuple(durations),
            speed_ns=speed,
            ticks=after.ticks - before.ticks,
            stolen_ticks=after.stolen_ticks - before.stolen_ticks,
            throttled=after.throttled - before.throttled,
            preempted=after.preempted - before.preempted,
        )

    def _time(self, binding: object) -> float:
        start = time.perf_counter()
        self._session.run_with_iobinding(binding)
        return 1e3 * (time.perf_counter() - start)

    def _bindings(self, batch: int) -> Iterator[Any]:
        """Return an endless cycle of inputs bound for one batch size."""
        if batch not in self._bound:
            feeds = list(self._batches(batch))
            session.run(self._session, feeds[0])  # a batch size that the model cannot take is refused here
            self._bound[batch] = cycle([self._bind(each) for each in feeds])
        return self._bound[batch]

    def _bind(self, feeds: Arrays) -> object:
        """Bind inputs, and outputs where their shape is known beforehand, so that a run allocates neither."""
        from_numpy = session.onnxruntime().OrtValue.ortvalue_from_numpy
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, from_numpy(value))
        for output in self._session.get_outputs():
            shape = self._output_shape(output, feeds)
            if shape is None:
                binding.bind_output(output.name)
            else:
                binding.bind_ortvalue_output(output.name, from_numpy(np.empty(shape, self._outputs[output.name].dtype)))
        return binding

    def _output_shape(self, output: Any, feeds: Arrays) -> tuple[int, ...] | None:  # noqa: ANN401 - no stubs
        """Return the shape that an output will have; None when it depends on the data, or is not a tensor."""
        first = self._outputs[output.name]
        if not isinstance(first, np.ndarray) or first.dtype == object:
            return None
        expected = _resolve(output.shape, self._sizes(self._feeds))
        return _resolve(output.shape, self._sizes(feeds)) if expected == first.shape else None

    def _sizes(self, feeds: Arrays) -> dict[str, int]:
        """Return the size that each named axis takes with these inputs."""
        return {
            axis: size
            for declared in self._session.get_inputs()
            if declared.name in feeds
            for axis, size in zip(declared.shape, feeds[declared.name].shape, strict=True)
            if isinstance(axis, str)
        }

    def _batches(self, batch: int) -> Iterator[Arrays]:
        """Yield the samples as they are, or joined (and repeated) to a larger batch."""
        samples = list(self._read())
        if batch == next((len(value) for value in samples[0].values() if value.ndim), 1):
            yield from samples
            return
        for start in range(0, max(1, len(samples) // batch) * batch, batch):
            chosen = [samples[i % len(samples)] for i in range(start, start + batch)]
            yield {
                name: np.concatenate([sample[name] for sample in chosen]) if value.ndim else value
                for name, value in chosen[0].items()
            }

    def _read(self) -> Iterator[Arrays]:
        with np.load(self._samples) as file:
            for i in range(len(file.files) // len(self._names)):
                yield {name: file[f"{i}.{j}"] for j, name in enumerate(self._names)}


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


def _resolve(shape: Sequence[int | str | None], sizes: dict[str, int]) -> tuple[int, ...] | None:
    known = [axis if isinstance(axis, int) else sizes.get(axis or "") for axis in shape]
    return None if None in known else tuple(size for size in known if size is not None)


def _speedometer() -> int:
    """Return how long a fixed piece of work takes: longer when the CPU is shared or slowed down."""
    start = time.perf_counter_ns()
    total = 0
    for i in range(SPEEDOMETER_STEPS):
        total += i
    return time.perf_counter_ns() - start
