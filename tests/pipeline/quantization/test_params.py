"""Scales and zero points against the definition of affine quantization."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.quantization.params import (
    WeightGrid,
    activation_params,
    bias_floor,
    quantize_bias,
    quantize_weight,
)

weights = hnp.arrays(np.float32, (4, 3, 2), elements=st.floats(-1e3, 1e3, width=32))


@given(
    st.floats(-1e4, 1e4),
    st.floats(-1e4, 1e4),
    st.sampled_from(["uint8", "int8", "uint16", "int16"]),
    st.booleans(),
)
def test_the_grid_holds_zero_and_covers_the_range(first: float, second: float, dtype: str, symmetric: bool) -> None:
    low, high = sorted((first, second))
    params = activation_params(low, high, dtype, symmetric=symmetric)
    assert params.zero_point.dtype == dtype
    step, zero, limits = float(params.scale), int(params.zero_point), np.iinfo(dtype)
    if symmetric:
        assert zero in ((0,) if limits.min < 0 else (0, (limits.max + 1) // 2))
    lowest, highest = (limits.min - zero) * step, (limits.max - zero) * step
    # Rounding the zero point moves the grid by half a step at most.
    assert lowest <= low + 0.51 * step and highest >= high - 0.51 * step


@pytest.mark.parametrize("ends", [(0.0, 0.0), (1e-46, 1e-46), (-1e-45, 0.0)])
def test_a_range_without_width_gets_a_usable_scale(ends: tuple[float, float]) -> None:
    assert activation_params(*ends).scale > 0


def test_relu_range_starts_at_code_zero() -> None:
    assert activation_params(0, 6).zero_point == 0
    assert activation_params(0.5, 6).scale == np.float32(6 / 255)


@given(weights, st.sampled_from([None, 0, 1, -1]), st.integers(2, 8), st.booleans())
def test_weights_come_back_within_half_a_step(weight: np.ndarray, axis: int | None, bits: int, unsigned: bool) -> None:
    grid = WeightGrid(bits=bits, unsigned=unsigned)
    stored, scale = quantize_weight(weight, axis, grid)
    assert stored.dtype == (np.uint8 if unsigned else np.int8)
    integers = stored.astype(int) - int(grid.zero_point)
    assert np.abs(integers).max() <= 2 ** (bits - 1) - 1
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = -1
    step = scale.reshape(shape)
    assert (np.abs(integers * step - weight) <= 0.5 * step * (1 + 1e-5)).all()


def test_each_channel_has_its_own_scale() -> None:
    weight = np.array([[1, -2], [100, 50]], np.float32)
    integers, scale = quantize_weight(weight, 0)
    assert scale.tolist() == pytest.approx([2 / 127, 100 / 127])
    assert integers.tolist() == [[64, -127], [127, 64]]
    assert quantize_weight(weight, None)[1].shape == ()


def test_a_channel_of_zeros_is_harmless() -> None:
    integers, scale = quantize_weight(np.zeros((2, 3), np.float32), 0)
    assert not integers.any() and (scale == 1).all()


@example(np.full(5, 4.3e-35, np.float32), 1e-6, np.zeros((5, 4), np.float32))
@given(
    hnp.arrays(np.float32, 5, elements=st.floats(-100, 100, width=32)),
    st.floats(1e-6, 10),
    hnp.arrays(np.float32, (5, 4), elements=st.floats(-1, 1, width=32) | st.just(1e-20)),
)
def test_a_bias_always_fits_and_comes_back(bias: np.ndarray, input_scale: float, weight: np.ndarray) -> None:
    step = np.float32(input_scale)
    _, scale = quantize_weight(weight, 0, floor=bias_floor(bias, step))
    integers, bias_scale = quantize_bias(bias, step, scale)
    assert np.abs(integers.astype(np.int64)).max() <= 2**30 * (1 + 1e-5)
    assert (np.abs(integers * bias_scale.astype(np.float64) - bias) <= 0.5 * bias_scale + 1e-6 * np.abs(bias)).all()
