from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]


def test_equal_nodes_are_one(build: Build, run: Run, ops: Ops) -> None:
    model = build(
        """g (float[N,2] x) => (float[N,2] y) {
            one = Constant<value_ints=[1]>()
            uno = Constant<value_ints=[1]>()
            a = ReduceSum<keepdims=1>(x, one)
            b = ReduceSum<keepdims=1>(x, uno)
            c = Sub(x, a)
            d = Sub(x, b)
            y = Mul(c, d)
        }"""
    )
    after = prepare(model).model
    assert ops(after) == {"ReduceSum": 1, "Sub": 1, "Mul": 1}
    feeds = {"x": np.array([[1, 2], [3, 5]], np.float32)}
    np.testing.assert_array_equal(run(after, feeds)[0], run(model, feeds)[0])


@pytest.mark.parametrize(
    "pair",
    [
        "a = Softmax<axis=0>(x) b = Softmax<axis=1>(x)",
        "a = RandomUniformLike(x) b = RandomUniformLike(x)",
        "a = Sub(x, z) b = Sub(z, x)",
        "t = Constant<value=bool {1}>() r = Constant<value_float=0.5>() a = Dropout(x, r, t) b = Dropout(x, r, t)",
    ],
)
def test_different_nodes_are_two(build: Build, ops: Ops, pair: str) -> None:
    model = build(f"g (float[N,2] x, float[N,2] z) => (float[N,2] y) {{ {pair} y = Mul(a, b) }}")
    assert sum(ops(prepare(model).model).values()) == 3


def test_operators_of_other_domains_are_left_alone(build: Build, ops: Ops) -> None:
    model = build(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[N,2] x) => (float[N,2] y) { a = com.microsoft.Gelu(x)  b = com.microsoft.Gelu(x)  y = Mul(a, b) }"""
    )
    assert ops(prepare(model).model) == {"Gelu": 2, "Mul": 1}


def test_each_edge_keeps_its_own_quantization(build: Build, ops: Ops) -> None:
    model = build(
        """g (float[N,2] x) => (float[N,2] y) {
            q = QuantizeLinear(x, s, z)
            a = DequantizeLinear(q, s, z)
            b = DequantizeLinear(q, s, z)
            c = Relu(a)
            y = Mul(b, c)
        }""",
        {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)},
    )
    assert ops(prepare(model).model) == {"QuantizeLinear": 1, "DequantizeLinear": 2, "Relu": 1, "Mul": 1}


def test_returned_results_stay(build: Build, ops: Ops) -> None:
    model = build("g (float[N] x) => (float[N] a, float[N] b) { a = Neg(x)  b = Neg(x) }")
    after = prepare(model).model
    assert ops(after) == {"Neg": 2}
    assert [value.name for value in after.graph.outputs] == ["a", "b"]


def test_an_output_that_the_twin_leaves_out(build: Build, run: Run, ops: Ops) -> None:
    model = build(
        """g (float[1,1,4,4] x) => (float[1,1,2,2] y, int64[1,1,2,2] i) {
            a, "" = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)
            b, j = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)
            y = Add(a, b)
            k = Neg(j)
            i = Neg(k)
        }"""
    )
    after = prepare(model).model
    assert ops(after) == {"MaxPool": 1, "Add": 1, "Neg": 2}
    feeds = {"x": np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)}
    for found, expected in zip(run(after, feeds), run(model, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_branches_use_what_is_computed_outside_but_not_each_others(build: Build, run: Run, ops: Ops) -> None:
    model = build(
        """g (bool c, float[N] x) => (float[N] y) {
            a = Neg(x)
            z = If(c) <
                then_branch = t () => (float[N] p) { b = Neg(x)  d = Exp(x)  p = Add(b, d) },
                else_branch = e () => (float[N] q) { d = Exp(x)  q = Mul(d, d) }
            >
            y = Add(a, z)
        }"""
    )
    after = prepare(model).model
    assert ops(after) == {"Neg": 1, "If": 1, "Exp": 2, "Add": 2, "Mul": 1}
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": np.array([0.5, 1], np.float32)}
        np.testing.assert_array_equal(run(after, feeds)[0], run(model, feeds)[0])


def test_tied_weights_are_stored_once(build: Build, run: Run, rng: np.random.Generator) -> None:
    weight = rng.normal(size=(64, 64)).astype(np.float32)
    almost = weight.copy()
    almost[32, 32] += 1
    zeros = np.zeros(64, np.float32)
    model = build(
        """g (float[N,64] x) => (float[N,64] y) {
            a = Gemm(x, w1, b1)
            b = Gemm(a, w2, b2)
            y = Gemm(b, w3)
        }""",
        {"w1": weight, "w2": weight.copy(), "w3": almost, "b1": zeros, "b2": zeros.copy()},
    )
    after = prepare(model).model
    assert sorted(after.graph.initializers) == ["b1", "b2", "w1", "w3"], "the biases are equal by chance"
    feeds = {"x": rng.normal(size=(2, 64)).astype(np.float32)}
    np.testing.assert_array_equal(run(after, feeds)[0], run(model, feeds)[0])


def test_zeros_of_two_signs_are_not_tied(build: Build) -> None:
    plus = np.zeros((2, 2), np.float32)
    model = build("g (float[N,2] x) => (float[N,2] y) { a = Div(x, p)  y = Div(a, m) }", {"p": plus, "m": -plus})
    assert sorted(prepare(model).model.graph.initializers) == ["m", "p"]


def test_a_table_that_is_also_multiplied_by_is_named(build: Build, rng: np.random.Generator) -> None:
    """An embedding tied to the layer before the output: its transpose is a weight of its own."""
    model = build(
        "g (int64[N,3] ids) => (float[N,3,1000] y) { e = Gather(w, ids) "
        "t = Transpose<perm=[1,0]>(w) y = MatMul(e, t) }",
        {"w": rng.normal(size=(1000, 256)).astype(np.float32)},
    )
    (skip,) = prepare(model).skipped
    assert skip.where == "t" and skip.reason == "is w transposed, for a product: 1.0 MB are stored twice"
