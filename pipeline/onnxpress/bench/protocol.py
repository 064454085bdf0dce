"""The order in which things are measured, so that what is compared was measured under the same conditions.

1. *Probe*: one throw-away process per variant tells how long starts and runs take and which batch size is best; it also
   warms the page cache, so that all cold starts that count find the model file there.
2. *Plan*: as many processes, pairs and runs as the budget allows.
3. *Replicates*: several times over, all variants get a fresh process each (load, first run, warm-up), and then take
   turns, block by block, in an order that is shuffled in every round. Only one process works at a time.

Several processes per variant, because memory layout and placement make each a little faster or slower for all its life:
without them, that luck would pass for a difference between models.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from onnxpress.bench.messages import Block, Loaded, WarmedUp
from onnxpress.bench.runner import LEAD_IN_RUNS
from onnxpress.bench.scenarios import SCENARIOS
from onnxpress.bench.statistics import MIN_PAIRS
from onnxpress.errors import ModelError

REPLICATES = 5
BLOCK_MS = 50
"""Least duration of a block."""
BLOCK_OVERHEAD_MS = 4
"""Speedometer and messages around a block."""
ENOUGH_PAIRS = 20
"""Below this, an interval is too wide to bet on: blocks are made shorter before there are fewer."""
START_SHARE = 0.5
"""Of the budget, for starting processes."""
LONGEST_RUN_MS = 200
"""Batch sizes that take longer are not tried."""
WORTHWHILE_GAIN = 1.05
"""Of throughput, for a larger batch to be preferred."""

Advance = Callable[[int], object]
Clock = Callable[[], float]


class Worker(Protocol):
    """A process that runs one variant (`process.WorkerProcess`; something simpler in tests)."""

    def load(self) -> Loaded:
        """Load the model and run it once."""

    def warm_up(self, batch: int) -> WarmedUp:
        """Run until the durations are steady."""

    def measure(self, batch: int, runs: int) -> Block:
        """Time one block of runs."""

    def close(self) -> None:
        """End the process."""


Launch = Callable[[str], Worker]
"""Starts a worker for a variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is known of a variant before the measurement."""

    start_ms: float
    """Start, load, first run and warm-up of a process."""
    batch: Mapping[str, int]
    """Batch size by scenario."""
    run_ms: Mapping[str, float]
    """Duration of one run, by scenario."""
    refused_batch: int | None
    """The batch size that the model could not take though its batch axis is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    rounds: tuple[int, ...]
    """Rounds of each replicate."""
    runs: Mapping[tuple[str, str], int]
    """Runs of a block, by scenario and variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Everything that was measured of one variant."""

    probe: Probe
    loaded: tuple[Loaded, ...]
    """By replicate."""
    warmed_up: tuple[WarmedUp, ...]
    blocks: Mapping[str, tuple[tuple[Block, ...], ...]]
    """By scenario, by replicate, in the order of the rounds: blocks of equal place make a pair."""


def measure(
    variants: Sequence[str],
    launch: Launch,
    *,
    scenarios: Sequence[str],
    batches: Sequence[int],
    pairs: int,
    budget_ms: float,
    seed: int,
    clock: Clock,
    advance: Advance,
) -> dict[str, Variant]:
    """Measure all variants.

    Args:
        variants: Their names.
        launch: Starts a worker.
        scenarios: Names in `scenarios.SCENARIOS`.
        batches: Batch sizes that may be tried, the smallest first; the smallest is the one of `single`.
        pairs: Rounds that are wanted.
        budget_ms: About how long everything may take.
        seed: Of the order of the blocks.
        clock: Seconds.
        advance: Called with the percent done since the last call, 100 in all.

    Raises:
        ModelError: a model cannot be loaded or run, or a worker died.

    """
    begin = clock()
    meter = _Meter(advance)
    probes = {}
    for name in variants:
        with closing(launch(name)) as worker:
            probes[name] = probe(worker, scenarios, batches, clock)
        meter.reach(15 * len(probes) / len(variants))
    left_ms = budget_ms - 1e3 * (clock() - begin)
    steps = plan(probes, scenarios, pairs=pairs, budget_ms=left_ms)
    end, least = clock() + left_ms / 1e3, math.ceil(MIN_PAIRS / len(steps.rounds))
    shuffled = random.Random(seed)  # noqa: S311 - an order, not a secret
    loaded: dict[str, list[Loaded]] = {name: [] for name in variants}
    warmed_up: dict[str, list[WarmedUp]] = {name: [] for name in variants}
    blocks: dict[str, dict[str, list[tuple[Block, ...]]]] = {
        name: {scenario: [] for scenario in scenarios} for name in variants
    }
    for replicate, rounds in enumerate(steps.rounds):
        with ExitStack() as stack:
            starting = clock()
            workers = {}
            for name in shuffled.sample(variants, len(variants)):
                workers[name] = stack.enter_context(closing(launch(name)))
                loaded[name].append(workers[name].load())
                warmed_up[name].append(workers[name].warm_up(batches[0]))
            later = len(steps.rounds) - replicate - 1
            end_of_rounds = end - later * (clock() - starting)
            for number, scenario in enumerate(scenarios):
                taken: dict[str, list[Block]] = {name: [] for name in variants}
                due = clock() + (end_of_rounds - clock()) / (len(scenarios) * (later + 1) - number)
                for turn in range(rounds):
                    if turn >= least and clock() > due:  # everything takes longer than it did in the probe
                        break
                    for name in shuffled.sample(variants, len(variants)):
                        batch, runs = probes[name].batch[scenario], steps.runs[scenario, name]
                        taken[name].append(workers[name].measure(batch, runs))
                    done = (replicate + (number + (turn + 1) / rounds) / len(scenarios)) / len(steps.rounds)
                    meter.reach(15 + 85 * done)
                for name in variants:
                    blocks[name][scenario].append(tuple(taken[name]))
    meter.reach(100)
    return {
        name: Variant(
            probe=probes[name],
            loaded=tuple(loaded[name]),
            warmed_up=tuple(warmed_up[name]),
            blocks={scenario: tuple(taken) for scenario, taken in blocks[name].items()},
        )
        for name in variants
    }


def probe(worker: Worker, scenarios: Sequence[str], batches: Sequence[int], clock: Clock) -> Probe:
    """Find out how long a variant's start and runs take, and its best batch size."""
    start = clock()
    worker.load()
    single_ms = worker.warm_up(batches[0]).run_ms
    start_ms = 1e3 * (clock() - start)
    best, refused = (batches[0], single_ms), None
    if any(SCENARIOS[name].best_batch for name in scenarios):
        best, refused = _sweep(worker, batches, single_ms)
    chosen = {name: best if SCENARIOS[name].best_batch else (batches[0], single_ms) for name in scenarios}
    return Probe(
        start_ms=start_ms,
        batch={name: batch for name, (batch, _) in chosen.items()},
        run_ms={name: run_ms for name, (_, run_ms) in chosen.items()},
        refused_batch=refused,
    )


def _sweep(worker: Worker, batches: Sequence[int], single_ms: float) -> tuple[tuple[int, float], int | None]:
    """Return the batch size after which throughput no longer grows, with its run time; and the one that failed."""
    best, without_gain = (batches[0], single_ms), 0
    run_ms = single_ms
    for smaller, batch in pairwise(batches):
        expected_ms = run_ms * batch / smaller
        if expected_ms > LONGEST_RUN_MS or without_gain == 2:
            break
        try:
            block = worker.measure(batch, max(3, math.ceil(BLOCK_MS / expected_ms)))
        except ModelError:
            return best, batch
        run_ms = sorted(block.durations_ns)[len(block.durations_ns) // 2] / 1e6
        if batch / run_ms > WORTHWHILE_GAIN * best[0] / best[1]:
            best, without_gain = (batch, run_ms), 0
        else:
            without_gain += 1
    return best, None


def plan(probes: Mapping[str, Probe], scenarios: Sequence[str], *, pairs: int, budget_ms: float) -> Plan:
    """Choose how much is measured within a budget.

    Starts may take half of the budget, so heavy models get fewer replicates. Of the rest, there are as many pairs as
    were asked for, or as fit; rather than fewer than `ENOUGH_PAIRS`, blocks get shorter, down to a single run. There
    are `MIN_PAIRS` in any case: without an interval, a comparison would say nothing.
    """
    starts_ms = sum(probe.start_ms for probe in probes.values())
    replicates = max(1, min(REPLICATES, int(START_SHARE * budget_ms / starts_ms)))
    available_ms = budget_ms - replicates * starts_ms
    durations = {(scenario, name): probe.run_ms[scenario] for name, probe in probes.items() for scenario in scenarios}
    runs = {key: max(SCENARIOS[key[0]].min_runs, math.ceil(BLOCK_MS / run_ms)) for key, run_ms in durations.items()}

    around_ms = sum(LEAD_IN_RUNS * run_ms + BLOCK_OVERHEAD_MS for run_ms in durations.values())

    def timed_ms(runs: Mapping[tuple[str, str], int]) -> float:
        return sum(count * durations[key] for key, count in runs.items())

    wanted = min(pairs, ENOUGH_PAIRS)
    if wanted * (timed_ms(runs) + around_ms) > available_ms:
        share = max(0.0, (available_ms / wanted - around_ms) / timed_ms(runs))
        runs = {key: max(1, int(share * count)) for key, count in runs.items()}
        pairs = wanted
    affordable = int(available_ms / (timed_ms(runs) + around_ms))
    rounds = max(MIN_PAIRS, min(pairs, affordable))
    replicates = min(replicates, rounds)
    return Plan(
        rounds=tuple(rounds // replicates + (number < rounds % replicates) for number in range(replicates)), runs=runs
    )


class _Meter:
    """Turns a share of the whole into steps of whole percents."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._shown = advance, 0

    def reach(self, percent: float) -> None:
        self._advance(round(percent) - self._shown)
        self._shown = round(percent)
