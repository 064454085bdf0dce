"""The emulated kernel against its definition, pair by pair, and the repair of what saturates."""

from typing import Literal

import graphs
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.errors import ModelError
from onnxpress.quantization import QuantizeOptions, static
from onnxpress.quantization.emulation import emulate, predict
from onnxpress.quantization.pairs import HIGH, LOW, limits, paired, risky, saturating_product
from onnxpress.quantization.params import ActivationType, WeightGrid, dequantize_weight, quantize_weight
from onnxpress.quantization.placement import place
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.rounding import observe
from onnxpress.quantization.saturation import limited
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


def quantized(model: ir.Model, high: float = 1.0, activations: ActivationType = "uint8") -> ir.Model:
    copy = model.clone()
    options = QuantizeOptions(activations=activations)
    placement = place(copy, options.selects)
    return static.write(copy, placement, dict.fromkeys(_names(placement), (0.0, high)), options).model


def _names(placement: object) -> list[str]:
    return [value.name or "" for value in placement.measured]  # type: ignore[attr-defined]


def uniform(shape: tuple[int, ...]) -> Dataset:
    values = np.random.default_rng(3).uniform(0, 1, shape).astype(np.float32)
    return Dataset(origin="uniform", read=lambda: [{"x": values}])


CONVS = [
    ("Conv <pads=[1,1,1,1]> (x, w)", (4, 6, 6), (8, 4, 3, 3)),
    ("Conv <pads=[0,1,2,1], strides=[2,1]> (x, w)", (4, 7, 6), (8, 4, 3, 3)),
    ("Conv <dilations=[2,1]> (x, w)", (4, 7, 6), (8, 4, 3, 2)),
    ("Conv <pads=[1,1,1,1]> (x, w)", (3, 6, 6), (8, 3, 3, 3)),  # odd: pairs reach into the next position
    ("Conv <group=2> (x, w)", (6, 6, 6), (4, 3, 3, 3)),
    ("Conv <group=4> (x, w)", (4, 6, 6), (8, 1, 3, 3)),  # two filters per channel: no depthwise kernel
    ('Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)', (4, 7, 6), (8, 4, 3, 3)),
]


@pytest.mark.parametrize("activations", ["uint8", "int8"])  # with the zero point -128, signed ones shift to the same
@pytest.mark.parametrize(("text", "shape", "weight"), CONVS)
def test_a_convolution_saturates_as_the_definition_says(
    text: str, shape: tuple[int, ...], weight: tuple[int, ...], activations: ActivationType
) -> None:
    size = ",".join(map(str, shape))
    model = heavy(graphs.build(f"g (float[1,{size}] x) => (float[1,M,H,W] y) {{ y = {text} }}", {"w": weight}))
    int8 = quantized(model, high=0.75, activations=activations)  # a step that is no power of two, and clipping
    feeds = next(uniform((1, *shape)).samples())
    # The definition, on integers read back from the file and patches cut out one by one.
    q, w, scale, step = _integers(int8, feeds["x"])
    attributes = model.graph[0].attributes
    group = attributes.get_int("group", 1)
    strides = attributes["strides"].as_ints() if "strides" in attributes else [1, 1]
    dilations = attributes["dilations"].as_ints() if "dilations" in attributes else [1, 1]
    pads = attributes["pads"].as_ints() if "pads" in attributes else [0] * 4
    pads = [1, 0, 1, 1] if "auto_pad" in attributes else pads  # 7 by 6, kernel 3, stride 2
    padded = np.pad(q[0], ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    kernel, per_group = w.shape[2:], w.shape[1]
    reach = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    rows, columns = (range(0, padded.shape[i + 1] - reach[i], strides[i]) for i in (0, 1))
    expected = np.zeros((len(w), len(rows), len(columns)))
    for m, filters in enumerate(w):
        channels = slice(m // (len(w) // group) * per_group, (m // (len(w) // group) + 1) * per_group)
        vector = filters.transpose(1, 2, 0).reshape(-1, 1)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                ends = row + reach[0] + 1, column + reach[1] + 1
                patch = padded[channels, row : ends[0] : dilations[0], column : ends[1] : dilations[1]]
                product = saturating_product(patch.transpose(1, 2, 0).reshape(1, -1), vector)
                expected[m, i, j] = product[0, 0] * scale[m] * step
    given = _before_rounding(emulate(int8), feeds)
    np.testing.assert_allclose(given[0], expected, rtol=1e-5, atol=1e-4)
    exact = _before_rounding(int8, feeds)
    assert np.abs(exact[0] - expected).max() > 0.1  # it did saturate


def _integers(model: ir.Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return (activations, weights, weight scales, activation step) of a model with one convolution."""
    values = {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}
    step = float(values["x_s"])
    integers = np.clip(np.round(x / np.float32(step)), 0, 255).astype(np.int64)
    return integers, values["w_q"].astype(np.int64), values["w_s"].astype(float), step


def _before_rounding(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Run a model up to what its last QuantizeLinear reads."""
    copy = model.clone()
    last = [node for node in copy.graph if node.op_type == "QuantizeLinear"][-1]
    value = last.inputs[0]
    assert value is not None
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = None
    copy.graph.outputs[0] = value
    return run(open_session(copy), feeds)[value.name or ""]


def test_a_matrix_product_saturates_as_the_definition_says() -> None:
    model = heavy(graphs.build("g (float[N,9] x) => (float[N,5] y) { y = MatMul(x, w) }", {"w": (9, 5)}), low=0.5)
    int8 = quantized(model)
    feeds = dict(next(iter(uniform((16, 9)).read())))
    q, w, scale, step = _integers(int8, feeds["x"])
    expected = saturating_product(q, w) * scale * step
    np.testing.assert_allclose(run(open_session(emulate(int8)), feeds)["y"], expected, rtol=1e-5)
    assert np.abs(run(open_session(int8), feeds)["y"] - expected).max() > 0.1


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
    pairs = [sum(paired(np.maximum(sign * weights, 0))) for sign in (1, -1)]
    harmless = np.repeat((pairs[0] <= 128) & (pairs[1] <= 128), 2, axis=0)[:rows]
    assert ((lowest <= weights) & (weights <= highest))[harmless].all()


def test_a_weight_read_in_two_orders_is_limited_for_both() -> None:
    weights = np.random.default_rng(2).integers(60, 128, (8, 8))
    readers = [ir.node("MatMul", [None, None]), ir.node("Gemm", [None, None], {"transB": 1})]
    _, highest = limits(weights, readers)
    assert len(risky(highest)[0]) == 0 and len(risky(highest.T)[0]) == 0
    assert len(risky(limits(weights, readers[:1])[1].T)[0]) > 0


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


def test_layers_that_lose_are_named_and_made_safe_and_no_others() -> None:
    model = graphs.build(
        "g (float[N,8] x) => (float[N,4] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
        {"w1": (8, 8), "w2": (8, 4)},
    )
    weight = model.graph.initializers["w1"]
    heavy_weight = np.random.default_rng(1).uniform(0.5, 1, (8, 8)).astype(np.float32)
    weight.const_value = ir.tensor(heavy_weight, name="w1")
    alternating = np.tile([[1.0], [-1.0]], (4, 4)).astype(np.float32)  # no two neighbours of one sign
    model.graph.initializers["w2"].const_value = ir.tensor(alternating, name="w2")
    data, ranges = uniform((8, 8)), {"x": (0.0, 1.0), "r": (0.0, 8.0), "a": (0.0, 8.0)}
    first, second = (node.name or "" for node in model.graph if node.op_type == "MatMul")
    copy = model.clone()
    options = QuantizeOptions()
    plain = static.write(copy, place(copy, options.selects), ranges, options).model
    losses = {loss.node: loss for loss in predict(plain, data)}
    assert losses[first].error > 1e-3 and losses[first].share > 0.5
    assert losses[second].error == 0 and losses[second].pairs == 0
    weights = limited(model, ranges, options, data)
    assert [node.name for nodes in weights.limited.values() for node in nodes] == [first]
    copy = model.clone()
    edit = static.write(copy, place(copy, options.selects), ranges, options, weights)
    assert all(loss.error == 0 for loss in predict(edit.model, data))
    feeds = next(data.samples())
    wanted = run(open_session(model), feeds)["y"]
    lost = np.abs(run(open_session(emulate(plain)), feeds)["y"] - wanted).max()
    assert np.abs(run(open_session(emulate(edit.model)), feeds)["y"] - wanted).max() < lost / 5


def test_without_data_every_layer_that_could_is_made_safe() -> None:
    model = heavy(graphs.build("g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (8, 4)}))
    options, ranges = QuantizeOptions(), {"x": (0.0, 1.0)}
    weights = limited(model, ranges, options, None)
    assert len(weights.limited) == 1
    copy = model.clone()
    edit = static.write(copy, place(copy, options.selects), ranges, options, weights)
    assert all(loss.pairs == 0 for loss in predict(edit.model, uniform((4, 8))))


def test_depthwise_kernels_and_uint8_weights_do_not_saturate() -> None:
    depthwise = heavy(
        graphs.build("g (float[1,8,5,5] x) => (float[1,8,3,3] y) { y = Conv <group=8> (x, w) }", {"w": (8, 1, 3, 3)})
    )
    assert predict(quantized(depthwise), uniform((2, 8, 5, 5))) == []
    model = heavy(graphs.build("g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (8, 4)}))
    options = QuantizeOptions(weights="uint8")
    copy = model.clone()
    unsigned = static.write(copy, place(copy, options.selects), {"x": (0.0, 1.0)}, options).model
    assert predict(unsigned, uniform((2, 8))) == []


def test_padding_that_depends_on_a_free_size_is_refused_by_name() -> None:
    model = heavy(
        graphs.build(
            'g (float[1,4,H,W] x) => (float[1,8,P,Q] y) { y = Conv <auto_pad="SAME_LOWER"> (x, w) }',
            {"w": (8, 4, 3, 3)},
        )
    )
    with pytest.raises(ModelError, match="auto_pad on a free size"):
        emulate(quantized(model))


@pytest.mark.parametrize(
    ("target_cpu", "activations", "weights", "expected"),
    [
        ("any", "uint8", "int8", True),
        ("avx512", "uint8", "int8", True),
        ("vnni", "uint8", "int8", False),
        ("any", "int8", "int8", False),  # for other devices
        ("avx2", "int8", "int8", True),
        ("avx2", "uint8", "uint8", False),
        ("avx2", "uint16", "int8", False),
    ],
)
def test_what_saturates_follows_from_the_cpu_and_the_integers(
    target_cpu: str, activations: str, weights: str, expected: bool
) -> None:
    values = {"target_cpu": target_cpu, "activations": activations, "weights": weights}
    assert QuantizeOptions.model_validate(values).saturates is expected


@pytest.mark.parametrize(("cpu", "largest"), [("any", 127), ("vnni", 127), ("avx2", 63), ("avx512", 63)])
def test_dynamic_weights_for_a_cpu_that_saturates_have_seven_bits(
    cpu: Literal["any", "vnni", "avx2", "avx512"], largest: int
) -> None:
    model = heavy(graphs.build("g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (8, 4)}))
    written = quantize(model, QuantizeOptions(mode="dynamic", target_cpu=cpu)).model
    stored = [value.const_value.numpy() for value in written.graph.initializers.values() if value.const_value]
    (integers,) = [array for array in stored if array.dtype == np.int8 and array.size > 1]
    assert np.abs(integers).max() == largest
    assert (len(risky(integers.astype(np.float64))[0]) == 0) == (largest == 63)
