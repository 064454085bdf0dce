from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]


@pytest.mark.parametrize("rank", [1, 2])
def test_the_branch_that_always_runs(
    build: Build,
    run: Run,
    ops: Ops,
    rank: int,
) -> None:
    dims = "N" if rank == 1 else "N,3"
    model = build(
        f"""g (float[{dims}] x) => (float[{dims}] y, float z) {{
            s = Shape(x)
            r = Size(s)
            one = Constant<value_int=1>()
            is = Equal(r, one)
            a, b = If(is) <
                then_branch = t () => (float[{dims}] p, float q) {{
                    k = Neg(x)
                    p = Exp(k)
                    q = ReduceSum<keepdims=0>(x)
                }},
                else_branch = e () => (float[{dims}] u, float v) {{
                    u = Abs(x)
                    v = Constant<value_float=3.0>()
                }}
            >
            y = Neg(a)
            z = Identity(b)
        }}"""
    )
    after = prepare(model).model
    assert "If" not in ops(after)
    feeds = {"x": np.array([1, -2, 3], np.float32).reshape((-1,) if rank == 1 else (-1, 3))}
    for found, expected in zip(run(after, feeds), run(model, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_of_the_other_branch_go(build: Build, run: Run) -> None:
    model = build(
        """g (float[N,2] x) => (float[N,2] y) {
            c = Constant<value=bool {0}>()
            y = If(c) <
                then_branch = t () => (float[N,2] p) {
                    d = ReduceMax<keepdims=0>(x)
                    zero = Constant<value_float=0.0>()
                    e = Less(d, zero)
                    p = If(e) <
                        then_branch = tt () => (float[N,2] r) { r = MatMul(x, only_there) },
                        else_branch = te () => (float[N,2] s) { s = Neg(x) }
                    >
                },
                else_branch = e () => (float[N,2] q) { q = Abs(x) }
            >
        }""",
        {"only_there": np.ones((2, 2), np.float32)},
    )
    edit = prepare(model)
    assert list(edit.model.graph.initializers) == []
    assert prepare(edit.model).changed == ()
    np.testing.assert_array_equal(run(edit.model, {"x": np.array([[-1, 2]], np.float32)})[0], [[1, 2]])
