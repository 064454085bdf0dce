from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.errors import DataError, ModelError, OnnxpressError
from onnxpress.pruning import proof
from onnxpress_calibration.dataset import Dataset

Build = Callable[..., ir.Model]
NET = "net (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul (x, w) }"


def scaled(model: ir.Model, by: float, rows: slice = slice(None)) -> ir.Model:
    copy = model.clone()
    weight = copy.graph.initializers["w"]
    array = weight.const_value.numpy().copy()
    array[rows] *= by
    weight.const_value = ir.tensor(array, name="w")
    return copy


def test_equal_models_have_no_error(build: Build) -> None:
    assert proof.prove(build(NET), build(NET), None) == 0


def test_the_error_is_relative_to_the_largest_output(build: Build) -> None:
    model = build(NET)
    assert proof.prove(scaled(model, 1.0001), model, None) == pytest.approx(1e-4, rel=0.01)


def test_a_wrong_model_is_an_internal_error(build: Build) -> None:
    model = build(NET)
    with pytest.raises(
        OnnxpressError, match=r"output 'y' differs from the masked model by 0\.1 of its largest"
    ) as caught:
        proof.prove(scaled(model, 1.1), model, None)
    assert caught.value.exit_code == 5


def test_another_shape_is_an_internal_error(build: Build) -> None:
    other = build("net (float[N,3] x, float[3,5] w) => (float[N,5] y) { y = MatMul (x, w) }")
    with pytest.raises(OnnxpressError, match="differs"):
        proof.prove(other, build(NET), None)


def test_nan_in_one_model_only_is_an_error(build: Build) -> None:
    model = build(NET)
    with pytest.raises(OnnxpressError, match="differs"):
        proof.prove(scaled(model, np.nan), model, None)


def test_where_the_masked_model_gives_nan_nothing_is_compared(build: Build) -> None:
    """A masked channel makes NaN of an infinity behind it (0 · inf), a channel that is gone does not."""
    model = build("net (float[N,3] x, float[3,4] w, float[4] c) => (float[N,4] y) { a = MatMul (x, w) y = Add (a, c) }")
    masked = model.clone()
    bias = masked.graph.initializers["c"]
    bias.const_value = ir.tensor(bias.const_value.numpy() + np.array([np.nan, 0, 0, 0], np.float32), name="c")
    assert proof.prove(model, masked, None) == 0
    with pytest.raises(OnnxpressError, match="differs"):
        proof.prove(scaled(model, 1.1), masked, None)


def test_a_model_that_gives_no_number_proves_nothing(build: Build) -> None:
    broken = scaled(build(NET), np.nan)
    assert proof.prove(broken, broken, None) is None
    data = Dataset(origin="ones", read=lambda: [{"x": np.ones((2, 3), np.float32)}])
    with pytest.raises(ModelError, match="outputs are not finite on this data"):
        proof.prove(broken, broken, data)


def test_data_finds_what_noise_cannot(build: Build) -> None:
    """Codes beyond 1 never occur in noise; row 7 of the table is wrong."""
    model = build("net (int64[N] x, float[8,4] w) => (float[N,4] y) { y = Gather (w, x) }")
    wrong = scaled(model, 2, slice(7, 8))
    assert proof.prove(wrong, model, None) == 0
    data = Dataset(origin="test", read=lambda: [{"x": np.array([3, 7, 1]), "y": np.zeros(3)}])
    with pytest.raises(OnnxpressError, match="differs"):
        proof.prove(wrong, model, data)


def test_data_that_does_not_fit_is_the_users_error(build: Build) -> None:
    data = Dataset(origin="test", read=lambda: [{"z": np.zeros((2, 3), np.float32)}])
    with pytest.raises(DataError, match="has no array 'x'"):
        proof.prove(build(NET), build(NET), data)


def test_larger_noise_where_a_model_needs_it(build: Build) -> None:
    text = """net (float[N,3,H,W] x, float[4,3,25,25] w) => (float[N,4,I,J] y) { y = Conv (x, w) }"""
    assert proof.prove(build(text), build(text), None) == 0


def test_no_proof_where_noise_is_refused(build: Build) -> None:
    text = """
    net (float[N,3] x, int64[1] xs, float[3,4] w) => (float[A,B] y) {
      m = MatMul (x, w)
      seven = Constant <value = int64[1] {7}> ()
      k = Mul (xs, seven)
      minus = Constant <value = int64[1] {-5}> ()
      n = Sub (minus, k)
      t = Concat <axis = 0> (n, n)
      y = Expand (m, t)
    }
    """
    assert proof.prove(build(text), build(text), None) is None


def test_sequences_are_compared(build: Build) -> None:
    text = """net (float[N,3] x, float[3,4] w) => (seq(float[N,2]) y, float[N,4] z) {
        z = MatMul (x, w)
        y = SplitToSequence <axis = 1> (z) }"""
    model = build(text)
    assert proof.prove(model, model, None) == 0
    with pytest.raises(OnnxpressError, match=r"output 'y\[0\]' differs"):
        proof.prove(scaled(model, 1.1), model, None)
