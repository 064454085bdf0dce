import math
from dataclasses import replace

import numpy as np
import pytest

from onnxpress.bench.comparison import Comparison, certain, compare, disturbed
from onnxpress.bench.messages import Block
from onnxpress.bench.probing import Layout, Probe
from onnxpress.bench.protocol import Variant
from onnxpress.bench.scenarios import PAIRED
from onnxpress.bench.statistics import EARLY_CONFIDENCE, Interval, center
from onnxpress.intervals import CONFIDENCE

SPEED_NS = 2_000_000
QUIET = Block(durations_ns=(1_000_000,) * 50, speed_ns=SPEED_NS, ticks=10, stolen_ticks=0, throttled=0, preempted=0)


def variant(blocks: list[list[Block]], batch: int = 1, scenario: str = "single") -> Variant:
    one = Layout(threads=1, sessions=1)
    probe = Probe(start_ms=1, batch={scenario: batch}, run_ms={scenario: 1}, layout={scenario: one}, refused_batch=None)
    return Variant(probe=probe, loaded=(), warmed_up=(), blocks={scenario: tuple(tuple(group) for group in blocks)})


def block(run_ms: float) -> Block:
    return replace(QUIET, durations_ns=(round(1e6 * run_ms),) * 50)


def noisy(median_ms: float, seed: int) -> list[list[Block]]:
    """Five processes of six blocks; the host's speed wanders by ten percent, and both variants feel the same of it."""
    host = np.random.default_rng(0).normal(1, 0.1, (5, 6))
    own = np.random.default_rng(seed).normal(1, 0.002, (5, 6))
    return [[block(median_ms * float(value)) for value in row] for row in host * own]


def test_pairs_cancel_what_the_host_does() -> None:
    found = compare(
        {"float": variant(noisy(2, 1)), "int8": variant(noisy(1, 2))}, "float", "int8", "single", PAIRED["single"]
    )
    assert found.metric == "latency.p50"
    assert found.ratio.low < 0.5 < found.ratio.high
    assert found.ratio.high - found.ratio.low < 0.005
    assert (found.ratio.count, found.disturbed, found.dropped) == (30, 0, 0)


def test_the_median_of_a_block_counts_not_its_worst_run() -> None:
    spoiled = [
        [replace(one, durations_ns=(*one.durations_ns[:40], *(10**9,) * 10)) for one in row] for row in noisy(1, 2)
    ]
    found = compare(
        {"float": variant(noisy(2, 1)), "int8": variant(spoiled)}, "float", "int8", "single", PAIRED["single"]
    )
    assert found.ratio.value == pytest.approx(0.5, rel=0.01)


def test_offline_compares_samples_per_second_at_each_variants_own_batch() -> None:
    variants = {"a": variant([[block(2)] * 6], 1, "offline"), "b": variant([[block(4)] * 6], 8, "offline")}
    found = compare(variants, "a", "b", "offline", PAIRED["offline"])
    assert found.metric == "throughput.offline"
    assert found.ratio.value == pytest.approx(4)  # 2000/s instead of 500/s


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"throttled": 1}, True),
        ({"stolen_ticks": 1}, False),  # a single tick of ten milliseconds cannot be told from rounding
        ({"stolen_ticks": 2}, True),
        ({"stolen_ticks": 2, "ticks": 100}, False),
        ({"stolen_ticks": 3, "ticks": 100}, True),
        ({"preempted": 5}, False),
        ({"preempted": 6}, True),
        ({"preempted": 6, "durations_ns": (10**9,)}, False),
        ({"preempted": 51, "durations_ns": (10**9,)}, True),
        ({"speed_ns": 1.09 * SPEED_NS}, False),
        ({"speed_ns": 1.11 * SPEED_NS}, True),
        ({"speed_ns": 0.89 * SPEED_NS}, True),
    ],
)
def test_what_disturbs_a_block(changes: dict[str, object], *, expected: bool) -> None:
    assert disturbed(replace(QUIET, **changes), SPEED_NS) is expected  # type: ignore[arg-type]


def test_a_disturbed_block_takes_its_pair_with_it() -> None:
    one, two = noisy(1, 1), noisy(1, 2)
    for row, column in ((0, 0), (1, 2), (4, 5)):
        two[row][column] = replace(block(50), throttled=1)
    one[3][3] = replace(block(50), speed_ns=2 * SPEED_NS)
    found = compare({"float": variant(one), "int8": variant(two)}, "float", "int8", "single", PAIRED["single"])
    assert (found.ratio.count, found.disturbed, found.dropped) == (26, 4, 4)
    assert found.ratio.value == pytest.approx(1, abs=0.002)


def test_when_most_pairs_are_disturbed_all_of_them_stay() -> None:
    two = [[replace(one, throttled=1) for one in row] for row in noisy(1, 2)]
    found = compare({"float": variant(noisy(1, 1)), "int8": variant(two)}, "float", "int8", "single", PAIRED["single"])
    assert (found.ratio.count, found.disturbed, found.dropped) == (30, 30, 0)


def test_luck_of_processes_widens_the_interval() -> None:
    luck = [0.98, 1.02, 0.99, 1.03, 1.0]
    two = [
        [replace(one, durations_ns=(round(one.durations_ns[0] * factor),) * 50) for one in row]
        for factor, row in zip(luck, noisy(1, 2), strict=True)
    ]
    found = compare({"float": variant(noisy(1, 1)), "int8": variant(two)}, "float", "int8", "single", PAIRED["single"])
    standard_error = np.std(np.log(luck), ddof=1) / math.sqrt(5)
    assert found.ratio.low < 1 < found.ratio.high
    assert (found.ratio.high - found.ratio.low) / 2 > 1.5 * standard_error


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "verdict", "improved"),
    [
        (1.06, 1.09, True, "fail", False),
        (1.04, 1.09, True, "inconclusive", False),
        (1.01, 1.05, True, "pass", False),
        (0.90, 0.98, True, "pass", True),
        (0.90, 0.995, True, "pass", False),  # better, but not by more than one percent for sure
        (0.90, 0.94, False, "fail", False),  # less throughput
        (0.94, 0.98, False, "inconclusive", False),
        (1.02, 1.10, False, "pass", True),
    ],
)
def test_verdicts(low: float, high: float, lower_is_better: bool, verdict: str, improved: bool) -> None:
    found = Comparison(
        baseline="float",
        candidate="int8",
        metric="latency.p50",
        lower_is_better=lower_is_better,
        ratio=Interval(value=(low + high) / 2, low=low, high=high, count=30),
        processes=5,
        disturbed=0,
        dropped=0,
    )
    assert (found.verdict(0.05), found.improved) == (verdict, improved)


@pytest.mark.parametrize(
    ("limits", "enough", "expected"),
    [((0.05,), 20, True), ((0.05, -0.5), 20, False), ((-0.6, 0.05), 20, True), ((0.05,), 31, False)],
)
def test_a_measurement_may_end_when_all_limits_are_decided(
    limits: tuple[float, ...], enough: int, expected: bool
) -> None:
    """The candidate takes half of the time: whether it gains exactly 50% stays open, other limits do not."""
    variants = {"float": variant(noisy(2, 1)), "int8": variant(noisy(1, 2))}
    assert certain(variants, "float", {"single": PAIRED["single"]}, limits, enough) is expected


@pytest.mark.parametrize("between", [0.0, 0.02])
def test_looking_early_and_often_hardly_raises_false_alarms(between: float) -> None:
    """A candidate exactly at the limit may fail in 2.5% of the cases, and pass in as many: of 500 trials 12 ± 4.

    There are seven looks; processes are alike, or differ by 2%.
    """
    random = np.random.default_rng(0)
    outcomes = []
    for _ in range(500):
        groups = np.log(1.05) + random.normal(0, 0.02, (10, 6)) + random.normal(0, between, (10, 1))
        for count in range(4, 11):
            found = center(list(groups[:count]), EARLY_CONFIDENCE if count < 10 else CONFIDENCE)
            if found.low > np.log(1.05) or found.high <= np.log(1.05):
                outcomes.append(found.low > np.log(1.05))
                break
    assert sum(outcomes) <= 24 and len(outcomes) - sum(outcomes) <= 24


@pytest.mark.parametrize(("change", "expected"), [(1.0, "pass"), (1.1, "fail")])
def test_a_tenth_more_is_found_and_the_same_model_passes_with_few_pairs(change: float, expected: str) -> None:
    """Processes differ by 1%, the limit is 5%: looks from 24 pairs on end it, mostly at once."""
    random, pairs = np.random.default_rng(0), []
    for _ in range(100):
        groups = np.log(change) + random.normal(0, 0.005, (10, 6)) + random.normal(0, 0.01, (10, 1))
        for count in range(4, 11):
            ratio = center(list(groups[:count]), EARLY_CONFIDENCE if count < 10 else CONFIDENCE).exp()
            found = "fail" if ratio.low > 1.05 else "pass" if ratio.high <= 1.05 else "inconclusive"
            if found != "inconclusive":
                break
        assert found == expected
        pairs.append(6 * count)
    assert np.mean(pairs) < 30


def test_fewer_than_three_processes_decide_nothing() -> None:
    variants = {"float": variant(noisy(2, 1)[:2]), "int8": variant(noisy(1, 2)[:2])}
    found = compare(variants, "float", "int8", "single", PAIRED["single"])
    assert (found.processes, found.verdict(0.05), found.improved) == (2, "inconclusive", False)
    three = {"float": variant(noisy(2, 1)[:3]), "int8": variant(noisy(1, 2)[:3])}
    assert compare(three, "float", "int8", "single", PAIRED["single"]).verdict(0.05) == "pass"
