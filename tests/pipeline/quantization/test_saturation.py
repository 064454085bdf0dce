"""Weights for CPUs whose kernels add two products in 16 bits: by definition, and on the kernels of this CPU."""

import graphs
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress import graph
from onnxpress.cpu import saturates
from onnxpress.quantization import QuantizeOptions, weights
from onnxpress.quantization.pairs import HIGH, LOW, clipped, limits, paired, product_order, risky, saturating_product
from onnxpress.quantization.params import WeightGrid, dequantize_weight, quantize_weight
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.rounding import observe
from onnxpress.quantization.weights import Weights
from onnxpress.session import open_session, run
from onnxpress_calibration.dataset import Dataset


def heavy(model: ir.Model, low: float = -0.3) -> ir.Model:
    """Give every weight values near the top of its range, of one sign: what saturates."""
    random = np.random.default_rng(7)
    for name, value in model.graph.initializers.items():
        if name.startswith("w") and value.shape is not None:
            array = random.uniform(low, 1, [int(size) for size in value.shape]).astype(np.float32)
            value.const_value = ir.tensor(array, name=name)
    return model


def uniform(shape: tuple[int, ...]) -> Dataset:
    values = np.random.default_rng(3).uniform(0, 1, shape).astype(np.float32)
    return Dataset(origin="uniform", read=lambda: [{"x": values}])


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_only_risky_pairs_ever_saturate_and_within_limits_none_does(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(-127, 128, (rows, columns))
    activations = random.choice([0, 1, 200, 255], (3, rows))
    product = saturating_product(activations, weights)
    touched = np.unique(np.nonzero(product != activations @ weights)[1])
    assert set(touched) <= set(risky(weights)[1].tolist())
    lowest, highest = limits(weights, [ir.node("MatMul", [None, None])])
    for drawn in (lowest, highest, np.clip(weights, lowest, highest), random.integers(lowest, highest + 1)):
        assert len(risky(drawn)[0]) == 0 and (saturating_product(activations, drawn) == activations @ drawn).all()
    fitted = clipped(weights, [ir.node("MatMul", [None, None])])
    np.testing.assert_array_equal(fitted, np.clip(weights, lowest, highest))
    assert (
        fitted.dtype == weights.dtype
        and (clipped(weights.astype(np.float32), [ir.node("MatMul", [None, None])]) == fitted).all()
    )
    pairs = [sum(paired(np.maximum(sign * weights, 0))) for sign in (1, -1)]
    harmless = np.repeat((pairs[0] <= 128) & (pairs[1] <= 128), 2, axis=0)[:rows]
    assert ((lowest <= weights) & (weights <= highest))[harmless].all()


def test_a_weight_read_in_two_orders_is_limited_for_both() -> None:
    weights = np.random.default_rng(2).integers(60, 128, (8, 8))
    readers = [ir.node("MatMul", [None, None]), ir.node("Gemm", [None, None], {"transB": 1})]
    _, highest = limits(weights, readers)
    assert len(risky(highest)[0]) == 0 and len(risky(highest.T)[0]) == 0
    assert len(risky(limits(weights, readers[:1])[1].T)[0]) > 0
    fitted = clipped(weights, readers)
    assert len(risky(fitted)[0]) == 0 and len(risky(fitted.T)[0]) == 0


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 4, 1, 1), (2, 5, 7)])
def test_a_convolution_is_cut_in_the_order_of_its_kernel(shape: tuple[int, ...]) -> None:
    weights = np.random.default_rng(2).integers(-127, 128, shape)
    fitted = clipped(weights, [node := ir.node("Conv", [None, None])])
    np.testing.assert_array_equal(fitted, np.clip(weights, *limits(weights, [node])))
    assert len(risky(product_order(node, weights))[0]) > 0 == len(risky(product_order(node, fitted))[0])


def test_large_weights_are_tried_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, readers = (
        ir.tensor(np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)),
        [ir.node("MatMul", [None, None])],
    )
    whole = Weights({tensor: readers}).quantize(tensor, 1, WeightGrid())
    monkeypatch.setattr(weights, "CHUNK", 20)
    for one, other in zip(whole, Weights({tensor: readers}).quantize(tensor, 1, WeightGrid()), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("axis", [0, None])
@pytest.mark.parametrize("attributes", ["", "<group=2>"])
def test_limited_weights_lose_less_than_a_bit(attributes: str, axis: int | None) -> None:
    """Rounded with data, no pair saturates, and the output is nearer than with scales twice as coarse."""
    shape = (8, 4 if attributes == "" else 2, 3, 3)
    model = heavy(
        graphs.build(f"g (float[1,4,6,6] x) => (float[1,8,4,4] y) {{ y = Conv {attributes} (x, w) }}", {"w": shape})
    )
    (node,), data = model.graph, uniform((16, 4, 6, 6))
    seen = observe(model, [node], data, centred=lambda node: False)  # noqa: ARG005
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    weight, grid = tensor.numpy(), WeightGrid()
    integers, scale = Weights({tensor: [node]}, seen).quantize(tensor, axis, grid)
    assert (
        len(risky(multiplied(integers))[0]) == 0 < len(risky(multiplied(Weights().quantize(tensor, axis, grid)[0]))[0])
    )
    coarse, twice = quantize_weight(weight, axis, grid, 2 * quantize_weight(weight, axis, grid)[1])
    losses = []
    for each in (dequantize_weight(integers, scale, axis), dequantize_weight(coarse, twice, axis)):
        errors = seen.seen[tensor].layer.as_matrix(weight - each)
        losses.append(np.einsum("gic,gij,gjc->", errors, seen.seen[tensor].squares, errors))
    assert losses[0] < losses[1] / 2


def multiplied(integers: np.ndarray) -> np.ndarray:
    """Return the weight of a convolution as the kernel goes through it, [K, M]: channels fastest."""
    return np.stack([filters.transpose(1, 2, 0).reshape(-1) for filters in integers.astype(int)], axis=1)


def test_the_definition_on_numbers_worked_out_by_hand() -> None:
    activations = np.array([[255, 255, 255, 255, 10]])
    weights = np.array([[127, -127], [127, -127], [1, 0], [1, 0], [5, 1]])
    assert saturating_product(activations, weights).tolist() == [[HIGH + 510 + 50, LOW + 10]]


@pytest.mark.parametrize(
    ("target_cpu", "activations", "weights", "expected"),
    [
        ("any", "uint8", "int8", True),
        ("avx512", "uint8", "int8", True),
        ("vnni", "uint8", "int8", False),
        ("amx", "uint8", "int8", False),
        ("arm", "int8", "int8", False),
        ("any", "int8", "int8", True),
        ("avx2", "uint8", "uint8", False),
        ("avx2", "uint16", "int8", False),
    ],
)
def test_what_saturates_follows_from_the_cpu_and_the_integers(
    target_cpu: str, activations: str, weights: str, expected: bool
) -> None:
    values = {"target_cpu": target_cpu, "activations": activations, "weights": weights}
    assert QuantizeOptions.model_validate(values).saturates is expected


@pytest.mark.parametrize("mode", ["dynamic", "auto"])
def test_dynamic_int8_always_multiplies_uint8_activations(mode: str) -> None:
    assert QuantizeOptions.model_validate({"mode": mode, "activations": "uint16"}).saturates
    assert not QuantizeOptions.model_validate({"mode": mode, "bits": 7}).saturates


WEIGHTED = {
    "Conv": "y = Conv <pads=[1,1,1,1]> (x, w)",
    "grouped": "y = Conv <group=2> (x, w)",
    "MatMul": "y = MatMul(x, w)",
    "Gemm": "y = Gemm <transB=1> (x, w)",
}
SHAPES = {
    "Conv": ((1, 3, 6, 6), (8, 3, 3, 3), (1, 8, 6, 6)),  # an odd number of channels: pairs reach into the next position
    "grouped": ((1, 6, 6, 6), (4, 3, 3, 3), (1, 4, 4, 4)),
    "MatMul": ((16, 33), (33, 5), (16, 5)),
    "Gemm": ((16, 33), (5, 33), (16, 5)),
}
STATIC = [
    {"format": written, "activations": activations, "backend": backend, "per_tensor": per_tensor}
    for written in ("qdq", "qoperator")
    for activations in ("uint8", "int8")
    for backend, per_tensor in (("onnxpress", True), ("onnxpress", False), ("onnxruntime", activations == "int8"))
]


@pytest.mark.int8
@pytest.mark.parametrize("kind", list(WEIGHTED))
@pytest.mark.parametrize("values", STATIC, ids=lambda values: "-".join(map(str, values.values())))
def test_static_int8_is_the_same_on_every_cpu(kind: str, values: dict[str, str | bool]) -> None:
    """Weights and inputs near the top of their ranges: nothing saturates, by the integers and on this CPU's kernels."""
    shape, weight, result = SHAPES[kind]
    text = f"g (float{list(shape)} x) => (float{list(result)} y) {{ {WEIGHTED[kind]} }}"
    model, data = heavy(graphs.build(text, {"w": weight})), uniform((64, *shape[1:]))
    options = QuantizeOptions.model_validate({**values, "calibrator": "minmax", "verify": False})
    made = quantize(model, options, data).model
    assert [len(risky(matrix)[0]) for matrix in multiplied_by(made)] == [0]
    unsafe = quantize(model, options.model_copy(update={"target_cpu": "vnni"}), data).model
    assert [len(risky(matrix)[0]) > 0 for matrix in multiplied_by(unsafe)] == [True]
    feeds = {name: values[: shape[0]] for name, values in next(iter(data.read())).items()}
    expected, given = (run(open_session(each), feeds)["y"] for each in (model, made))
    assert np.square(expected - given).sum() < np.square(expected).sum() / 1000  # 30 dB


@pytest.mark.int8
@pytest.mark.parametrize(("per_tensor", "target_cpu"), [(False, "any"), (True, "any"), (False, "avx2")])
def test_dynamic_int8_is_the_same_on_every_cpu(per_tensor: bool, target_cpu: str) -> None:
    """Also in the body of an If, and of an LSTM, whose input and state are multiplied each."""
    model = graphs.build(
        "g (bool c, float[5,N,8] x) => (float[5,1,N,16] y) { y = If (c) <"
        "then_branch = t () => (float[5,1,N,16] p) { p, h = LSTM <hidden_size=16> (x, w1, w2) }, "
        "else_branch = e () => (float[5,1,N,16] q) { m = MatMul(x, w3) ax = Constant <value_ints = [1]> () "
        "q = Unsqueeze(m, ax) }> }",
        {"w1": (1, 64, 8), "w2": (1, 64, 16), "w3": (8, 16)},
    )
    heavy(model)
    options = QuantizeOptions.model_validate({"mode": "dynamic", "per_tensor": per_tensor, "target_cpu": target_cpu})
    edit = quantize(model, options)
    found = list(multiplied_by(edit.model))
    assert len(found) == 3 and all(len(risky(matrix)[0]) == 0 for matrix in found)
    assert edit.facts["saturation_avoided"]
    plain = quantize(model, options.model_copy(update={"target_cpu": "vnni"}))
    assert all(len(risky(matrix)[0]) > 0 for matrix in multiplied_by(plain.model))
    assert plain.facts["saturation_avoided"] == []
    x = np.random.default_rng(0).uniform(0.5, 1, (5, 3, 8)).astype(np.float32)
    for branch in (True, False):
        feeds = {"c": np.array(branch), "x": x}
        expected, given = (run(open_session(each), feeds)["y"] for each in (model, edit.model))
        assert np.square(expected - given).sum() < np.square(expected).sum() / 1000


def test_two_signed_activations_are_not_multiplied_by_the_backend_onnxruntime() -> None:
    """No weight could be made smaller there."""
    model = graphs.build("g (float[8,8] x) => (float[8,4] y) { a = MatMul(x, x) y = MatMul(a, w) }", {"w": (8, 4)})
    values = {"backend": "onnxruntime", "activations": "int8", "format": "qoperator", "verify": False}
    data = uniform((8, 8))
    for target, expected in (("any", 1), ("vnni", 2)):
        options = QuantizeOptions.model_validate({**values, "target_cpu": target})
        names = [node.op_type for node in quantize(model, options, data).model.graph]
        assert names.count("QLinearMatMul") == expected


def test_depthwise_kernels_and_uint8_weights_stay_as_they_are() -> None:
    depthwise = heavy(
        graphs.build("g (float[1,8,5,5] x) => (float[1,8,3,3] y) { y = Conv <group=8> (x, w) }", {"w": (8, 1, 3, 3)})
    )
    data = uniform((8, 8, 5, 5))
    edit = quantize(depthwise, QuantizeOptions(), data)
    assert edit.facts["saturation_avoided"] == []
    model = heavy(graphs.build("g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (8, 4)}))
    assert quantize(model, QuantizeOptions(mode="dynamic", weights="uint8")).facts["saturation_avoided"] == []


@pytest.mark.int8
def test_what_the_kernels_of_this_cpu_do_is_measured() -> None:
    random = np.random.default_rng(0)
    x, w = random.integers(200, 256, (4, 16)).astype(np.uint8), random.integers(100, 128, (16, 8)).astype(np.int8)
    model = graphs.build("g (uint8[4,16] x) => (int32[4,8] y) { y = MatMulInteger(x, w) }", {"w": (16, 8)})
    model.graph.initializers["w"].const_value = ir.tensor(w, name="w")
    model.graph.initializers["w"].dtype = ir.DataType.INT8
    given = run(open_session(model), {"x": x})["y"]
    exact = x.astype(int) @ w.astype(int)
    np.testing.assert_array_equal(given, saturating_product(x, w) if saturates() else exact)
    assert (saturating_product(x, w) != exact).all()


def multiplied_by(model: ir.Model) -> list[np.ndarray]:
    """Return the int8 weights of a written model as its kernels go through them, [K, M]."""
    found = []
    for node in graph.nodes(model):
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            back = node.inputs[1].producer() if node.inputs[1] is not None else None
            stored = None if back is None or back.op_type != "DequantizeLinear" else graph.constant(back.inputs[0])
            found += [] if stored is None else [product_order(node, stored.astype(int))]
        elif node.op_type in ("QLinearConv", "QLinearMatMul", "QGemm"):
            stored = graph.constant(node.inputs[3])
            as_float = ir.node(
                {"QLinearConv": "Conv", "QGemm": "Gemm"}.get(node.op_type, "MatMul"), [], dict(node.attributes)
            )
            found += [] if stored is None else [product_order(as_float, stored.astype(int))]
        elif node.op_type in ("MatMulInteger", "MatMulIntegerToFloat"):
            stored = graph.constant(node.inputs[1])
            assert stored is not None
            found.append(stored.astype(int))
        elif node.op_type == "DynamicQuantizeLSTM":
            for value in node.inputs[1:3]:
                stored = graph.constant(value)
                assert stored is not None
                found += [direction.astype(int) for direction in stored]
    return found
