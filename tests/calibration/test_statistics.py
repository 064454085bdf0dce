"""Statistics: exact, single pass, independent of order and batches, mergeable."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress_calibration.errors import DataError
from onnxpress_calibration.statistics import BINS, TensorStatistics

floats = hnp.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_nan=False, allow_infinity=False),
)


def collect(*batches: np.ndarray) -> TensorStatistics:
    statistics = TensorStatistics()
    for batch in batches:
        statistics.update(batch)
    return statistics


def same(first: TensorStatistics, second: TensorStatistics) -> bool:
    return (first.low, first.high) == (second.low, second.high) and bool((first.counts == second.counts).all())


@given(floats, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_and_batches_do_not_matter(values: np.ndarray, random: object) -> None:
    shuffled = values.copy()
    np.random.default_rng(random.randint(0, 99)).shuffle(shuffled)  # type: ignore[attr-defined]
    cut = len(values) // 3
    assert same(collect(values), collect(shuffled[:cut], shuffled[cut:]))


@given(floats, floats)
@settings(deadline=None)
def test_merging_shards_equals_one_pass(first: np.ndarray, second: np.ndarray) -> None:
    merged = collect(first)
    merged.merge(collect(second))
    assert same(merged, collect(np.concatenate([first, second])))


@given(floats)
@settings(deadline=None)
def test_histogram_keeps_every_value_to_its_relative_resolution(values: np.ndarray) -> None:
    statistics = collect(values)
    middles, counts = statistics.histogram()
    assert counts.sum() == len(values)
    assert (np.diff(middles) >= 0).all()  # the two zeros have a bin each
    rebuilt = np.repeat(middles, counts)
    # A bin is 2**-7 wide relative to its power of two, so its middle is at most 2**-8 away; tiny values are absolute.
    assert np.abs(np.sort(values.astype(np.float64)) - rebuilt).max() <= 2.0**-8 * np.abs(values).max() + 1e-37


def test_minimum_and_maximum_are_exact() -> None:
    statistics = collect(np.array([1.00001, -3.3333333], np.float32), np.array([[7.7777777]], np.float32))
    assert (statistics.low, statistics.high) == (float(np.float32(-3.3333333)), float(np.float32(7.7777777)))
    assert statistics.count == 3


def test_memory_does_not_grow() -> None:
    statistics = TensorStatistics()
    for seed in range(20):
        statistics.update(np.random.default_rng(seed).normal(size=1000).astype(np.float32))
        assert statistics.counts.nbytes == BINS * 8


def test_an_empty_batch_changes_nothing() -> None:
    statistics = collect(np.empty((0, 3), np.float32))
    assert statistics.count == 0 and statistics.low == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_not_counted(bad: float) -> None:
    statistics = collect(np.ones(4, np.float32))
    with pytest.raises(DataError, match="NaN or infinity"):
        statistics.update(np.array([1, bad, 2], np.float32))
    assert statistics.count == 4
