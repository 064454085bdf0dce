"""Each operator against onnx's reference evaluator (and its gradient against finite differences)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from onnxpress.distillation.interpreter import Interpreter
from onnxpress.distillation.operators import OPERATORS
from onnxpress.errors import ModelError
from onnxpress.session import SessionOptions, open_session, run

Array = np.ndarray[Any, np.dtype[Any]]
INT64 = np.int64
NAMES = {
    np.dtype(np.float32): "float",
    np.dtype(np.int64): "int64",
    np.dtype(np.int32): "int32",
    np.dtype(np.bool_): "bool",
    np.dtype(np.float64): "double",
}


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def real(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def one_node(text: str, feeds: dict[str, Array], opset: int, kinds: list[str]) -> onnx.ModelProto:
    """Build ``text``, for example ``y = Add(a, b)``, with inputs typed like the feeds and outputs of these types."""
    typed = ", ".join(
        f"{NAMES[value.dtype]}[{','.join(map(str, value.shape))}] {name}" for name, value in feeds.items()
    )
    made = text.partition("=")[0].split(",")
    outputs = ", ".join(f"{kind} {name.strip()}" for kind, name in zip(kinds, made, strict=True))
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]> g ({typed}) => ({outputs}) {{ {text} }}'
    )


def check(text: str, *, opset: int = 18, tolerance: float = 1e-5, reference: bool = False, **feeds: Array) -> None:
    """Compare one node with onnxruntime, or with the reference evaluator where onnxruntime has no kernel."""
    outputs = text.partition("=")[0].split(",")
    module = Interpreter(ir.from_proto(one_node(text, feeds, opset, ["float"] * len(outputs))))
    given = [
        value.numpy() for value in module({name: torch.from_numpy(value) for name, value in feeds.items()}).values()
    ]
    proto = one_node(text, feeds, opset, [NAMES[value.dtype] for value in given])
    if reference:
        wanted = ReferenceEvaluator(proto).run(None, feeds)
    else:
        wanted = list(run(open_session(ir.from_proto(proto), SessionOptions(threads=1)), feeds).values())
    for each, found in zip(wanted, given, strict=True):
        assert found.shape == np.asarray(each).shape
        np.testing.assert_allclose(found, each, rtol=tolerance, atol=tolerance)


X = real(2, 6, 5, 7)
POSITIVE = np.abs(X) + 0.1
UNARY = """
Abs; Ceil; Celu <alpha=0.7>; Cos; Elu <alpha=0.5>; Erf; Exp; Floor; Gelu; Gelu <approximate="tanh">;
HardSigmoid <alpha=0.3, beta=0.4>; HardSwish; Identity; LeakyRelu <alpha=0.2>; Mish; Neg; Relu; Round; Selu;
Selu <alpha=1.2, gamma=0.9>; Sigmoid; Sign; Sin; Softplus; Softsign; Tanh; ThresholdedRelu <alpha=0.4>; IsNaN;
Cast <to=7>; Cast <to=9>; Cast <to=11>; Softmax; Softmax <axis=1>; LogSoftmax <axis=2>; Flatten;
Flatten <axis=0>; Flatten <axis=-2>; Transpose; Transpose <perm=[0,2,3,1]>; GlobalAveragePool; GlobalMaxPool;
LRN <size=3, alpha=0.01, beta=0.5, bias=1.5>; LpNormalization <axis=1, p=1>; ArgMax <axis=1>;
ArgMin <axis=-1, keepdims=0>; ReduceMean; ReduceMax <keepdims=0>; Shape; Shape <start=1, end=-1>; Size; Dropout;
Squeeze; NonZero
"""


@pytest.mark.parametrize("call", [call.strip() for call in UNARY.split(";")])
def test_unary(call: str) -> None:
    name, _, attributes = call.partition(" ")
    check(f"y = {name} {attributes}(x)", opset=22, x=X)


@pytest.mark.parametrize("name", ["Sqrt", "Log", "Reciprocal"])
def test_unary_of_positive_values(name: str) -> None:
    check(f"y = {name}(x)", x=POSITIVE)


@pytest.mark.parametrize(
    "name",
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Max",
        "Min",
        "Sum",
        "Mean",
        "Equal",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
    ],
)
def test_binary_with_broadcasting(name: str) -> None:
    check(f"y = {name}(a, b)", a=real(3, 1, 5), b=real(4, 1, seed=1) + 3)


def test_arithmetic_of_integers() -> None:
    check("y = Div(a, b)", a=ints(-7, 7, 9), b=ints(2, -2, 4))
    check("y = Mod(a, b)", a=ints(-7, 7, 9), b=ints(2, -2, 4))
    check("y = Mod <fmod=1>(a, b)", a=real(9), b=real(9, seed=1))
    check("y = Pow(a, b)", a=POSITIVE, b=np.array(1.7, np.float32))
    check("y = Pow(a, b)", a=X, b=ints(3))


def test_logic_and_selection() -> None:
    a, b = np.array([True, True, False]), np.array([True, False, False])
    for name in ("And", "Or", "Xor"):
        check(f"y = {name}(a, b)", a=a, b=b)
    check("y = Not(a)", a=a)
    check("y = Where(c, a, b)", c=a, a=real(2, 3), b=real(1, seed=1))
    check("y = Clip(x, low, high)", x=X, low=np.array(-0.5, np.float32), high=np.array(0.7, np.float32))
    check("y = Clip(x, , high)", x=X, high=np.array(0.7, np.float32))
    check("y = PRelu(x, s)", x=X, s=real(6, 1, 1, seed=1))
    check("y = CastLike(x, s)", x=X, s=ints(1))


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "strides=[2,1], pads=[1,2,1,2]",
        "pads=[0,1,2,0]",
        "dilations=[2,2]",
        "group=2, pads=[1,1,1,1]",
        'auto_pad="SAME_UPPER", strides=[2,2]',
        'auto_pad="SAME_LOWER", strides=[2,3]',
        'auto_pad="VALID"',
    ],
)
def test_convolution(attributes: str) -> None:
    channels = 3 if "group" in attributes else 6
    call = f"Conv <{attributes}>" if attributes else "Conv"
    check(f"y = {call}(x, w, b)", x=X, w=real(4, channels, 3, 3, seed=1), b=real(4), tolerance=1e-4)


def test_convolution_of_other_ranks() -> None:
    check("y = Conv <pads=[1,1]>(x, w)", x=real(2, 3, 9), w=real(4, 3, 3, seed=1), tolerance=1e-4)
    check("y = Conv(x, w)", x=real(1, 2, 4, 5, 6), w=real(3, 2, 2, 3, 2, seed=1), tolerance=1e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "strides=[2,2]",
        "strides=[2,3], pads=[1,0,0,2]",
        "strides=[2,2], output_padding=[1,1], pads=[1,1,1,1]",
        "group=2",
        "dilations=[2,1]",
        "strides=[2,2], output_shape=[10,14]",
        'auto_pad="SAME_UPPER", strides=[2,2]',
        'auto_pad="SAME_LOWER", strides=[2,2]',
    ],
)
def test_transposed_convolution(attributes: str) -> None:
    call = f"ConvTranspose <{attributes}>" if attributes else "ConvTranspose"
    check(
        f"y = {call}(x, w, b)",
        x=X,
        w=real(6, 4, 3, 3, seed=1),
        b=real(8 if "group" in attributes else 4),
        tolerance=1e-4,
    )


@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape=[2,2]",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]",
        "kernel_shape=[3,2], pads=[0,0,2,1]",
        "kernel_shape=[2,2], strides=[2,2], ceil_mode=1",
        'kernel_shape=[3,3], auto_pad="SAME_UPPER", strides=[2,2]',
    ],
)
@pytest.mark.parametrize("name", ["MaxPool", "AveragePool"])
def test_pooling(name: str, attributes: str) -> None:
    check(f"y = {name} <{attributes}>(x)", x=X)


def test_pooling_special_cases() -> None:
    check("y = MaxPool <kernel_shape=[2,2], dilations=[2,2]>(x)", x=X)
    check("y = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)", x=X)
    check("y = AveragePool <kernel_shape=[3,2], pads=[0,0,2,1], count_include_pad=1>(x)", x=X)
    check("y = MaxPool <kernel_shape=[3]>(x)", x=real(2, 3, 9))


def test_products() -> None:
    check("y = MatMul(a, b)", a=real(2, 1, 4, 3), b=real(5, 3, 6, seed=1))
    check("y = MatMul(a, b)", a=real(3), b=real(3, 6, seed=1))
    check("y = Gemm <alpha=0.5, beta=2.0, transA=1, transB=1>(a, b, c)", a=real(3, 4), b=real(5, 3, seed=1), c=real(5))
    check("y = Gemm(a, b)", a=real(4, 3), b=real(3, 5, seed=1))
    check('y = Einsum <equation="bij,bkj->bik">(a, b)', a=real(2, 3, 4), b=real(2, 5, 4, seed=1))


def test_normalizations() -> None:
    scale, bias = real(6, seed=1), real(6, seed=2)
    check("y = BatchNormalization(x, s, b, m, v)", x=X, s=scale, b=bias, m=real(6, seed=3), v=np.abs(real(6)) + 0.1)
    check("y = InstanceNormalization(x, s, b)", x=X, s=scale, b=bias, tolerance=1e-4)
    check("y = LayerNormalization <axis=-1>(x, s, b)", x=X, s=real(7), b=real(7, seed=1), tolerance=1e-4)
    check("y = LayerNormalization <axis=2>(x, s)", x=X, s=real(5, 7), tolerance=1e-4)
    check("y = GroupNormalization <num_groups=3>(x, s, b)", opset=21, x=X, s=scale, b=bias, tolerance=1e-4)
    check("y = RMSNormalization(x, s)", opset=23, x=X, s=real(7), tolerance=1e-4)
    check("y = SimplifiedLayerNormalization <axis=-1, epsilon=0.01>(x, s)", opset=17, x=X, s=real(7), tolerance=1e-4)


@pytest.mark.parametrize("name", sorted(name for name in OPERATORS if name.startswith("Reduce")))
def test_reductions(name: str) -> None:
    check(f"y = {name}(x, a)", x=POSITIVE, a=ints(1, -1), tolerance=1e-4)
    check(f"y = {name} <keepdims=0>(x, a)", x=POSITIVE, a=ints(2), tolerance=1e-4)
    check(f"y = {name} <noop_with_empty_axes=0>(x)", x=POSITIVE[:, :1], tolerance=1e-4)


def test_order() -> None:
    check("y, i = TopK <axis=1>(x, k)", x=X, k=ints(3))
    check("y, i = TopK <largest=0>(x, k)", x=X, k=ints(2))
    check("y = CumSum(x, a)", x=X, a=np.array(1, INT64))
    check("y = CumSum <exclusive=1, reverse=1>(x, a)", x=X, a=np.array(-1, INT64))


def test_shapes() -> None:
    check("y = Reshape(x, s)", x=X, s=ints(0, -1, 7))
    check("y = Reshape <allowzero=1>(x, s)", x=real(0, 3), s=ints(3, 0))
    check("y = Squeeze(x, a)", x=real(2, 1, 3, 1), a=ints(-1))
    check("y = Unsqueeze(x, a)", x=real(2, 3), a=ints(0, -1))
    check("y = Expand(x, s)", x=real(3, 1), s=ints(2, 1, 4))
    check("y = Tile(x, r)", x=real(2, 3), r=ints(2, 3))
    check("y = Concat <axis=-2>(a, b)", a=real(2, 3, 4), b=real(2, 1, 4, seed=1))
    check("y, z = Split <axis=1>(x, s)", x=X, s=ints(4, 2))
    check("y, z, u, v = Split <axis=1, num_outputs=4>(x)", x=real(2, 7))
    check("y = ConstantOfShape <value=float[1] {1.5}>(s)", s=ints(2, 3))
    check("y = Range(a, b, c)", a=np.array(1, INT64), b=np.array(9, INT64), c=np.array(2, INT64))
    check("y = Trilu <upper=0>(x, k)", x=X, k=np.array(1, INT64))
    check("y = DepthToSpace <blocksize=2>(x)", x=real(2, 8, 3, 4))
    check('y = DepthToSpace <blocksize=2, mode="CRD">(x)', x=real(2, 8, 3, 4))
    check("y = SpaceToDepth <blocksize=2>(x)", x=real(2, 3, 4, 6))


def test_slices() -> None:
    check("y = Slice(x, s, e, a, t)", x=X, s=ints(1, -1), e=ints(1000, -1000), a=ints(1, -1), t=ints(2, -2))
    check("y = Slice(x, s, e)", x=X, s=ints(1, 2), e=ints(2, -1))
    check("y = Slice(x, s, e, a)", x=X, s=ints(4), e=ints(2), a=ints(1))


def test_gathering_and_scattering() -> None:
    table = real(9, 4)
    check("y = Gather(x, i)", x=table, i=ints(3, -1, 3))
    check("y = Gather <axis=2>(x, i)", x=X, i=ints(0, -2).reshape(1, 2))
    check("y = Gather <axis=1>(x, i)", x=X, i=np.array(-1, INT64))
    check("y = GatherElements <axis=1>(x, i)", x=real(2, 3), i=np.array([[0, -1], [2, 1]], INT64))
    check("y = GatherND(x, i)", x=table, i=np.array([[0, 1], [8, 3]], INT64))
    check("y = ScatterElements <axis=1>(x, i, u)", x=real(2, 3), i=np.array([[0], [-1]], INT64), u=real(2, 1, seed=1))
    check("y = ScatterND(x, i, u)", x=table, i=np.array([[2], [5]], INT64), u=real(2, 4, seed=1))
    check("y = OneHot <axis=1>(i, d, v)", i=ints(2, 0, -1), d=np.array(4, INT64), v=np.array([0.5, 2], np.float32))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding(mode: str) -> None:
    check(f'y = Pad <mode="{mode}">(x, p)', opset=19, x=X, p=ints(0, 0, 1, 2, 0, 0, 2, 1))


def test_padding_of_chosen_axes_and_cropping() -> None:
    check("y = Pad(x, p, v, a)", x=X, p=ints(1, 2, -1, 0), v=np.array(0.5, np.float32), a=ints(-1, 1))


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("size", [(10, 14), (3, 4), (7, 7)])
def test_resize(mode: str, coordinates: str, size: tuple[int, int]) -> None:
    call = f'y = Resize <mode="{mode}", coordinate_transformation_mode="{coordinates}">(x, , , s)'
    check(call, x=X, s=ints(2, 6, *size), tolerance=1e-4)


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_resize_by_scales_with_every_rounding(rounding: str) -> None:
    scales = np.array([1, 1, 2, 1.5], np.float32)
    check(f'y = Resize <nearest_mode="{rounding}", coordinate_transformation_mode="asymmetric">(x, , k)', x=X, k=scales)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_recurrence(cell: str, direction: str) -> None:
    ways, gates, size = 2 if direction == "bidirectional" else 1, 4 if cell == "LSTM" else 3, 5
    more = ", linear_before_reset=1" if cell == "GRU" else ""
    outputs = "y, h, c" if cell == "LSTM" else "y, h"
    check(
        f'{outputs} = {cell} <hidden_size={size}, direction="{direction}"{more}>(x, w, r, b)',
        x=real(6, 2, 3),
        w=real(ways, gates * size, 3, seed=1),
        r=real(ways, gates * size, size, seed=2),
        b=real(ways, 2 * gates * size, seed=3),
    )


def quantized(
    kind: ir.DataType, shape: tuple[int, ...], scale: Array, zero: Array | None, attributes: dict[str, int]
) -> ir.Model:
    """x -> QuantizeLinear -> DequantizeLinear with constant scales of an integer type."""
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    zeros = ir.tensor((np.zeros(scale.shape) if zero is None else zero).astype(kind.numpy()), dtype=kind, name="z")
    constants = [
        ir.Value(name=tensor.name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        for tensor in (ir.tensor(scale.astype(np.float32), name="s"), zeros)
    ]
    down = ir.node("QuantizeLinear", [x, *constants], attributes)
    up = ir.node("DequantizeLinear", [down.outputs[0], *constants], attributes)
    up.outputs[0].name = "y"
    up.outputs[0].dtype = ir.DataType.FLOAT
    main = ir.Graph([x], up.outputs, nodes=[down, up], initializers=constants, opset_imports={"": 21}, name="g")
    return ir.Model(main, ir_version=10)


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT4", "UINT4", "INT16"])
@pytest.mark.parametrize("form", ["tensor", "channel", "block"])
def test_quantization(kind: str, form: str) -> None:
    x = real(4, 6, seed=5) * 3
    scale, attributes = {
        "tensor": (np.array(0.05), {}),
        "channel": (np.abs(real(6)) + 0.01, {"axis": 1}),
        "block": (np.abs(real(4, 2)) + 0.01, {"axis": 1, "block_size": 3}),
    }[form]
    zero = np.full(scale.shape, 7) if kind.startswith("U") else None
    model = quantized(ir.DataType[kind], x.shape, scale, zero, attributes)
    wanted = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    np.testing.assert_allclose(Interpreter(model)({"x": torch.from_numpy(x)})["y"].numpy(), wanted, atol=1e-6)


def test_gradients_pass_rounding_and_stop_at_the_ends() -> None:
    x = torch.tensor([[-90.0, -1.2, 0.3, 90.0]], requires_grad=True)
    Interpreter(quantized(ir.DataType.INT8, (1, 4), np.array(0.5), None, {}))({"x": x})["y"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1, 1, 0]]


def test_four_bit_weights_are_read_as_stored() -> None:
    assert ml_dtypes.int4(-8) == -8  # the type the graph keeps them in
    weight = np.array([[-8, 3], [7, -1], [0, 5]])
    tensor = ir.tensor(weight.astype(ml_dtypes.int4), dtype=ir.DataType.INT4, name="w")
    scale = ir.tensor(np.array([0.5, 0.25], np.float32), name="s")
    constants = [
        ir.Value(name=t.name, const_value=t, type=ir.TensorType(t.dtype), shape=t.shape) for t in (tensor, scale)
    ]
    x = ir.Value(name="x", shape=ir.Shape([1, 3]), type=ir.TensorType(ir.DataType.FLOAT))
    up = ir.node("DequantizeLinear", constants, {"axis": 1})
    product = ir.node("MatMul", [x, up.outputs[0]])
    product.outputs[0].name = "y"
    main = ir.Graph([x], product.outputs, nodes=[up, product], initializers=constants, opset_imports={"": 21}, name="g")
    module = Interpreter(ir.Model(main, ir_version=10))
    given = module({"x": torch.eye(3)})["y"]
    assert given.tolist() == (weight * [0.5, 0.25]).tolist()
    assert [quantity.name for quantity in module.quantized] == ["w"]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("y = MatMulInteger(x, v)", "MatMulInteger"),
        ("y, i = MaxPool <kernel_shape=[1,1]>(x)", "more than one output"),
        ('y = Resize <mode="linear", antialias=1>(x, , k)', "antialias"),
        ("y = AveragePool <kernel_shape=[2,2], dilations=[2,2]>(x)", "dilations"),
    ],
)
def test_unsupported_operators_behind_a_weight_are_refused_by_name(call: str, why: str) -> None:
    text = f"c = Conv(q, w) {call.replace('(x', '(c')}"
    head = '<ir_version: 10, opset_import: ["": 19]> '
    outputs = "float y, int64 i" if "i =" in call else "float y"
    proto = onnx.parser.parse_model(f"{head} g (float[1,2,4,4] q, float[4] k, float[4] v) => ({outputs}) {{ {text} }}")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(real(2, 2, 1, 1), "w"))
    with pytest.raises(ModelError, match=why):
        Interpreter(ir.from_proto(proto))


def test_an_unknown_operator_before_any_weight_is_run_without_gradients() -> None:
    proto = one_node("y = Hardmax(x)", {"x": real(2, 3)}, 18, ["float"])
    assert Interpreter(ir.from_proto(proto))({"x": torch.tensor([[1.0, 3, 2]])})["y"].tolist() == [[0, 1, 0]]


def test_every_operator_is_tested() -> None:
    written = Path(__file__).read_text()
    missing = [name for name in OPERATORS if name not in written and not name.startswith("Reduce")]
    assert missing == []
