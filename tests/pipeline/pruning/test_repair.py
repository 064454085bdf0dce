"""Repair: the equations against plain least squares, the windows against a convolution, and what it wins back."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from onnxpress import session
from onnxpress.errors import UsageError
from onnxpress.pruning import PruneOptions, prune
from onnxpress.pruning import repair as module
from onnxpress_calibration.dataset import Dataset

CNN = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,10,10] x) => (float[N,5] y)
{ a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) c = Conv <pads=[1,1,1,1], strides=[2,2]> (r, w2, b2) d = Relu(c)
p = GlobalAveragePool(d) f = Flatten(p) y = Gemm <transB=1> (f, w3, b3) }"""
SHAPES = {"w1": (32, 3, 3, 3), "b1": (32,), "w2": (32, 32, 3, 3), "b2": (32,), "w3": (5, 32), "b3": (5,)}


def parse(text: str, weights: dict[str, np.ndarray]) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(text))
    for name, array in weights.items():
        value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == name)
        value.const_value, value.shape, value.dtype = (
            ir.tensor(array, name=name),
            ir.Shape(array.shape),
            ir.DataType.FLOAT,
        )
        model.graph.register_initializer(value)
    common.NameFixPass()(model)
    common.ShapeInferencePass()(model)
    return model


def cnn(seed: int = 0) -> ir.Model:
    random = np.random.default_rng(seed)
    return parse(CNN, {name: random.normal(size=shape, scale=0.2).astype(np.float32) for name, shape in SHAPES.items()})


def samples(count: int, seed: int) -> Dataset:
    x = np.random.default_rng(seed).normal(size=(count, 3, 10, 10)).astype(np.float32)
    return Dataset(origin="noise", read=lambda: [{"x": x}])


def output(model: ir.Model, data: Dataset) -> np.ndarray:
    (chunk,) = data.read()
    return session.run(session.open_session(model), {"x": chunk["x"]})["y"]


def test_the_equations_are_ridge_regression() -> None:
    random = np.random.default_rng(0)
    features, targets = random.normal(size=(200, 6)), random.normal(size=(200, 3))
    start = np.vstack([random.normal(size=(6, 3)), np.zeros(3)])
    equations = module._Equations(6, 3)
    for first in range(0, 200, 30):
        equations.add(features[first : first + 30], targets[first : first + 30])
    weights, bias = equations.solve(start)
    penalty = np.sqrt(module.RIDGE * (features**2).sum() / 6)
    # The same problem written as one tall least-squares system: rows for the data, rows that pull towards the start.
    tall = np.vstack([np.hstack([features, np.ones((200, 1))]), np.hstack([penalty * np.eye(6), np.zeros((6, 1))])])
    right = np.vstack([targets, penalty * start[:-1]])
    expected = np.linalg.lstsq(tall, right, rcond=None)[0]
    assert np.vstack([weights, bias]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("pads=[1,1,1,1]", (3, 3)),
        ("pads=[0,2,1,0], strides=[2,3]", (3, 2)),
        ("dilations=[2,1], pads=[2,1,2,1]", (3, 3)),
        ("", (1, 1)),
    ],
)
def test_windows_times_weights_is_the_convolution(attributes: str, kernel: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    weight = random.normal(size=(4, 3, *kernel)).astype(np.float32)
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[N,3,9,8] x) => (y) {{ y = Conv <{attributes}> (x, w) }}'
    model = parse(text.replace("<>", ""), {"w": weight})
    x = random.normal(size=(2, 3, 9, 8)).astype(np.float32)
    expected = session.run(session.open_session(model), {"x": x})["y"]
    windows = module._windows(model.graph[0], x, kernel)
    assert np.einsum("nchwij,ocij->nohw", windows, weight) == pytest.approx(expected, abs=1e-4)


def test_channels_that_others_can_express_are_removed_for_nothing() -> None:
    random = np.random.default_rng(2)
    weights = {name: random.normal(size=shape, scale=0.2).astype(np.float32) for name, shape in SHAPES.items()}
    # Every odd channel of the first layer is a weak copy of the even one before it.
    weights["w1"][1::2], weights["b1"][1::2] = 0.1 * weights["w1"][::2], 0.1 * weights["b1"][::2]
    model = parse(CNN, weights)
    options = {"amount": "50%", "allocation": "uniform", "round_to": 1}
    only_first = PruneOptions.model_validate(options | {"exclude": _name(model, 1)})
    repaired = PruneOptions.model_validate(options | {"exclude": _name(model, 1), "repair": True})
    data, unseen = samples(64, 3), samples(16, 4)
    expected = output(model, unseen)
    without = np.abs(output(prune(model, only_first, data).model, unseen) - expected).max()
    edit = prune(model, repaired, data)
    assert edit.facts["channels_after"] < edit.facts["channels_before"]
    assert np.abs(output(edit.model, unseen) - expected).max() < 0.05 * without


def _name(model: ir.Model, convolution: int) -> str:
    """Return a pattern for one convolution's name."""
    names = [node.name for node in model.graph if node.op_type == "Conv"]
    return f"^{names[convolution]}$"


@pytest.mark.parametrize("seed", range(3))
def test_repair_is_nearer_to_float_on_unseen_samples(seed: int) -> None:
    model, data, unseen = cnn(seed), samples(64, 10), samples(16, 11)
    expected = output(model, unseen)
    errors = []
    for repair in (False, True):
        edit = prune(model, PruneOptions(amount=0.25, repair=repair), data)
        errors.append(float(((output(edit.model, unseen) - expected) ** 2).sum()))
    assert errors[1] < 0.5 * errors[0]
    assert edit.facts["layers_repaired"] == 2


def test_repair_is_deterministic_and_leaves_the_input_alone() -> None:
    model, data = cnn(), samples(32, 5)
    before = ir.to_proto(model).SerializeToString()
    made = [prune(model, PruneOptions(amount=0.25, repair=True), data).model for _ in range(2)]
    assert ir.to_proto(made[0]).SerializeToString() == ir.to_proto(made[1]).SerializeToString()
    assert ir.to_proto(model).SerializeToString() == before


def test_repair_without_data_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="repair needs calibration data"):
        prune(cnn(), PruneOptions(amount=0.25, repair=True))
