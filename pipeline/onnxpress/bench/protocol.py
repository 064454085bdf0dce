"""The order in which things are measured, so that what is compared was measured under the same conditions.

1. *Probe*: throw-away processes tell how long each variant's starts and runs take, and which batch size, threads and
   sessions give the highest throughput (`probing`); they also warm the page cache, so that all cold starts that count
   find the model file there.
2. *Plan*: as many processes, pairs and runs as the budget allows.
3. *Replicates*: several times over, all variants get a fresh process each (load, first run, warm-up), and then take
   turns, block by block, in an order that is shuffled in every round. Only one process works at a time.
4. *Looks*: after a replicate, what was measured so far may be enough for every verdict; then it ends early. While a
   verdict is open, replicates are added as long as the budget lasts.

Several processes per variant, because memory layout and placement make each a little faster or slower for all its life:
without them, that luck would pass for a difference between models.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from onnxpress.bench.messages import Block, Loaded, WarmedUp
from onnxpress.bench.probing import BLOCK_MS, Clock, Launch, Layout, Probe, Probing, Worker
from onnxpress.bench.runner import LEAD_IN_RUNS
from onnxpress.bench.scenarios import Scenario
from onnxpress.bench.statistics import MIN_PAIRS, MIN_PROCESSES

REPLICATES = 5
BLOCK_OVERHEAD_MS = 4
"""Speedometer and messages around a block."""
ENOUGH_PAIRS = 20
"""Below this, an interval is too wide to bet on: blocks are made shorter before there are fewer."""
LONGEST = 2
"""How many times the pairs that were wanted are taken while a verdict is open and the budget lasts."""
START_SHARE, LEAST_SHARE, QUICK_STARTS_MS = 0.5, 0.8, 10_000
"""Of the budget, for starting `REPLICATES` processes of each variant, and for `MIN_PROCESSES`: this, or so long."""
Advance = Callable[[int], object]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that was measured."""

    variants: dict[str, Variant]
    scenarios: dict[str, Scenario]
    """Those of the sweep included."""
    certain: bool
    """Whether it ended because more could not change a verdict."""


Decided = Callable[[dict[str, Variant], Mapping[str, Scenario]], bool]


def measure(
    variants: Sequence[str],
    launch: Launch,
    *,
    scenarios: Mapping[str, Scenario],
    sweep: Sequence[int] | None,
    batches: Sequence[int],
    ways: Sequence[Layout],
    pairs: int,
    budget_ms: float,
    seed: int,
    clock: Clock,
    decided: Decided | None,
    advance: Advance,
) -> Outcome:
    """Measure all variants.

    Args:
        variants: Their names.
        launch: Starts a worker.
        scenarios: What is measured, by name.
        sweep: Batch sizes that are scenarios of their own; empty for those of ``batches`` up to which throughput grows,
            None for no sweep.
        batches: Batch sizes that may be tried, the smallest first; the smallest is the model's own.
        ways: Layouts that may be tried; the first is that of all scenarios but the best throughput.
        pairs: Rounds that are wanted.
        budget_ms: About how long everything may take.
        seed: Of the order of the blocks.
        clock: Seconds.
        decided: Looks at what was measured after each replicate, once there are `ENOUGH_PAIRS`, and tells whether more
            could not change a verdict. Until then replicates are added, up to `LONGEST` times as many as planned. None
            for exactly those that were planned.
        advance: Called with the percent done since the last call, 100 in all.

    Raises:
        ModelError: a model cannot be loaded or run, or a worker died.

    """
    begin = clock()
    meter = Meter(advance)
    probing = Probing(launch, scenarios, sweep, batches, ways, clock)
    for name in variants:
        probing.look_at(name)
        meter.reach(15 * len(probing.seen) / len(variants))
    scenarios, probes = probing.conclude()
    left_ms = budget_ms - 1e3 * (clock() - begin)
    steps = plan(probes, scenarios, pairs=pairs, budget_ms=left_ms)
    end, planned = clock() + left_ms / 1e3, len(steps.rounds)
    shuffled = random.Random(seed)  # noqa: S311 - an order, not a secret
    taken = _Replicates(variants, launch, probes, scenarios, steps, ways[0], batches[0], clock, shuffled)
    certain, begin, took_s = False, clock(), 0.0

    def goes_on() -> bool:
        if taken.count < planned:
            return True
        worthwhile = decided is not None and sum(steps.rounds) >= ENOUGH_PAIRS and taken.count < LONGEST * planned
        return worthwhile and clock() + took_s <= end

    while not certain and goes_on():
        begin = clock()
        taken.add(
            rounds=steps.rounds[min(taken.count, planned - 1)],
            end=end,
            later=max(0, planned - taken.count - 1),
            reach=lambda share: meter.reach(15 + 85 * min(1, share / planned)),
        )
        took_s = clock() - begin
        certain = decided is not None and taken.pairs >= ENOUGH_PAIRS and decided(taken.found(), scenarios)
    meter.reach(100)
    return Outcome(variants=taken.found(), scenarios=dict(scenarios), certain=certain)


class _Replicates:
    """Measures one replicate after the other: fresh processes of all variants that take turns."""

    def __init__(
        self,
        variants: Sequence[str],
        launch: Launch,
        probes: Mapping[str, Probe],
        scenarios: Mapping[str, Scenario],
        steps: Plan,
        own: Layout,
        batch: int,
        clock: Clock,
        shuffled: random.Random,
    ) -> None:
        self._variants, self._launch, self._probes, self._scenarios = variants, launch, probes, scenarios
        self._steps, self._own, self._batch, self._clock, self._shuffled = steps, own, batch, clock, shuffled
        self._least = math.ceil(MIN_PAIRS / len(steps.rounds))
        self._loaded: dict[str, list[Loaded]] = {name: [] for name in variants}
        self._warmed_up: dict[str, list[WarmedUp]] = {name: [] for name in variants}
        self._blocks: dict[str, dict[str, list[tuple[Block, ...]]]] = {
            name: {scenario: [] for scenario in scenarios} for name in variants
        }

    @property
    def count(self) -> int:
        """How many replicates there are."""
        return len(self._loaded[self._variants[0]])

    @property
    def pairs(self) -> int:
        """How many pairs there are of each scenario, at least."""
        return min(sum(map(len, groups)) for groups in self._blocks[self._variants[0]].values())

    def add(self, *, rounds: int, end: float, later: int, reach: Callable[[float], object]) -> None:
        """Measure a replicate.

        Args:
            rounds: Turns of each scenario; fewer when there is no time left.
            end: When all replicates must be done.
            later: Replicates that are planned after this one; time for starting them is kept free.
            reach: Called with how many replicates are done.

        """
        clock, shuffled, before = self._clock, self._shuffled, self.count
        with ExitStack() as stack:
            starting = clock()
            workers: dict[tuple[str, Layout], Worker] = {}
            for name in shuffled.sample(self._variants, len(self._variants)):
                for layout in dict.fromkeys((self._own, *self._probes[name].layout.values())):
                    worker = workers[name, layout] = stack.enter_context(closing(self._launch(name, layout)))
                    first, warm = worker.load(), worker.warm_up(self._batch)
                    if layout == self._own:
                        self._loaded[name].append(first)
                        self._warmed_up[name].append(warm)
            end_of_rounds = end - later * (clock() - starting)
            for number, (scenario, meaning) in enumerate(self._scenarios.items()):
                taken: dict[str, list[Block]] = {name: [] for name in self._variants}
                due = clock() + (end_of_rounds - clock()) / (len(self._scenarios) * (later + 1) - number)
                for turn in range(rounds):
                    if turn >= self._least and clock() > due:  # everything takes longer than it did in the probe
                        break
                    for name in shuffled.sample(self._variants, len(self._variants)):
                        probe = self._probes[name]
                        batch, runs = probe.batch[scenario], self._steps.runs[scenario, name]
                        worker = workers[name, probe.layout[scenario]]
                        taken[name].append(worker.measure(batch, runs, copies=meaning.copies))
                    reach(before + (number + (turn + 1) / rounds) / len(self._scenarios))
                for name in self._variants:
                    self._blocks[name][scenario].append(tuple(taken[name]))

    def found(self) -> dict[str, Variant]:
        """Return what was measured so far."""
        return {
            name: Variant(
                probe=self._probes[name],
                loaded=tuple(self._loaded[name]),
                warmed_up=tuple(self._warmed_up[name]),
                blocks={scenario: tuple(taken) for scenario, taken in self._blocks[name].items()},
            )
            for name in self._variants
        }


def plan(probes: Mapping[str, Probe], scenarios: Mapping[str, Scenario], *, pairs: int, budget_ms: float) -> Plan:
    """Choose how much is measured within a budget.

    Starts may take half of the budget, and more for `MIN_PROCESSES`, so heavy models get fewer replicates. Of the rest,
    there are as many pairs as were asked for, or as fit; rather than fewer than `ENOUGH_PAIRS`, blocks get shorter,
    down to a single run. There are `MIN_PAIRS` in any case: without an interval, a comparison would say nothing.
    """
    starts_ms = sum(probe.start_ms for probe in probes.values())
    wanted = min(REPLICATES, int(START_SHARE * budget_ms / starts_ms))
    least = min(MIN_PROCESSES, int(max(LEAST_SHARE * budget_ms, QUICK_STARTS_MS) / starts_ms))
    replicates = max(1, wanted, least)
    available_ms = budget_ms - replicates * starts_ms
    durations = {(scenario, name): probe.run_ms[scenario] for name, probe in probes.items() for scenario in scenarios}
    runs = {key: max(scenarios[key[0]].min_runs, math.ceil(BLOCK_MS / run_ms)) for key, run_ms in durations.items()}

    around_ms = sum(LEAD_IN_RUNS * run_ms + BLOCK_OVERHEAD_MS for run_ms in durations.values())

    def timed_ms(runs: Mapping[tuple[str, str], int]) -> float:
        return sum(count * durations[key] for key, count in runs.items())

    enough = min(pairs, ENOUGH_PAIRS)
    if enough * (timed_ms(runs) + around_ms) > available_ms:
        share = max(0.0, (available_ms / enough - around_ms) / timed_ms(runs))
        runs = {key: max(1, int(share * count)) for key, count in runs.items()}
        pairs = enough
    rounds = max(MIN_PAIRS, min(pairs, int(available_ms / (timed_ms(runs) + around_ms))))
    replicates = min(replicates, rounds)
    return Plan(
        rounds=tuple(rounds // replicates + (number < rounds % replicates) for number in range(replicates)), runs=runs
    )


class Meter:
    """Turns what is done of the whole into steps of whole percents."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._shown = advance, 0

    def reach(self, percent: float) -> None:
        """Say how much is done."""
        self._advance(round(percent) - self._shown)
        self._shown = round(percent)
