"""How often the intervals behind a verdict hold, and how often a verdict is wrong, with the product's own functions.

    python benchmarks/statistics/coverage.py [TABLE ...] [--trials 2000] [--seed 0] [--worst]

Each row is a cell: a kind of data, and how much of it. The bound is the truth itself, where errors are most frequent.

* ``given``: share of trials with an interval; the others are inconclusive.
* ``holds``: share of trials in which the interval holds the truth; 93 % or more is wanted.
* ``pass``, ``fail``: share of trials in which the verdict passes, or fails, though neither is right; at most 5 %.

It exits with 1 when a cell misses that by more than the simulation's own error.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxpress.bench import statistics
from onnxpress.bench.messages import Served
from onnxpress.bench.server import Sla, highest_rate
from onnxpress.evaluation import metrics
from onnxpress.evaluation.flips import worst_class
from onnxpress.evaluation.paired import drop_interval, tango, value_interval, wilson
from onnxpress.intervals import CONFIDENCE, share_interval

Array = np.ndarray[Any, np.dtype[Any]]
Random = np.random.Generator
HOLDS, WRONG = 0.93, 0.05


@dataclass(frozen=True)
class Cell:
    """What came of the trials of one cell."""

    name: str
    low: Array
    high: Array
    truth: float
    """In between, and the bound."""
    sides: str = "both"
    """``upper`` where only the upper end is claimed."""

    @property
    def given(self) -> float:
        """Share of trials with an interval."""
        return float(np.mean(np.isfinite(self.high)))

    @property
    def holds(self) -> float:
        """Share of trials that hold the truth."""
        return 1 - self.passes - self.fails

    @property
    def passes(self) -> float:
        """Share of trials that pass, one worse being wrong."""
        return float(np.mean(self.high < self.truth))

    @property
    def fails(self) -> float:
        """Share of trials that fail."""
        return 0.0 if self.sides == "upper" else float(np.mean(self.low > self.truth))

    @property
    def sound(self) -> bool:
        """Whether it is as it should be, but for three standard errors of the simulation."""
        trials = len(self.high)
        missed = 1 - HOLDS + 3 * math.sqrt(HOLDS * (1 - HOLDS) / trials)
        wrong = WRONG + 3 * math.sqrt(WRONG * (1 - WRONG) / trials)
        return 1 - self.holds <= missed and max(self.passes, self.fails) <= wrong

    def __str__(self) -> str:
        numbers = (self.given, self.holds, self.passes, self.fails)
        return "  ".join([f"{self.name:<58}", *(f"{100 * number:5.1f}" for number in numbers)])


def proportions(random: Random, trials: int) -> Iterator[Cell]:
    """Right or wrong per sample: the drop, from all changes being losses to as many being won."""
    for count in (20, 50, 100, 200, 500, 2000):
        for lost in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3):
            for won in (0.0, 0.25, 0.5, 1.0)[: 2 if lost == 0.3 else 4]:
                shares = [lost, lost * won, 1 - lost * (1 + won)]
                draws = random.multinomial(count, shares, size=10 * trials)
                low, high = tango(draws[:, 0], draws[:, 1], count)
                yield Cell(f"{count} samples, {lost:.1%} lost, {lost * won:.2%} won", low, high, lost * (1 - won))


VALUES: dict[str, tuple[Callable[[Random, tuple[int, int]], Array], float]] = {
    "normal": (lambda random, shape: random.normal(0, 1, shape), 0.0),
    "Student's t, 3 degrees": (lambda random, shape: random.standard_t(3, shape), 0.0),
    "tied (tenths)": (lambda random, shape: np.round(random.normal(0.03, 0.1, shape), 1), 0.03),
    "exponential": (lambda random, shape: random.exponential(1, shape), 1.0),
    "lognormal, sigma 1": (lambda random, shape: random.lognormal(0, 1, shape), math.exp(0.5)),
    "lognormal, sigma 1.5": (lambda random, shape: random.lognormal(0, 1.5, shape), math.exp(1.125)),
    "Pareto, 2.5": (lambda random, shape: random.pareto(2.5, shape), 1 / 1.5),
    "2% differ": (lambda random, shape: (random.random(shape) < 0.02) * random.exponential(1, shape), 0.02),
    "2% differ, lognormal": (
        lambda random, shape: (random.random(shape) < 0.02) * random.lognormal(0, 1, shape),
        0.02 * math.exp(0.5),
    ),
    "10% differ": (lambda random, shape: (random.random(shape) < 0.1) * random.exponential(1, shape), 0.1),
    "10% differ, both ways": (
        lambda random, shape: (
            (random.random(shape) < 0.1) * random.exponential(1, shape) * np.where(random.random(shape) < 0.7, 1, -1)
        ),
        0.04,
    ),
    "30% differ, lognormal": (
        lambda random, shape: (random.random(shape) < 0.3) * random.lognormal(0, 1, shape),
        0.3 * math.exp(0.5),
    ),
}


def means(random: Random, trials: int) -> Iterator[Cell]:
    """Any value per sample: the drop of its mean."""
    mean = metrics.metric("mean")
    for name, (draw, truth) in VALUES.items():
        for count in (20, 50, 100, 200, 500, 2000):
            base = np.zeros(count)
            rows = draw(random, (trials, count))
            yield _cell(f"{name}, {count} samples", [drop_interval(base, -row, base, mean) for row in rows], truth)


def correlations(random: Random, trials: int) -> Iterator[Cell]:
    """Spearman's correlation, of one model and its drop; ``noise`` makes the models differ."""
    spearman = metrics.metric("spearman")
    for name, noise, levels in (("labels 0 to 5", 0.3, 6), ("no ties", 0.3, 0), ("hardly differ", 0.05, 0)):

        def draw(count: int, noise: float = noise, levels: int = levels) -> tuple[Array, Array, Array]:
            truth = random.normal(size=count)
            shared = truth + 0.6 * random.normal(size=count)
            labels = np.clip(np.round(1.2 * truth + 2.5), 0, levels - 1) if levels else truth
            return labels, shared, shared + noise * random.normal(size=count)

        labels, first, second = draw(1_000_000)
        value = spearman.aggregate(first, labels)
        drop = value - spearman.aggregate(second, labels)
        for count in (30, 50, 100, 300):
            draws = [draw(count) for _ in range(trials // 4)]
            drops = [drop_interval(one, two, each, spearman) for each, one, two in draws]
            yield _cell(f"drop, {name}, {count} samples", drops, drop)
            yield _cell(f"value, {name}, {count} samples", [value_interval(b, a, spearman) for a, b, _ in draws], value)


def shares(random: Random, trials: int) -> Iterator[Cell]:
    """Agreement with the float model (fail: it is taken for better), and the drop that its probabilities foretell."""
    for count in (20, 100, 256, 1000):
        for agreed in (0.9, 0.99, 0.999):
            ends = np.array(
                [share_interval(int(found), count) for found in random.binomial(count, agreed, 10 * trials)]
            )
            yield Cell(f"{agreed:.1%} agree, {count} samples", ends[:, 0], ends[:, 1], agreed)
        for changed in (0.02, 0.1):  # of which each costs up to half a right answer, most of them little
            drops = (random.random((2 * trials, count)) < changed) * random.beta(1, 3, (2 * trials, count))
            ends = np.array([wilson(row.sum(), count) for row in drops])
            yield Cell(f"foretold drop, {changed:.0%} change, {count} samples", ends[:, 0], ends[:, 1], changed / 4)


def classes(random: Random, trials: int) -> Iterator[Cell]:
    """The worst of many classes, which all lose as much, or not at all."""
    for number in (2, 10, 100, 1000):
        for count in (20, 100):
            labels = np.repeat(np.arange(number), count)
            for lost, won in ((0.02, 0.02), (0.04, 0.02), (0.1, 0.0)):
                found = []
                for _ in range(max(200, trials // 10)):
                    change = random.random(len(labels))
                    worst = worst_class(change < 0.8, (change < 0.8 - lost) | (change > 1 - won), labels)
                    found.append([math.nan] * 2 if worst is None else worst["ci95"])
                ends = np.array(found) / 100
                yield Cell(f"{number} classes of {count}, {lost:.0%} lost, {won:.0%} won", *ends.T, lost - won)


def pairs(random: Random, kind: str, number: int, luck: float) -> Array:
    """Return logarithms of the ratios of a process's pairs; their centre is 0.

    Args:
        random: A generator.
        kind: What disturbs them.
        number: How many.
        luck: Standard deviation between processes, whose memory lies elsewhere.
    """
    quiet = random.normal(0, 0.003, number)
    if kind == "tied":
        quiet = np.round(quiet / 0.005) * 0.005
    if kind == "drifting":
        quiet += random.normal(0, 0.01) * np.linspace(-1, 1, number)
    if kind == "autocorrelated":
        for place in range(1, number):
            quiet[place] += 0.7 * quiet[place - 1]
    if kind == "skewed":
        quiet += random.exponential(0.01, number) - random.exponential(0.01, number)
    if kind == "bursty":  # either model is hit
        quiet += (random.random(number) < 0.15) * random.exponential(0.2, number) * random.choice([-1, 1], number)
    return quiet + random.normal(0, luck)


NOISE = {
    **{kind: (kind, 0.0) for kind in ("independent", "tied", "drifting", "autocorrelated", "skewed", "bursty")},
    **{f"processes differ by {luck:.0%}": ("independent", luck) for luck in (0.01, 0.02, 0.04)},
    "bursty, processes differ by 1%": ("bursty", 0.01),
}


def latency(random: Random, trials: int) -> Iterator[Cell]:
    """The ratio of two latencies: logarithms, by process and pair."""
    for name, (kind, luck) in NOISE.items():
        for number, processes in ((8, 3), (8, 5), (12, 4), (20, 4), (30, 3), (30, 5), (40, 5), (40, 10)):
            found = []
            for _ in range(trials):
                sizes = [number // processes + (place < number % processes) for place in range(processes)]
                found.append(statistics.center([pairs(random, kind, size, luck) for size in sizes]))
            low, high = np.array([(each.low, each.high) for each in found]).T
            yield Cell(f"{name}, {number} pairs, {processes} processes", low, high, 0.0)


def looks(random: Random, trials: int) -> Iterator[Cell]:
    """A measurement that ends once the verdict is certain: looks after 4 to 10 processes of 6 pairs."""
    for name, (kind, luck) in NOISE.items():
        ends = []
        for _ in range(trials):
            groups = [pairs(random, kind, 6, luck) for _ in range(10)]
            for count in range(4, 11):
                confidence = CONFIDENCE if count == 10 else statistics.EARLY_CONFIDENCE
                found = statistics.center(groups[:count], confidence)
                if found.low > 0 or found.high <= 0:
                    break
            ends.append((found.low, found.high))
        low, high = np.array(ends).T
        yield Cell(f"{name}, up to 60 pairs", low, high, 0.0)


def runs(random: Random, kind: str, blocks: int, luck: float) -> list[Array]:
    """Return the durations of a process's blocks of 50 runs."""
    found = random.lognormal(0, 0.05, (blocks, 50)) * math.exp(random.normal(0, luck))
    if kind == "blocks differ":
        found *= np.exp(random.normal(0, 0.03, (blocks, 1)))
    if kind.endswith("slow blocks"):
        found *= np.where(random.random((blocks, 1)) < float(kind.partition("%")[0]) / 100, 1.5, 1)
    if kind.endswith("slow runs in bursts"):
        share = float(kind.partition("%")[0]) / 100
        for row, start in zip(*np.nonzero(random.random((blocks, 50)) < share / 10), strict=True):
            found[row, start : start + random.geometric(0.1)] *= 1.5
    return list(found)


def percentiles(random: Random, trials: int) -> Iterator[Cell]:
    """Percentiles of a latency, from five processes."""
    for share, blocks, spoiled in (
        (0.9, (30, 40, 60), (5, 10, 12, 20)),
        (0.95, (60,), (3, 6, 10)),
        (0.99, (300, 500), (0.5, 1.2, 3)),
    ):
        kinds = ["independent", "blocks differ", *(f"{part}% slow blocks" for part in spoiled)]
        kinds += [f"{part}% slow runs in bursts" for part in spoiled[-2:]]
        for kind in [*kinds, "processes differ by 1%", "processes differ by 10%"]:
            luck = float(kind.rpartition(" ")[2][:-1]) / 100 if kind.startswith("processes") else 0.0
            many = [run for _ in range(4000 if luck else 4) for run in runs(random, kind, 2 if luck else 4000, luck)]
            truth = float(np.quantile(np.concatenate(many), share))
            for number in blocks:
                ends = []
                for _ in range(trials // 4):
                    measured = [runs(random, kind, number // 5, luck) for _ in range(5)]
                    ends.append(statistics.percentile_bounds(measured, share))
                low, high = np.array(ends).T
                yield Cell(f"p{100 * share:g}, {number} blocks, {kind}", low, high, truth)


LEVELS = (
    ("constant", 3),
    ("constant", 6),
    ("lognormal", 5),
    ("exponential", 10),
    ("exponential", 30),
    ("1 in 100 slow", 15),
    ("slow for 0.1 s in 2 s", 8),
)
"""How long a request takes, and the limit in ms."""


class Queue:
    """One server with a queue; a request takes a millisecond in the mean."""

    def __init__(self, kind: str, random: Random) -> None:
        self.kind, self.random = kind, random

    def serve(self, rate_per_s: float, requests: int, seed: int) -> Served:
        """Serve requests that arrive at random."""
        del seed  # the generator goes on
        return Served(latencies_ns=tuple(1e6 * self.latencies_ms(rate_per_s, requests)), services_ns=(1_000_000,))  # type: ignore[arg-type]

    def latencies_ms(self, rate_per_s: float, requests: int) -> Array:
        """Return how long requests take from the moment when they are due (Lindley's recursion)."""
        gaps = self.random.exponential(1e3 / rate_per_s, requests)
        took = np.ones(requests)
        if self.kind == "exponential":
            took = self.random.exponential(1, requests)
        if self.kind == "lognormal":
            took = self.random.lognormal(-0.045, 0.3, requests)
        if self.kind == "1 in 100 slow":
            took = np.where(self.random.random(requests) < 0.01, 10, 0.91)
        if self.kind == "slow for 0.1 s in 2 s":
            due = np.cumsum(gaps)
            lengths = self.random.exponential((1900, 100), (int(due[-1] / 1000) + 20, 2))
            took = np.where(np.searchsorted(np.cumsum(lengths), due) % 2, 2.0, 1.0)
        steps = np.concatenate([[0], np.cumsum(took[:-1] - gaps[1:])])
        waits: Array = steps - np.minimum.accumulate(steps) + took
        return waits


def servers(random: Random, trials: int) -> Iterator[Cell]:
    """The highest rate that keeps a service level: ``pass`` is a rate at which the true percentile breaks it."""
    for kind, limit in LEVELS:
        queue, sla = Queue(kind, random), Sla(percent=99, limit_ms=limit)
        rates = np.geomspace(100, 990, 40)
        tails = np.maximum.accumulate([np.quantile(queue.latencies_ms(rate, 500_000), 0.99) for rate in rates])
        for budget_s in (10, 60):
            found = [
                highest_rate(queue, sla, run_ms=1, sessions=1, seed=0, budget_ms=1e3 * budget_s).rate_per_s
                for _ in range(max(50, trials // 20))
            ]
            # As an interval of the tail at the rate that was found: its upper end is the limit.
            tail = np.array([math.nan if rate is None else np.interp(rate, rates, tails) for rate in found])
            high = np.where(np.isnan(tail), math.inf, np.where(tail > limit, limit - 1, limit))
            yield Cell(f"{kind}, p99 <= {limit} ms, {budget_s} s", np.zeros(len(high)), high, limit, sides="upper")


TABLES = {
    table.__name__: table
    for table in (proportions, means, correlations, shares, classes, latency, looks, percentiles, servers)
}


def _cell(name: str, found: list[Any], truth: float) -> Cell:
    low, high = np.array([(each.low, each.high) for each in found]).T
    return Cell(name, low, high, truth)


def main() -> int:
    """Print the tables; return 1 where a cell is not as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], default=[])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worst", action="store_true", help="only what is worst in each table")
    options = parser.parse_args()
    unsound = 0
    for name in options.tables or TABLES:
        table = TABLES[name]
        print(f"\n{(table.__doc__ or name).partition(chr(10))[0]}\n{'':<58}  given  holds   pass   fail")
        cells = []
        for cell in table(np.random.default_rng(options.seed), options.trials):
            cells.append(cell)
            unsound += not cell.sound
            if not options.worst or not cell.sound:
                print(f"{cell}{'' if cell.sound else '  <-'}", flush=True)
        holds, passes, fails = (
            min(cell.holds for cell in cells),
            max(cell.passes for cell in cells),
            max(cell.fails for cell in cells),
        )
        print(f"{name}: {len(cells)} cells, holds {holds:.1%} or more, pass {passes:.1%} and fail {fails:.1%} at most")
    return int(unsound > 0)


if __name__ == "__main__":
    sys.exit(main())
