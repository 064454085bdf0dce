"""Calibrators: the contract every file must keep, and what each of them is for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress_calibration import calibrators
from onnxpress_calibration.calibrators import entropy
from onnxpress_calibration.channels import ChannelStatistics
from onnxpress_calibration.statistics import TensorStatistics


def statistics(values: np.ndarray) -> TensorStatistics:
    collected = TensorStatistics()
    collected.update(values.astype(np.float32), thin=False)
    return collected


def quantization_error(values: np.ndarray, low: float, high: float, levels: int = 256) -> float:
    """Mean squared error of rounding raw values to the grid of a range: an independent formula on all the data."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (levels - 1) or 1.0
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, levels - 1) - zero) * step
    return float(((values - rounded) ** 2).mean())


@pytest.mark.parametrize("name", calibrators.names())
@given(hnp.arrays(np.float32, st.integers(1, 100), elements=st.floats(-1e6, 1e6, width=32)))
@settings(deadline=None, max_examples=30)
def test_contract_the_range_is_ordered_and_inside_what_was_seen(name: str, values: np.ndarray) -> None:
    low, high = calibrators.choose(name, statistics(values))
    assert low <= high
    assert low >= min(values.min(), 0) and high <= max(values.max(), 0)


@pytest.mark.parametrize("name", calibrators.names())
def test_contract_a_tensor_that_was_never_computed_gets_an_empty_range(name: str) -> None:
    assert calibrators.choose(name, TensorStatistics()) == (0.0, 0.0)


@pytest.mark.parametrize("name", calibrators.names())
def test_contract_a_constant_tensor_is_kept(name: str) -> None:
    low, high = calibrators.choose(name, statistics(np.full(10, 2.5)))
    assert max(high, 0) == pytest.approx(2.5, rel=2**-7)
    assert low >= 0 or low == pytest.approx(0)


def test_minmax_is_exact() -> None:
    assert calibrators.choose("minmax", statistics(np.array([-1.25, 0.5, 3.0]))) == (-1.25, 3.0)


def test_percentile_cuts_half_of_the_share_at_each_tail() -> None:
    values = np.arange(1, 100_001) / 1000  # 0.001 … 100
    low, high = calibrators.choose("percentile", statistics(values))
    expected_low, expected_high = np.percentile(values, [0.005, 99.995])
    assert high == pytest.approx(expected_high, rel=2**-7)
    assert low == pytest.approx(expected_low, rel=2**-4, abs=0.01)


@pytest.mark.parametrize(("levels", "share_of_minmax"), [(16, 0.5), (256, 0.96)])
def test_mse_clips_a_heavy_tail_as_well_as_an_exhaustive_search(levels: int, share_of_minmax: float) -> None:
    values = np.random.default_rng(0).standard_t(3, size=20_000)
    low, high = calibrators.choose("mse", statistics(values), levels=levels)
    chosen = quantization_error(values, low, high, levels)
    assert chosen < share_of_minmax * quantization_error(values, values.min(), values.max(), levels)
    shrink = np.linspace(0.1, 1, 37)
    grid = [(values.min() * a, values.max() * b) for a in shrink for b in shrink]
    assert chosen <= 1.03 * min(quantization_error(values, *ends, levels) for ends in grid)


def test_mse_is_near_the_best_of_an_exhaustive_search() -> None:
    values = np.abs(np.random.default_rng(1).laplace(size=20_000))
    chosen = quantization_error(values, *calibrators.choose("mse", statistics(values)))
    best = min(quantization_error(values, 0, high) for high in np.linspace(0.05, 1, 400) * values.max())
    assert chosen <= 1.03 * best


def test_mse_keeps_everything_of_a_uniform_tensor() -> None:
    values = np.random.default_rng(2).uniform(0, 6, 50_000)
    low, high = calibrators.choose("mse", statistics(values))
    assert low == 0 and high == pytest.approx(6, rel=0.03)


def reference_divergence(counts: np.ndarray, stop: int, steps: int) -> float:
    """KL of one threshold in plain loops, after the slides of S. Migacz."""
    p = [float(count) for count in counts[:stop]]
    p[-1] += float(sum(counts[stop:]))
    q = [0.0] * stop
    for level in range(steps):
        first, last = level * stop // steps, (level + 1) * stop // steps
        cells = [i for i in range(first, last) if counts[i] > 0]
        for i in cells:
            q[i] = float(sum(counts[first:last])) / len(cells)
    total_p, total_q = sum(p), sum(q)
    return sum(a / total_p * np.log((a / total_p) / max(b / total_q, 1e-12)) for a, b in zip(p, q, strict=True) if a)


@given(st.integers(0, 1000), st.sampled_from([16, 60, 128]), st.integers(128, 300))
@settings(deadline=None, max_examples=30)
def test_entropy_agrees_with_a_plain_reference(seed: int, steps: int, stop: int) -> None:
    counts = np.random.default_rng(seed).poisson(np.exp(-np.arange(300) / 60) * 20).astype(float)
    counts[0] = 1
    stops = np.array([stop, len(counts)])
    expected = [reference_divergence(counts, int(each), steps) for each in stops]
    assert entropy.divergences(counts, stops, steps) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_entropy_is_no_minmax_on_a_heavy_tail() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    values[:3] = [37, -25, 30]
    low, high = calibrators.choose("entropy", statistics(values))
    assert 2 < high < 20 and -20 < low < -2


@pytest.mark.parametrize("name", calibrators.names())
def test_contract_what_is_too_rare_to_be_counted_is_no_error(name: str) -> None:
    collected = statistics(np.zeros(100))
    collected.high = 5.0
    low, high = calibrators.choose(name, collected)
    assert low == 0 and 0 <= high <= 5


@pytest.mark.parametrize("name", calibrators.names())
@pytest.mark.parametrize("levels", [4, 16, 128, 256, 65536])
def test_contract_every_bit_width(name: str, levels: int) -> None:
    values = np.random.default_rng(0).normal(size=5000)
    low, high = calibrators.choose(name, statistics(values), levels=levels)
    assert values.min() <= low < -0.5 and 0.5 < high <= values.max()


def by_channel(values: np.ndarray) -> TensorStatistics:
    collected = TensorStatistics(channels=ChannelStatistics(axis=-1))
    collected.update(values.astype(np.float32), thin=False)
    return collected


def output_error(values: np.ndarray, weight: np.ndarray, ends: tuple[float, float], levels: int) -> float:
    """Mean squared error at the output of a layer, measured on all the values."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    step = (high - low) / (levels - 1)
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, levels - 1) - zero) * step
    return float((((values - rounded) @ weight) ** 2).mean())


@pytest.mark.parametrize(("outlier_weight", "levels"), [(0.001, 16), (1.0, 16), (30.0, 16), (0.001, 256), (30.0, 256)])
def test_auto_loses_least_of_all_at_the_output(outlier_weight: float, levels: int) -> None:
    random = np.random.default_rng(0)
    values = np.abs(random.normal(size=(4000, 32)))
    values[:, 3] *= random.uniform(0, 8, 4000)
    weight = random.normal(size=(32, 16))
    weight[3] *= outlier_weight
    collected, importance = by_channel(values), (weight**2).sum(axis=1)
    measured = {
        name: output_error(
            values, weight, calibrators.choose(name, collected, levels=levels, importance=importance), levels
        )
        for name in calibrators.names()
    }
    assert measured["auto"] <= 1.05 * min(measured.values())


def test_auto_looks_at_the_weights_behind() -> None:
    random = np.random.default_rng(0)
    values = np.abs(random.normal(size=(4000, 32)))
    values[:, 3] *= 10
    ignored, heard = (np.where(np.arange(32) == 3, factor, 1.0) for factor in (1e-6, 1e6))
    low, high = (calibrators.choose("auto", by_channel(values), levels=16, importance=i)[1] for i in (ignored, heard))
    assert low < 0.5 * high
