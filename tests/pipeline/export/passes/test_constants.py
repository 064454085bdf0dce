from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]


def test_weights_listed_as_inputs_are_no_inputs(build: Build, run: Run, rng: np.random.Generator) -> None:
    model = build(
        "g (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul(x, w) }",
        {"w": rng.normal(size=(3, 4)).astype(np.float32)},
        ir_version=3,
    )
    edit = prepare(model)
    assert [value.name for value in edit.model.graph.inputs] == ["x"]
    assert "w" in edit.changed
    feeds = {"x": rng.normal(size=(2, 3)).astype(np.float32)}
    np.testing.assert_array_equal(run(edit.model, feeds)[0], run(model, feeds)[0])


def test_unused_inputs_stay(build: Build) -> None:
    model = build("g (float[N] x, float[M] unused) => (float[N] y) { y = Neg(x) }")
    assert [value.name for value in prepare(model).model.graph.inputs] == ["x", "unused"]


def test_constant_nodes_of_all_kinds_and_depths(build: Build, run: Run, ops: Ops) -> None:
    model = build(
        """g (bool c, float[N,2] x) => (float[N,2] y) {
            f = Constant<value_float=0.5>()
            fs = Constant<value_floats=[1.5,2.5]>()
            i = Constant<value_int=1>()
            is = Constant<value_ints=[1,2]>()
            a = Mul(x, f)
            b = Mul(a, fs)
            j = Cast<to=1>(i)
            js = Cast<to=1>(is)
            d = Add(b, j)
            e = Add(d, js)
            y = If(c) <
                then_branch = t () => (float[N,2] p) { k = Constant<value_float=3.0>() p = Mul(e, k) },
                else_branch = f () => (float[2] q) { q = Constant<value_floats=[7.0,8.0]>() }
            >
        }"""
    )
    after = prepare(model).model
    assert ops(after)["Constant"] == 1, "what a branch returns stays in it"
    assert [len(graph.initializers) for graph in after.graphs()][1:] == [0, 0]
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": np.array([[1, 2]], np.float32)}
        np.testing.assert_array_equal(run(after, feeds)[0], run(model, feeds)[0])


def test_initializers_of_branches_are_lifted(build: Build, run: Run) -> None:
    model = build(
        """g (bool c, float[N,2] x) => (float[N,2] y) {
            y = If(c) <
                then_branch = t () => (float[N,2] p) <float[2] w = {1,2}> { p = Mul(x, w) },
                else_branch = e () => (float[N,2] q) <float[2] w = {3,4}> { q = Mul(x, w) }
            >
        }"""
    )
    after = prepare(model).model
    assert len(after.graph.initializers) == 2
    for condition, expected in ((True, [[5, 12]]), (False, [[15, 24]])):
        feeds = {"c": np.array(condition), "x": np.array([[5, 6]], np.float32)}
        np.testing.assert_array_equal(run(after, feeds)[0], expected)


def test_a_constant_that_the_model_returns(build: Build, run: Run) -> None:
    model = build("g (float[N] x) => (float[N] y, float z) { y = Neg(x)  z = Constant<value_float=1.5>() }")
    after = prepare(model).model
    assert run(after, {"x": np.ones(1, np.float32)})[1] == 1.5


def test_strings_pass(build: Build) -> None:
    model = build(
        """g (string[N] x) => (bool[N] y) {
            s = Constant<value_strings=["a"]>()
            u = Constant<value_strings=["a"]>()
            p = Equal(x, s)
            q = Equal(x, u)
            y = And(p, q)
        }""",
        opset=19,
        ir_version=9,
    )
    edit = prepare(model)
    assert prepare(edit.model).changed == ()
    assert len(edit.model.graph.initializers) == 2
