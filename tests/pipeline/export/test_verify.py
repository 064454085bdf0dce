from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.errors import ModelError
from onnxpress.export.inputs import parse
from onnxpress.export.verify import Verification, verify

Build = Callable[..., ir.Model]
Feeds = Mapping[str, np.ndarray]

MATRIX = [parse("x:float32:batchxlength")]
DOUBLE = "g (float[batch,length] x) => (float[batch,length] y) { y = Add(x, x) }"


def check(model: ir.Model, reference: Callable[[Feeds], list[np.ndarray]], **tolerances: float) -> Verification:
    return verify(model, reference, MATRIX, {"batch": 3, "length": 8}, against="PyTorch", **tolerances)


def test_batches_and_two_more_sizes_of_each_axis(build: Build) -> None:
    found = check(build(DOUBLE), lambda feeds: [feeds["x"] * 2])
    assert [shape["x"] for shape in found.shapes] == [(1, 8), (2, 8), (7, 8), (3, 16), (3, 9)]
    assert (found.max_abs_error, found.max_rel_error) == (0, 0)


def test_the_largest_error_is_reported(build: Build) -> None:
    found = check(build(DOUBLE), lambda feeds: [feeds["x"] * 2 + np.float32(5e-5)])
    assert found.max_abs_error == pytest.approx(5e-5, rel=0.01)
    assert 0 < found.max_rel_error < 1e-4


def test_a_difference_names_output_shape_and_error(build: Build) -> None:
    with pytest.raises(
        ModelError, match=r"output 'y' at x=1x8 \(axis batch = 1\) differs by 0.1 \(8 of 8 values"
    ) as raised:
        check(build(DOUBLE), lambda feeds: [feeds["x"] * 2 + np.float32(0.1)])
    assert "--atol" in str(raised.value)


def test_tolerances_are_what_the_user_says(build: Build) -> None:
    off = lambda feeds: [feeds["x"] * 2 + np.float32(0.1)]  # noqa: E731
    assert check(build(DOUBLE), off, atol=0.2).max_abs_error == pytest.approx(0.1, rel=0.01)
    with pytest.raises(ModelError, match="allowed is 0 "):
        check(build(DOUBLE), lambda feeds: [feeds["x"] * 2 + np.float32(1e-5)], atol=0, rtol=0)


def test_an_axis_that_the_export_fixed(build: Build) -> None:
    """Traced with 3 samples and exported with a Reshape to 3."""
    fixed = build(
        """g (float[batch,length] x) => (float[batch,length] y) {
            s = Constant<value_ints=[-1]>() a = Reshape(x, s) t = Constant<value_ints=[3,-1]>() y = Reshape(a, t)
        }"""
    )
    with pytest.raises(ModelError, match=r"axis batch = 1\)"):
        check(fixed, lambda feeds: [feeds["x"]])
    other = build(
        "g (float[batch,length] x) => (float[batch,length] y) { y = Slice(x, b, e, a) }",
        {"b": np.array([0]), "e": np.array([8]), "a": np.array([1])},
    )
    with pytest.raises(ModelError, match=r"\(axis length = 16\) has the shape \[3, 8\] instead of \[3, 16\]"):
        check(other, lambda feeds: [feeds["x"]])


def test_a_model_that_fails_where_its_source_runs(build: Build) -> None:
    fails = build(
        "g (float[batch,length] x) => (float[batch,length] y) { y = Add(x, c) }", {"c": np.zeros((3, 8), np.float32)}
    )
    with pytest.raises(ModelError, match=r"PyTorch runs at x=2x8 \(axis batch = 2\), the exported model fails"):
        check(
            fails,
            lambda feeds: [
                feeds["x"] + np.zeros((len(feeds["x"]), 8), np.float32)
                if len(feeds["x"]) > 1
                else np.zeros((3, 8), np.float32) + feeds["x"]
            ],
        )


def test_shapes_that_the_source_refuses_are_left_out(build: Build) -> None:
    def even(feeds: Feeds) -> list[np.ndarray]:
        if feeds["x"].shape[1] % 2:
            raise RuntimeError("length must be even")
        return [feeds["x"] * 2]

    assert [shape["x"][1] for shape in check(build(DOUBLE), even).shapes][3:] == [16, 24]


def test_not_a_number_must_stand_in_the_same_places(build: Build) -> None:
    model = build("g (float[batch,length] x) => (float[batch,length] y) { y = Log(x) }")
    with np.errstate(invalid="ignore"):
        assert len(check(model, lambda feeds: [np.log(feeds["x"])]).shapes) == 5
        with pytest.raises(ModelError, match="NaN or infinity in other places"):
            check(model, lambda feeds: [np.nan_to_num(np.log(feeds["x"]))])


def test_integers_must_be_equal(build: Build) -> None:
    model = build("g (float[batch,length] x) => (int64[batch] y) { y = ArgMax<axis=1, keepdims=0>(x) }")
    check(model, lambda feeds: [feeds["x"].argmax(1)])
    with pytest.raises(ModelError, match="differs by 1"):
        check(model, lambda feeds: [feeds["x"].argmax(1) + 1], atol=10)


def test_dtypes_must_be_equal(build: Build) -> None:
    with pytest.raises(ModelError, match="has the dtype float32 instead of float64"):
        check(build(DOUBLE), lambda feeds: [feeds["x"].astype(float) * 2])


def test_half_precision_has_its_own_tolerance(build: Build) -> None:
    model = build("g (float[batch,length] x) => (float16[batch,length] y) { y = Cast<to=10>(x) }")
    check(model, lambda feeds: [(feeds["x"] + 5e-3).astype(np.float16)])


def test_a_model_without_dynamic_axes_is_compared_once(build: Build) -> None:
    model = build("g (float[2,8] x) => (float[2,8] y) { y = Neg(x) }")
    found = verify(model, lambda feeds: [-feeds["x"]], [parse("x:float32:2x8")], {}, against="PyTorch")
    assert [shape["x"] for shape in found.shapes] == [(2, 8)]
