from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a = Transpose<perm=[0,2,1]>(x) b = Transpose<perm=[0,2,1]>(a) y = Abs(b)", {"Abs": 1}),
        (
            "a = Transpose<perm=[1,2,0]>(x) b = Relu(a) c = Tanh(b) y = Transpose<perm=[2,0,1]>(c)",
            {"Relu": 1, "Tanh": 1},
        ),
        ("a = Transpose(x) b = Relu(a) y = Transpose(b)", {"Relu": 1}),
        # the second does not undo the first
        ("a = Transpose<perm=[1,2,0]>(x) b = Relu(a) y = Transpose<perm=[1,2,0]>(b)", {"Transpose": 2, "Relu": 1}),
        # others read what is between
        (
            "a = Transpose<perm=[0,2,1]>(x) b = Relu(a) c = Transpose<perm=[0,2,1]>(b) d = ReduceSum<keepdims=0>(b) "
            "y = Add(c, d)",
            {"Transpose": 2, "Relu": 1, "ReduceSum": 1, "Add": 1},
        ),
        # not of single values
        (
            "a = Transpose<perm=[0,2,1]>(x) b = Softmax<axis=-1>(a) y = Transpose<perm=[0,2,1]>(b)",
            {"Transpose": 2, "Softmax": 1},
        ),
    ],
)
def test_pairs_that_undo_each_other_go(
    build: Build, run: Run, ops: Ops, rng: np.random.Generator, text: str, left: dict[str, int]
) -> None:
    model = build(f"g (float[2,3,4] x) => (float y) {{ {text} }}")
    made = prepare(model).model
    assert ops(made) == left
    feeds = {"x": rng.normal(size=(2, 3, 4)).astype(np.float32)}
    np.testing.assert_allclose(run(made, feeds)[0], run(model, feeds)[0], rtol=1e-6)
    assert not prepare(made).changed


def test_dense_layers_with_weights_on_the_left_leave_transposes_at_the_ends_only(build: Build, ops: Ops) -> None:
    random = np.random.default_rng(0)
    model = build(
        "g (float[2,5,7] x) => (float y) { a = MatMul(u, x) b = Relu(a) y = MatMul(v, b) }",
        {"u": random.normal(size=(6, 5)).astype(np.float32), "v": random.normal(size=(4, 6)).astype(np.float32)},
    )
    assert ops(prepare(model).model) == {"Transpose": 2, "MatMul": 2, "Relu": 1}
