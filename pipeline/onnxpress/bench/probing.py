"""What is found out of each variant before it is measured: how long starts and runs take, and what is fastest.

All of it comes from throw-away processes, whose starts count nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from onnxpress.bench.messages import Block, Loaded, WarmedUp
from onnxpress.bench.scenarios import Scenario, of_batch
from onnxpress.errors import ModelError

BLOCK_MS = 50
"""Least duration of a block."""
LONGEST_RUN_MS = 200
"""Batch sizes that take longer are not tried."""
WORTHWHILE_GAIN = 1.05
"""Of throughput, for a larger batch to be preferred."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a process uses the CPUs: so many copies of the model side by side, of so many threads each."""

    threads: int
    sessions: int


def layouts(threads: int) -> list[Layout]:
    """Return the ways to share a number of threads, the one with a single session first."""
    return [
        Layout(threads=threads // sessions, sessions=sessions)
        for sessions in (2**power for power in range(threads.bit_length()))
    ]


class Worker(Protocol):
    """A process that runs one variant (`process.WorkerProcess`; something simpler in tests)."""

    def load(self) -> Loaded:
        """Load the model and run it once."""

    def warm_up(self, batch: int) -> WarmedUp:
        """Run until the durations are steady."""

    def measure(self, batch: int, runs: int, *, copies: bool = False) -> Block:
        """Time one block of runs."""

    def close(self) -> None:
        """End the process."""


Launch = Callable[[str, Layout], Worker]
"""Starts a worker for a variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is known of a variant before the measurement."""

    start_ms: float
    """Start, load, first run and warm-up of its processes (one for each layout)."""
    batch: Mapping[str, int]
    """Batch size by scenario."""
    run_ms: Mapping[str, float]
    """Duration of one run (of all sessions, side by side), by scenario."""
    layout: Mapping[str, Layout]
    """By scenario."""
    refused_batch: int | None
    """The batch size that the model could not take though its batch axis is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A batch size and a layout, and how long a run of all sessions takes so."""

    batch: int
    layout: Layout
    run_ms: float

    @property
    def rate(self) -> float:
        return self.batch * self.layout.sessions / self.run_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What was seen of one variant."""

    own: _Way
    best: _Way
    start_ms: Mapping[Layout, float]
    swept_ms: Mapping[int, float]
    """Duration of a run by batch size, in a single session."""
    refused_batch: int | None


class Probing:
    """Looks at variants one by one, and then decides what all of them are measured with."""

    def __init__(
        self,
        launch: Launch,
        scenarios: Mapping[str, Scenario],
        sweep: Sequence[int] | None,
        batches: Sequence[int],
        ways: Sequence[Layout],
        clock: Clock,
    ) -> None:
        self._launch, self._scenarios, self._sweep, self._clock = launch, scenarios, sweep, clock
        self._batches, self._ways = batches, ways
        self.seen: dict[str, _Seen] = {}

    def look_at(self, name: str) -> None:
        """Find out how long a variant's start and runs take, and its best batch size and layout."""
        wants_best = any(scenario.batch == "best" for scenario in self._scenarios.values())
        begin = self._clock()
        with closing(self._launch(name, self._ways[0])) as worker:
            worker.load()
            own = _Way(batch=self._batches[0], layout=self._ways[0], run_ms=worker.warm_up(self._batches[0]).run_ms)
            start_ms = {self._ways[0]: 1e3 * (self._clock() - begin)}
            best, swept_ms, refused = own, {own.batch: own.run_ms}, None
            if wants_best or self._sweep == ():
                best, swept_ms, refused = _sweep(worker, self._batches, own)
            for batch in sorted(set(self._sweep or ()) - set(swept_ms)):
                swept_ms[batch] = _once(worker, batch, own.run_ms * batch / own.batch)
        for layout in self._ways[1:] if wants_best else ():
            begin = self._clock()
            with closing(self._launch(name, layout)) as worker:
                worker.load()
                worker.warm_up(own.batch)
                start_ms[layout] = 1e3 * (self._clock() - begin)
                share = best.batch // layout.sessions
                for batch in sorted({own.batch, best.batch, share if share in self._batches else own.batch}):
                    run_ms = _once(worker, batch, own.run_ms * batch / own.batch)
                    way = _Way(batch=batch, layout=layout, run_ms=run_ms)
                    best = way if way.rate > WORTHWHILE_GAIN * best.rate else best
        self.seen[name] = _Seen(own=own, best=best, start_ms=start_ms, swept_ms=swept_ms, refused_batch=refused)

    def conclude(self) -> tuple[dict[str, Scenario], dict[str, Probe]]:
        """Return the scenarios, those of the sweep included, and what is known of each variant."""
        scenarios = dict(self._scenarios)
        if self._sweep is not None:
            sizes = self._sweep or max((list(each.swept_ms) for each in self.seen.values()), key=len)
            limit = min((each.refused_batch for each in self.seen.values() if each.refused_batch), default=math.inf)
            scenarios |= dict(of_batch(size) for size in sizes if size < limit)
        return scenarios, {name: self._probe(each, scenarios) for name, each in self.seen.items()}

    def _probe(self, seen: _Seen, scenarios: Mapping[str, Scenario]) -> Probe:
        used = {name: self._way(seen, scenario) for name, scenario in scenarios.items()}
        layouts_used = {self._ways[0], *(way.layout for way in used.values())}
        return Probe(
            start_ms=sum(seen.start_ms[layout] for layout in layouts_used),
            batch={name: way.batch for name, way in used.items()},
            run_ms={name: way.run_ms for name, way in used.items()},
            layout={name: way.layout for name, way in used.items()},
            refused_batch=seen.refused_batch,
        )

    def _way(self, seen: _Seen, scenario: Scenario) -> _Way:
        if isinstance(scenario.batch, int):
            largest = max(size for size in seen.swept_ms if size <= max(scenario.batch, seen.own.batch))
            run_ms = seen.swept_ms.get(scenario.batch, seen.swept_ms[largest] * scenario.batch / largest)
            return _Way(batch=scenario.batch, layout=self._ways[0], run_ms=run_ms)
        return seen.best if scenario.batch == "best" else seen.own


def _sweep(worker: Worker, batches: Sequence[int], own: _Way) -> tuple[_Way, dict[int, float], int | None]:
    """Return the batch size after which throughput no longer grows, all run times, and the size that failed."""
    best, without_gain, swept_ms = own, 0, {own.batch: own.run_ms}
    for smaller, batch in pairwise(batches):
        expected_ms = swept_ms[smaller] * batch / smaller
        if expected_ms > LONGEST_RUN_MS or without_gain == 2:
            break
        try:
            swept_ms[batch] = _once(worker, batch, expected_ms)
        except ModelError:
            return best, swept_ms, batch
        way = _Way(batch=batch, layout=own.layout, run_ms=swept_ms[batch])
        if way.rate > WORTHWHILE_GAIN * best.rate:
            best, without_gain = way, 0
        else:
            without_gain += 1
    return best, swept_ms, None


def _once(worker: Worker, batch: int, expected_ms: float) -> float:
    """Return how long a run of all sessions takes, from one short block."""
    runs = max(3, math.ceil(BLOCK_MS / expected_ms))
    durations = worker.measure(batch, runs).durations_ns
    sessions = len(durations) / runs
    return sorted(durations)[len(durations) // 2] / 1e6 if sessions == 1 else sum(durations) / 1e6 / runs
