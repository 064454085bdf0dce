from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import graph
from onnxpress.errors import ModelError
from onnxpress.export.passes import shapes
from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Ops = Callable[[ir.Model], dict[str, int]]


def stated(model: ir.Model, name: str, shape: list[int | str]) -> ir.Model:
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.name == name:
                value.shape = ir.Shape(shape)
                value.dtype = ir.DataType.FLOAT
    return model


def shape(model: ir.Model, name: str) -> ir.Shape:
    return next(v.shape for node in model.graph.all_nodes() for v in node.outputs if v.name == name)


def test_shapes_are_inferred(build: Build) -> None:
    after = prepare(build("g (float[N,3] x) => (float[A,B] y) { a = Concat<axis=1>(x, x)  y = Neg(a) }")).model
    assert list(shape(after, "a")) == ["N", 6]
    assert list(after.graph.outputs[0].shape) == ["N", 6]


def test_what_the_file_knows_is_kept(build: Build) -> None:
    """NonZero of an input: only the file can tell how many there are."""
    model = stated(build("g (float[4] x) => (int64[1,K] y) { a = NonZero(x)  y = Neg(a) }"), "a", [1, 3])
    after = prepare(model).model
    assert list(shape(after, "a")) == [1, 3]
    assert list(after.graph.outputs[0].shape) == [1, "K"]


def test_what_custom_operators_return_is_kept_and_used(build: Build) -> None:
    model = stated(
        build(
            """<ir_version: 8, opset_import: ["": 17, "my.domain": 1]>
            g (float[N,3] x) => (float[A,B] y) { a = my.domain.Foo(x)  b = Concat<axis=1>(a, a)  y = Neg(b) }"""
        ),
        "a",
        ["N", 5],
    )
    after = prepare(model).model
    assert list(shape(after, "b")) == ["N", 10]


def test_stale_shapes_decide_nothing(build: Build, ops: Ops) -> None:
    """A batch axis renamed at the inputs only: folding the stale 1 would fix the batch again."""
    model = stated(
        build(
            """g (float[N,3] x) => (float[A,B] y) {
                a = Neg(x)
                s = Shape(a)
                r = ConstantOfShape(s)
                y = Add(a, r)
            }"""
        ),
        "a",
        [1, 3],
    )
    after = prepare(model).model
    assert ops(after)["ConstantOfShape"] == 1
    assert list(shape(after, "a")) == ["N", 3]


def test_names_that_inference_makes_up_are_dropped(build: Build) -> None:
    model = build("g (float[N,3] x, int64[2] s) => (float[A,B] y) { a = Reshape(x, s)  y = Neg(a) }")
    after = prepare(model).model
    assert graph.shape(after.graph.outputs[0]) == (None, None)
    assert [axis.value for axis in shape(after, "a")] == [None, None]
    assert [axis.value for axis in after.graph.outputs[0].shape] == ["A", "B"]


def test_onnxruntimes_own_quantization_is_seen_through(build: Build) -> None:
    model = build(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[N,3,4,4] x) => (float[A,B,C,D] y) {
          q = com.microsoft.QuantizeLinear (x, s, z)
          d = com.microsoft.DequantizeLinear (q, s, z)
          y = Conv (d, w)
        }
        """,
        {"s": np.array(0.1, np.float32), "z": np.array(9, np.uint16), "w": np.ones((2, 3, 1, 1), np.float32)},
    )
    after = prepare(model).model
    assert list(shape(after, "d")) == ["N", 3, 4, 4]
    assert list(after.graph.outputs[0].shape) == ["N", 2, 4, 4]
    assert {node.domain for node in after.graph if node.op_type != "Conv"} == {graph.MICROSOFT}


@pytest.mark.parametrize("body", ["y = MatMul(x, w)", "y = Add(x, w)", "y = Gemm(x, w)"])
def test_inputs_that_do_not_fit_together(build: Build, body: str) -> None:
    text = f"g (float[2,3] x, float[4,5] w) => (float[N,M] y) {{ {body} }}"
    with pytest.raises(ModelError, match="no input can run through it"):
        shapes.infer(build(text))


def test_what_a_file_says_wrongly_of_its_values_is_not_believed(build: Build) -> None:
    model = build("g (float[2,3] x) => (float[7] y) { y = Relu(x) }")
    shapes.infer(model)
    assert model.graph.outputs[0].shape is not None
