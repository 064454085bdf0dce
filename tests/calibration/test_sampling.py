"""Which values of a large tensor are counted: tails whole, the rest evenly spread, the same everywhere."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress_calibration import sampling
from onnxpress_calibration.statistics import TensorStatistics

LARGE = 20 * sampling.LIMIT + 3


def thinned(values: np.ndarray) -> TensorStatistics:
    statistics = TensorStatistics()
    statistics.update(values.astype(np.float32))
    return statistics


@pytest.mark.parametrize(("count", "stretch"), [(2 * sampling.LIMIT, 2), (788_544, 96), (10**9 + 7, 122_070)])
def test_one_position_in_each_stretch(count: int, stretch: int) -> None:
    chosen = sampling.positions(count, stretch)
    assert (chosen // stretch == np.arange(count // stretch)).all() and chosen[-1] < count


@pytest.mark.parametrize("row", [384, 512, 1536, 224])
def test_every_channel_has_its_share(row: int) -> None:
    shares = np.bincount(sampling.positions(row * 2048, row * 2048 // sampling.LIMIT) % row, minlength=row)
    assert shares.min() > 0.5 * shares.mean() and shares.max() < 1.7 * shares.mean()


def test_the_choice_is_fixed_for_ever() -> None:
    digest = hashlib.sha256(sampling.positions(1_000_003, 61).astype("<i8").tobytes()).hexdigest()
    assert digest == "a02d94f22467be3bbe6b2f890230f080a459a658396378d160d17313e7ca6b9a"


@given(st.integers(0, 999), st.sampled_from([1e-30, 1.0, 1e30]))
@settings(deadline=None, max_examples=30)
def test_each_value_is_counted_for_itself_or_by_one_of_its_stretch(seed: int, scale: float) -> None:
    values = (np.random.default_rng(seed).standard_t(2, LARGE) * scale).astype(np.float32)
    stretch, chosen, tails = sampling.split(values, float(values.min()))
    assert len(tails) <= 2 * sampling.TAIL * len(values)
    bound = np.abs(tails).min() if len(tails) else np.inf
    assert np.abs(chosen).max() < bound
    assert (np.abs(values) >= bound).sum() == len(tails)
    assert stretch * len(chosen) + len(tails) == pytest.approx(len(values), rel=0.01)


@pytest.mark.parametrize("at", [0, 17, LARGE - 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_outlier_is_never_missed(at: int, sign: int) -> None:
    values = np.random.default_rng(0).normal(size=LARGE)
    values[at] = 60 * sign
    found, counts = thinned(values).histogram()
    assert counts[np.abs(found) > 50].sum() == 1


@pytest.mark.parametrize("shape", ["normal", "laplace", "exponential", "uniform", "standard_cauchy"])
def test_the_histogram_is_that_of_all_values(shape: str) -> None:
    values = getattr(np.random.default_rng(0), shape)(size=LARGE).astype(np.float32)
    every = TensorStatistics()
    every.update(values, thin=False)
    cumulated = [np.cumsum(each.counts) for each in (thinned(values), every)]
    shares = [each / each[-1] for each in cumulated]
    assert np.abs(shares[0] - shares[1]).max() < 0.02


def test_extreme_magnitudes() -> None:
    values = np.zeros(LARGE, np.float32)
    assert thinned(values).histogram()[0].tolist() == [0.0]
    values[::2] = np.finfo(np.float32).max
    values[1::2] = np.finfo(np.float32).smallest_subnormal
    statistics = thinned(values)
    assert statistics.high == np.finfo(np.float32).max
    assert statistics.count == pytest.approx(LARGE, rel=0.01)
