"""Intervals against published values, and by how often they hold the truth."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onnxpress.evaluation import metrics
from onnxpress.evaluation.paired import (
    LEAST_CHANGES,
    LEAST_SAMPLES,
    contributions,
    drop_interval,
    percentile_interval,
    tango,
    two_values,
    value_interval,
    wilson,
)
from onnxpress.intervals import Array, mean_interval

counts = st.integers(0, 60)
mean, spearman = metrics.metric("mean"), metrics.metric("spearman")


def test_wilson_matches_newcombe_1998() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(
    ("lost", "won", "count", "low", "high"),
    [
        # M. W. Fagerland, S. Lydersen, P. Laake, Statistics in Medicine 33 (2014) 2850-2875: airway
        # hyper-responsiveness, 1, 1, 7, 12; also the value of the R packages contingencytables and ratesci.
        (1, 7, 21, -0.517, -0.026),
        # Nothing changed: z^2 / (n + z^2).
        (0, 0, 20, -0.16113, 0.16113),
        (20, 0, 20, 0.67765, 1.0),
    ],
)
def test_tango_matches_published_values(lost: int, won: int, count: int, low: float, high: float) -> None:
    assert tango(lost, won, count) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


@example(both=0, lost=0, won=25, neither=0)  # ends at -1
@given(both=counts, lost=counts, won=counts, neither=counts)
def test_the_interval_holds_the_estimate_and_turns_with_the_sides(both: int, lost: int, won: int, neither: int) -> None:
    n = both + lost + won + neither
    if n == 0:
        return
    low, high = map(float, tango(lost, won, n))
    assert -1 <= low <= (lost - won) / n + 1e-12 and (lost - won) / n - 1e-12 <= high <= 1
    assert tuple(map(float, tango(won, lost, n))) == pytest.approx((-high, -low))
    if not lost and not won:
        assert high == pytest.approx(1.959964**2 / (n + 1.959964**2))  # what was not seen may still happen


@given(lost=st.integers(1, 30), won=st.integers(0, 30), more=st.integers(0, 200))
def test_the_ends_are_where_the_score_test_rejects(lost: int, won: int, more: int) -> None:
    """T(end) = ±1.96, with the maximum of the likelihood found by brute force instead of by its formula."""
    n = lost + won + more
    for end in map(float, tango(lost, won, n)):
        if abs(end) > 0.999:
            continue
        shares = np.linspace(max(0.0, -end), (1 - end) / 2, 200_001)[1:-1]  # of those won; lost are `end` more
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = (
                (lost * np.log(shares + end) if lost else 0)
                + (won * np.log(shares) if won else 0)
                + (more * np.log(1 - end - 2 * shares) if more else 0)
            )
        best = shares[np.nanargmax(likelihood)]
        statistic = (lost - won - n * end) / np.sqrt(n * (2 * best + end * (1 - end)))
        assert abs(statistic) == pytest.approx(1.96, abs=0.02)


@pytest.mark.parametrize("count", [20, 200, 2000])
@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.0), (0.02, 0.01), (0.1, 0.05), (0.3, 0.0)])
def test_tango_holds_and_hardly_ever_passes_wrongly(count: int, lost: float, won: float) -> None:
    """At the bound itself 2.5 % of wrong passes are due; 4,000 trials tell them from 3.4 %."""
    draws = np.random.default_rng(0).multinomial(count, [lost, won, 1 - lost - won], size=4000)
    low, high = tango(draws[:, 0], draws[:, 1], count)
    assert np.mean((low <= lost - won) & (lost - won <= high)) >= 0.93
    assert np.mean(high < lost - won) <= 0.034


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 1, 0], (0, 1)),
        ([True, True], (0, 1)),
        ([1.0] * 20, (0, 1)),  # all right: a proportion, not a certainty
        ([0.0, 100.0] * LEAST_CHANGES, (0, 100)),
        ([-1.0, 0.0] * LEAST_CHANGES, (-1, 0)),
        ([0.0] * 50 + [0.37], None),  # one value of many
        ([0.0, 0.5, 1.0] * 20, None),
        ([0.5] * 40, None),
        ([0.0, np.nan] * LEAST_CHANGES, None),
    ],
)
def test_proportions_are_recognised_by_their_values(values: list[float], expected: tuple[float, float] | None) -> None:
    array = np.asarray(values, np.float64)
    assert two_values(array[::2], array[1::2]) == expected


def test_few_differences_give_no_interval_and_say_how_many_samples_would() -> None:
    values = np.random.default_rng(0).normal(size=200)
    changed = values.copy()
    changed[:4] -= 1
    found = drop_interval(values, changed, values, mean)
    assert found.ci95 is None
    assert found.why == "only 4 of 200 samples differ between the models, too few for an interval: about 500 would do"
    assert drop_interval(values, values, values, mean).why == (
        "none of 200 samples differ between the models: nothing shows how much others would"
    )
    few = values[: LEAST_SAMPLES - 1]
    assert drop_interval(few, few + few**2, few, mean).ci95 is None
    assert "by the same" in drop_interval(values, values - 0.5, values, mean).why
    values[0] = np.nan
    assert drop_interval(values, 2 * changed, values, mean).why == "some of the values are no finite numbers"


def test_the_interval_is_paired_and_repeatable() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=400)
    baseline, candidate = shared, shared - 0.1 + 0.01 * random.normal(size=400)
    found = drop_interval(baseline, candidate, shared, mean)
    assert 0.09 < found.low < 0.1 < found.high < 0.11  # unpaired, it would be about 0.14 wide to each side
    assert found == drop_interval(baseline, candidate, shared, mean)


def test_a_samples_contribution_to_a_mean_is_its_value() -> None:
    """The jackknife's pseudo-values, which other metrics have, are the values (or groups' means) for a mean too."""

    class Jackknifed:
        UNIT, SCALE, aggregate = "", None, staticmethod(mean.aggregate)

        def score(self, output: Array, labels: Array) -> Array:
            return mean.score(output, labels)

    values = np.random.default_rng(0).normal(size=100)
    np.testing.assert_array_equal(contributions(values, values, mean), values)
    np.testing.assert_allclose(contributions(values, values, Jackknifed()), values)
    many = np.arange(2000.0)
    np.testing.assert_allclose(contributions(many, many, Jackknifed()), np.arange(500) + 750)  # of every 500th


def normal(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    return random.normal(0, 1, shape)


def lognormal(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    return random.lognormal(0, 1, shape) - np.exp(0.5)


def heavier(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    return random.lognormal(0, 1.5, shape) - np.exp(1.125)


def sparse(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    return (random.random(shape) < 0.02) * random.exponential(1, shape) - 0.02


@pytest.mark.parametrize("draw", [normal, lognormal, heavier, sparse])
@pytest.mark.parametrize("count", [20, 50, 200])
def test_means_of_any_shape_hardly_ever_pass_wrongly(
    draw: Callable[[np.random.Generator, tuple[int, int]], Array], count: int
) -> None:
    """The true drop is 0, and so is the bound: 5 % at most may pass, and of 400 trials 7.5 %."""
    drops = draw(np.random.default_rng(1), (400, count))
    unchanged = -0.02 if draw is sparse else 0.0
    base = np.full(count, unchanged)
    found = [drop_interval(base + 0 * drop, base - drop + unchanged, base, mean) for drop in drops]
    assert np.mean([ends.high < 0 for ends in found]) <= 0.075
    assert np.mean([ends.low > 0 for ends in found]) <= 0.075
    if draw is normal and count > LEAST_SAMPLES:
        assert all(ends.ci95 for ends in found)


def test_spearmans_drop_holds() -> None:
    random, held, trials = np.random.default_rng(0), 0, 200

    def draw(count: int) -> tuple[Array, Array, Array]:
        truth = random.normal(size=count)
        shared = truth + 0.6 * random.normal(size=count)
        return truth, shared, shared + 0.2 * random.normal(size=count)

    truth, first, second = draw(400_000)
    drop = spearman.aggregate(first, truth) - spearman.aggregate(second, truth)
    for _ in range(trials):
        truth, first, second = draw(60)
        found = drop_interval(first, second, truth, spearman)
        held += found.low <= drop <= found.high
    assert held / trials >= 0.91  # 93 % of all, less what 200 trials can miss it by


def test_one_models_value_has_an_interval_too() -> None:
    values = np.random.default_rng(0).normal(5, 1, 300)
    found = value_interval(values, values, mean)
    assert found.low < values.mean() < found.high and found.high - found.low == pytest.approx(4 / np.sqrt(300), rel=0.1)
    assert value_interval(np.full(300, 0.7), values, mean).ci95 is None


def test_a_percentile_lies_between_two_of_the_sorted_values() -> None:
    # Hahn and Meeker, Statistical Intervals: of 100 values, the 40th and 61st bound the median at 95 %.
    assert percentile_interval(np.arange(1.0, 101), 0.5).ci95 == [40, 61]
    assert percentile_interval(np.arange(100.0), 0.01).why == "100 samples do not bound a 1 % point: 368 are needed"
    values = np.random.default_rng(0).random((2000, 400))
    held = [ends.low <= 0.01 <= ends.high for ends in (percentile_interval(row, 0.01) for row in values)]
    assert np.mean(held) >= 0.94


def test_a_skewed_mean_has_its_longer_end_on_the_tails_side() -> None:
    parts = np.random.default_rng(3).lognormal(0, 1, 60)
    found = mean_interval(parts, float(parts.mean()))
    assert found.high - parts.mean() > 1.5 * (parts.mean() - found.low)
    mirrored = mean_interval(-parts, -float(parts.mean()))
    assert mirrored.ci95 == pytest.approx([-found.high, -found.low], rel=0.1)
