"""Statistics: exact, single pass, independent of order and batches, mergeable."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress_calibration import channels
from onnxpress_calibration.errors import DataError
from onnxpress_calibration.statistics import BINS, ChannelStatistics, TensorStatistics

floats_elements = st.floats(-(2.0**99), 2.0**99, width=32, allow_nan=False, allow_infinity=False)
floats = hnp.arrays(np.float32, st.integers(1, 200), elements=floats_elements)


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


def by_channel(*samples: np.ndarray, axis: int) -> ChannelStatistics:
    statistics = ChannelStatistics(axis=axis)
    for sample in samples:
        statistics.update(sample)
    return statistics


def same_channels(first: ChannelStatistics, second: ChannelStatistics) -> bool:
    pairs = [
        (first.low, second.low),
        (first.high, second.high),
        (first.sums.limbs, second.sums.limbs),
        (first.squares.limbs, second.squares.limbs),
    ]
    return first.count == second.count and all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(("axis", "others"), [(1, (0, 2, 3)), (-1, (0, 1, 2))])
def test_channels_agree_with_plain_formulas(axis: int, others: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(7, 4, 5, 6)).astype(np.float32)
    found = by_channel(*np.split(values, 7), axis=axis)
    assert np.array_equal(found.low, values.min(others)) and np.array_equal(found.high, values.max(others))
    assert np.array_equal(found.peak, np.abs(values).max(others))
    assert found.mean == pytest.approx(values.astype(np.float64).mean(others), rel=1e-7)
    assert found.mean_square == pytest.approx((values.astype(np.float64) ** 2).mean(others), rel=1e-7)
    assert found.count == values.size // values.shape[axis]


@given(st.lists(hnp.arrays(np.float32, (1, 3, 2), elements=floats_elements), min_size=2, max_size=8), st.data())
@settings(deadline=None)
def test_channels_are_the_same_bits_in_any_order_and_from_shards(
    samples: list[np.ndarray], data: st.DataObject
) -> None:
    whole = by_channel(*samples, axis=1)
    assert same_channels(whole, by_channel(*data.draw(st.permutations(samples)), axis=1))
    merged = ChannelStatistics(axis=1)
    for shard in (samples[:1], samples[1:]):
        merged.merge(by_channel(*shard, axis=1))
    assert same_channels(whole, merged)


@pytest.mark.parametrize("axis", [1, -1])
def test_stacked_samples_and_channels_piece_by_piece_change_no_bit(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(6, 8, 5, 7)).astype(np.float32)
    expected = by_channel(*np.split(values, 6), axis=axis)
    for at_once in (channels.AT_ONCE, 3 * values.size // values.shape[axis]):
        monkeypatch.setattr(channels, "AT_ONCE", at_once)
        stacked = ChannelStatistics(axis=axis)
        assert stacked.update(values, samples=6) == (values.min(), values.max())
        assert same_channels(stacked, expected)


def test_a_channel_that_comes_or_goes_is_refused() -> None:
    with pytest.raises(DataError, match="has 4 channels on axis 1, and had 3 before"):
        by_channel(np.ones((1, 3), np.float32), np.ones((1, 4), np.float32), axis=1)


def test_the_two_zeros_are_one() -> None:
    zeros = [np.array([[0.0]], np.float32), np.array([[-0.0]], np.float32)]
    for order in (zeros, zeros[::-1]):
        channels, whole = by_channel(*order, axis=1), collect(*order)
        assert not np.signbit([channels.low[0], channels.high[0], whole.low, whole.high]).any()
