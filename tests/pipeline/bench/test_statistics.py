import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onnxpress.bench import BLOCKS, statistics

numbers = st.floats(min_value=-100, max_value=100, allow_subnormal=False).map(lambda number: round(number, 3))
samples = st.lists(numbers, min_size=6, max_size=30)


def test_hodges_lehmann_of_the_published_depression_data() -> None:
    # Hollander and Wolfe, Nonparametric Statistical Methods, table 3.1; wilcox.test(x, y, paired=TRUE, conf.int=TRUE)
    # of R gives the pseudomedian 0.46 and the interval [0.01, 0.786].
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    found = statistics.center([tuple(before - after)])
    assert found.value == pytest.approx(0.46)
    assert (found.low, found.high) == (pytest.approx(0.010), pytest.approx(0.786))
    assert found.count == 9


# Two-sided critical values at 5% of the signed-rank test, from Wilcoxon's table as it is found in textbooks.
@pytest.mark.parametrize(
    ("count", "critical"),
    [(5, None), (6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (12, 13), (15, 25), (20, 52), (25, 89), (30, 137), (50, 434)],
)
def test_critical_values_of_the_published_table(count: int, critical: int | None) -> None:
    assert statistics.signed_rank_critical(count) == critical


@pytest.mark.parametrize("count", [30, 60, 200])
def test_critical_values_approach_the_normal_distribution(count: int) -> None:
    mean, deviation = count * (count + 1) / 4, math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    assert statistics.signed_rank_critical(count) == pytest.approx(mean - 1.96 * deviation, abs=2)


# MLPerf inference rules, early stopping with one discarded query: 64, 662 and 6,636 at 99%.
@pytest.mark.parametrize(
    ("share", "confidence", "count"),
    [
        (0.9, 0.99, 64),
        (0.95, 0.99, 130),
        (0.99, 0.99, 662),
        (0.999, 0.99, 6636),
        (0.9, 0.95, 46),
        (0.95, 0.95, 93),
        (0.99, 0.95, 473),
        (0.999, 0.95, 4742),
        (0.5, 0.95, 1),
    ],
)
def test_minimal_count_of_a_percentile(share: float, confidence: float, count: int) -> None:
    assert statistics.minimal_count(share, confidence) == count


def test_a_percentile_is_named_only_above_its_minimal_count() -> None:
    assert statistics.percentile(range(45), 90) is None
    assert statistics.percentile(range(46), 90) == pytest.approx(40.5)
    assert statistics.percentile(range(101), 99) is None
    assert statistics.percentile([3, 1, 2], 50) == 2


@given(samples)
def test_deviation_as_scipy_computes_it(values: list[float]) -> None:
    assert statistics.mad(values) == pytest.approx(stats.median_abs_deviation(values, scale="normal"), rel=1e-4)


def test_coefficient_of_variation() -> None:
    assert statistics.cov_pct([9, 10, 11]) == pytest.approx(10)
    assert statistics.cov_pct([9]) is None


def test_outliers_are_counted_by_tukeys_fences() -> None:
    # quartiles 2 and 4: fences at -1 and 7, and at -4 and 10
    values = [1, 2, 2, 2, 3, 3, 4, 4, 4, 7, 7.5, -2, 10.5]
    low, high = np.percentile(values, [25, 75])
    assert (low, high) == (2, 4)
    assert statistics.outliers(values) == statistics.Outliers(mild=2, severe=1)
    assert statistics.outliers([5, 5, 5, 5, 9]) == statistics.Outliers(mild=0, severe=1)


@given(st.lists(st.lists(numbers, min_size=1, max_size=8), min_size=2, max_size=6))
def test_design_effect_is_kruskal_and_wallis_statistic(groups: list[list[float]]) -> None:
    if len({value for group in groups for value in group}) < 2:
        assert statistics.design_effect(groups) == 1
    else:
        expected = stats.kruskal(*groups).statistic / (len(groups) - 1)
        assert statistics.design_effect(groups) == pytest.approx(max(1, expected))


@given(samples, numbers)
def test_centre_moves_with_the_data_and_lies_in_its_interval(values: list[float], shift: float) -> None:
    found = statistics.center([values])
    assert min(values) - 1e-9 <= found.low <= found.value <= found.high <= max(values) + 1e-9
    moved = statistics.center([[value + shift for value in values]])
    assert [moved.low, moved.value, moved.high] == pytest.approx(
        [found.low + shift, found.value + shift, found.high + shift], abs=1e-9
    )
    mirrored = statistics.center([[-value for value in values]])
    assert [mirrored.low, mirrored.value, mirrored.high] == pytest.approx(
        [-found.high, -found.value, -found.low], abs=1e-9
    )


def test_centre_is_not_moved_by_wild_values() -> None:
    quiet = [0.9, 1.1, 1.0, 1.05, 0.95, 1.02, 0.98, 1.01, 0.99, 1.03]
    assert statistics.center([[*quiet, 50.0, 80.0]]).value == pytest.approx(1.0, abs=0.05)


def test_too_few_observations_are_refused() -> None:
    with pytest.raises(ValueError, match="5 observations are too few"):
        statistics.center([[1, 2, 3], [4, 5]])


@pytest.mark.parametrize("between", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (5, 6), (8, 5)])
def test_intervals_hold_also_when_processes_differ(between: float, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(7)
    groups = random.normal(0, 0.3, (800, *shape)) + random.normal(0, between, (800, shape[0], 1))
    found = [statistics.center(group) for group in groups]
    # 93 % of all, less what 800 trials can miss it by.
    assert np.mean([interval.low <= 0 <= interval.high for interval in found]) >= 0.93 - 2 * math.sqrt(
        0.93 * 0.07 / 800
    )


def test_a_disturbed_block_is_not_taken_for_a_process_that_differs() -> None:
    random = np.random.default_rng(7)
    quiet = random.normal(0, 0.003, (5, 8))
    spoiled = quiet.copy()
    spoiled[2, 3] = 2.0
    plain, found = statistics.center(quiet), statistics.center(spoiled)
    assert found.high - found.low < 1.5 * (plain.high - plain.low)


def test_an_interval_that_ignores_processes_would_not_hold() -> None:
    random = np.random.default_rng(7)
    groups = random.normal(0, 0.3, (600, 5, 6)) + random.normal(0, 1.0, (600, 5, 1))
    found = [statistics.center(group.reshape(1, -1)) for group in groups]
    assert np.mean([interval.low <= 0 <= interval.high for interval in found]) < 0.7


def test_exponential_of_an_interval() -> None:
    found = statistics.Interval(value=0, low=-math.log(2), high=math.log(2), count=9).exp()
    assert (found.value, found.low, found.high, found.count) == (1, pytest.approx(0.5), pytest.approx(2), 9)


def test_guaranteed_percentile_is_the_early_stopping_estimate() -> None:
    random = np.random.default_rng(0)
    # Binomial: of 299 values none above p99 would be a surprise at 5%, of 473 no more than one.
    values = random.permutation(473.0 + np.zeros(473) + np.arange(473))
    assert statistics.guaranteed(values[:298], 0.99) == math.inf
    # The share of samples in which it covers the true percentile.
    covered = [statistics.guaranteed(random.random(1000), 0.9) >= 0.9 for _ in range(1000)]
    assert np.mean(covered) >= 0.95


def bursts(random: np.random.Generator, count: int, share: float, length: int) -> list[float]:
    """Durations of 1 ± 5 %; a share of them, in bursts of a mean length, half as long again."""
    slow = np.zeros(count, bool)
    for start in np.flatnonzero(random.random(count) < share / length):
        slow[start : start + random.geometric(1 / length)] = True
    return list(np.where(slow, 1.5, 1.0) * np.exp(random.normal(0, 0.05, count)))


@pytest.mark.parametrize(("share", "length"), [(0.0, 1), (0.02, 10), (0.05, 50)])
def test_guaranteed_percentile_holds_also_for_bursts(share: float, length: int) -> None:
    random = np.random.default_rng(0)
    true = float(np.quantile(bursts(random, 1_000_000, share, length), 0.99))
    held = [statistics.guaranteed(bursts(random, 5000, share, length), 0.99) >= true for _ in range(200)]
    assert np.mean(held) >= 0.93 - 2 * math.sqrt(0.93 * 0.07 / 200)


def test_a_percentile_is_bounded_by_blocks_not_by_runs() -> None:
    random = np.random.default_rng(0)

    def processes(blocks: int) -> list[list[list[float]]]:
        return [[list(random.lognormal(0, 0.05, 50)) for _ in range(blocks)] for _ in range(5)]

    low, high = statistics.percentile_bounds(processes(6), 0.9)
    assert low < math.exp(0.05 * 1.2816) < high
    assert statistics.percentile_bounds(processes(6), 0.99)[1] == math.inf  # though there are 1,500 runs
    shares = {"p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
    assert {name: statistics.enough_blocks(share) for name, share in shares.items()} == BLOCKS
    assert math.isfinite(statistics.percentile_bounds(processes(80), 0.99)[1])
    assert statistics.percentile_bounds(processes(80)[:2], 0.99) == (-math.inf, math.inf)


@pytest.mark.parametrize("slow", [0.05, 0.1, 0.12, 0.2])
def test_bounds_of_a_percentile_hold_where_whole_blocks_are_slow(slow: float) -> None:
    random = np.random.default_rng(0)

    def blocks(count: int) -> list[list[float]]:
        factors = np.where(random.random(count) < slow, 1.5, 1.0)
        return [list(factor * random.lognormal(0, 0.05, 50)) for factor in factors]

    true, held = float(np.quantile(blocks(20_000), 0.9)), []
    for _ in range(300):
        low, high = statistics.percentile_bounds([blocks(8) for _ in range(5)], 0.9)
        held.append(low <= true <= high)
    assert np.mean(held) >= 0.93 - 2 * math.sqrt(0.93 * 0.07 / 300)
