from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]

NOTHING = [
    "y = Identity(x)",
    "y = Dropout(x)",
    "t = Constant<value=bool {0}>() r = Constant<value_float=0.5>() y = Dropout(x, r, t)",
    "y = Cast<to=1>(x)",
    "y = Concat<axis=0>(x)",
    "y = Sum(x)",
    "y = Transpose<perm=[0,1,2]>(x)",
    "s = Constant<value_ints=[0,3,-1]>() y = Reshape(x, s)",
    "s = Shape(x) y = Reshape(x, s)",
    "s = Constant<value_ints=[1,3,4]>() y = Expand(x, s)",
    "p = Constant<value_ints=[0,0,0,0,0,0]>() y = Pad(x, p)",
    "b = Constant<value_ints=[0]>() e = Constant<value_ints=[9223372036854775807]>() a = Constant<value_ints=[2]>()"
    " y = Slice(x, b, e, a)",
    "z = Constant<value_float=0.0>() y = Add(x, z)",
    "z = Constant<value_floats=[0.0,0.0,0.0,0.0]>() y = Sub(x, z)",
    "u = Constant<value_float=1.0>() y = Mul(x, u)",
    "u = Constant<value_float=1.0>() y = Div(x, u)",
]
SOMETHING = [
    "t = Constant<value=bool {1}>() r = Constant<value_float=0.5>() y = Dropout(x, r, t)",
    "d = Cast<to=11>(x) y = Cast<to=1>(d)",
    "y = Transpose<perm=[0,2,1]>(x)",
    "s = Constant<value_ints=[3,-1,4]>() y = Reshape(x, s)",
    "s = Constant<value_ints=[2,1,1,1]>() y = Expand(x, s)",
    "p = Constant<value_ints=[0,0,1,0,0,0]>() y = Pad(x, p)",
    "b = Constant<value_ints=[1]>() e = Constant<value_ints=[9223372036854775807]>() a = Constant<value_ints=[2]>()"
    " y = Slice(x, b, e, a)",
    "b = Constant<value_ints=[0]>() e = Constant<value_ints=[2147483647]>() a = Constant<value_ints=[2]>()"
    " s = Constant<value_ints=[2]>() y = Slice(x, b, e, a, s)",
    "z = Constant<value=float[1,1,1,1] {0.0}>() y = Add(x, z)",
    "u = Constant<value_float=1.0>() y = Div(u, x)",
    "z = Constant<value_float=0.0>() y = Sub(z, x)",
    "z = Constant<value_float=0.0>() y = Mul(x, z)",
]


def model(build: Build, body: str) -> ir.Model:
    return build(f"g (float[N,3,4] i) => (float[A,B,C] o) {{ x = Neg(i) {body} o = Abs(y) }}")


@pytest.mark.parametrize("body", NOTHING)
def test_what_does_nothing_goes(build: Build, ops: Ops, body: str) -> None:
    assert ops(prepare(model(build, body)).model) == {"Neg": 1, "Abs": 1}


@pytest.mark.parametrize("body", SOMETHING)
def test_what_does_something_stays(build: Build, ops: Ops, body: str) -> None:
    assert len(ops(prepare(model(build, body)).model)) > 2


def test_names_of_inputs_and_outputs_stay(build: Build, ops: Ops) -> None:
    between = build("g (float[N] x) => (float[N] y) { y = Identity(x) }")
    after = prepare(between).model
    assert ops(after) == {"Identity": 1}
    twice = build("g (float[N] x) => (float[N] a, float[N] b) { a = Neg(x)  b = Identity(a) }")
    after = prepare(twice).model
    assert ops(after) == {"Neg": 1, "Identity": 1}
    inner = build("g (float[N] x) => (float[N] y) { a = Neg(x)  b = Abs(a)  y = Identity(b) }")
    after = prepare(inner).model
    assert [value.name for value in after.graph.outputs] == ["y"]
    assert ops(after) == {"Neg": 1, "Abs": 1}


def test_a_branch_cannot_return_a_value_from_outside(build: Build, run: Run, ops: Ops) -> None:
    branches = build(
        """g (bool c, float[N] x) => (float[N] y) {
            a = Neg(x)
            y = If(c) <
                then_branch = t () => (float[N] p) { p = Identity(a) },
                else_branch = e () => (float[N] q) { r = Abs(a)  s = Identity(r)  q = Identity(s) }
            >
        }"""
    )
    after = prepare(branches).model
    assert ops(after) == {"Neg": 1, "If": 1, "Identity": 1, "Abs": 1}
    feeds = {"c": np.array(True), "x": np.array([1, -2], np.float32)}
    np.testing.assert_array_equal(run(after, feeds)[0], [-1, 2])


def test_dropout_whose_mask_is_read_stays(build: Build, ops: Ops) -> None:
    masked = build("g (float[N] x) => (float[N] y, bool[N] n) { d, m = Dropout(x)  y = Neg(d)  n = Not(m) }")
    assert ops(prepare(masked).model) == {"Dropout": 1, "Neg": 1, "Not": 1}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(target=st.permutations([0, 2, -1]) | st.permutations([2, 3, -1]) | st.permutations([0, 0, -1]))
def test_reshape_keeps_what_it_means(build: Build, run: Run, target: list[int]) -> None:
    """Axes in any order: only the identical shape may be dropped (2 and 3 are the fixed axes of the input)."""
    before = build("g (float[N,2,3] x) => (float[A,B,C] y) { r = Reshape(x, s)  y = Neg(r) }", {"s": np.array(target)})
    feeds = {"x": np.arange(24, dtype=np.float32).reshape(4, 2, 3)}
    after = prepare(before).model
    np.testing.assert_array_equal(run(after, feeds)[0], run(before, feeds)[0])


def test_axes_of_one_name_are_not_taken_for_equal(build: Build, ops: Ops) -> None:
    """Some exporters call every unknown axis the same."""
    swapped = build(
        """g (float[D,D,2] x) => (float[A,B,C] y) {
            t = Transpose<perm=[1,0,2]>(x)
            s = Shape(t)
            r = Reshape(x, s)
            y = Neg(r)
        }"""
    )
    assert ops(prepare(swapped).model)["Reshape"] == 1


def test_a_known_type_survives(build: Build) -> None:
    typed = build("g (float[N] x) => (float[N] y) { a = Neg(x)  b = Identity(a)  y = Abs(b) }")
    after = prepare(typed).model
    assert {value.dtype for node in after.graph for value in node.outputs} == {ir.DataType.FLOAT}
