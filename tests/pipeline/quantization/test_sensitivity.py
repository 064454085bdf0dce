"""Sensitivity against the definition, and against models in which only one node is quantized."""

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import session
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.collecting import needed
from onnxpress.quantization.params import activation_params, dequantize_weight, quantize_weight
from onnxpress.quantization.profiling import profile
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.sensitivity import SAMPLES, Sensitivity, sensitivity
from onnxpress_calibration import calibrators
from onnxpress_calibration.dataset import Dataset


def ranges(model: ir.Model, data: Dataset) -> dict[str, tuple[float, float]]:
    collected = profile(model, needed(model)[0], data)
    return {name: calibrators.choose("minmax", statistics) for name, statistics in collected.tensors.items()}


def measure(model: ir.Model, data: Dataset, *, at_outputs: bool = False) -> list[Sensitivity]:
    return sensitivity(model, QuantizeOptions(), data, ranges(model, data), at_outputs=at_outputs)


def test_a_matmul_loses_what_the_definition_says() -> None:
    model = graphs.build("g (float[N,12] x) => (float[N,8] y) { y = MatMul(x, w) }", {"w": (12, 8)})
    data = graphs.normal((SAMPLES, 12))
    (found,) = measure(model, data)
    x, w = next(iter(data.read()))["x"], model.graph.initializers["w"].const_value.numpy()  # type: ignore[union-attr]
    rounded = dequantize_weight(*quantize_weight(w, 1), 1)

    def grid(values: np.ndarray) -> np.ndarray:
        params = activation_params(float(values.min()), float(values.max()))
        steps = np.clip(np.round(values / params.scale) + params.zero_point, 0, 255)
        return (steps - params.zero_point) * params.scale

    def loss(inputs: np.ndarray) -> float:
        return float(np.square(inputs @ rounded - x @ w).sum() / np.square(x @ w).sum())

    assert found.weights == pytest.approx(loss(x), rel=1e-3)
    assert found.static == pytest.approx(loss(grid(x)), rel=1e-3)
    assert found.dynamic == pytest.approx(loss(np.concatenate([grid(row[None]) for row in x])), rel=1e-3)
    assert found.at_outputs is None


def test_the_error_is_taken_behind_the_activation() -> None:
    model = graphs.build(
        "g (float[N,4,6,6] x) => (float[N,8,6,6] y) { a = Conv(x, w, b) y = Relu(a) }", {"w": (8, 4, 1, 1), "b": (8,)}
    )
    model.graph.initializers["b"].const_value = ir.tensor(np.full(8, -100, np.float32), name="b")
    (found,) = measure(model, graphs.normal((8, 4, 6, 6)))
    assert (found.weights, found.static, found.dynamic) == (0, 0, None)  # all is cut off, so nothing is lost


@pytest.mark.int8
def test_at_the_outputs_it_is_the_loss_of_a_model_with_this_node_alone_quantized() -> None:
    model = graphs.attention()
    x, keep = np.random.default_rng(0).normal(size=(4, 6, 16)).astype(np.float32), np.ones((4, 6), np.float32)
    data = Dataset(origin="d", read=lambda: [{"x": x, "keep": keep}])
    expected = session.run(session.open_session(model), {"x": x, "keep": keep})["y"]
    found = measure(model, data, at_outputs=True)
    assert len(found) == 4
    for each in found:
        only = QuantizeOptions(
            include=f"^{each.node}$", calibrator="minmax", smooth=False, target_cpu="vnni", rounding="nearest"
        )
        alone = quantize(model, only, data).model
        as_float = session.SessionOptions(optimization="off")  # these weights are not for kernels of every CPU
        given = session.run(session.open_session(alone, as_float), {"x": x, "keep": keep})["y"]
        assert each.at_outputs == pytest.approx(np.square(given - expected).sum() / np.square(expected).sum(), rel=0.02)


def test_a_switch_moves_no_other_result() -> None:
    model, data = graphs.conv_chain(), graphs.normal((4, 3, 8, 8))
    before = ir.to_proto(model).SerializeToString()
    plain, switched = measure(model, data), measure(model, data, at_outputs=True)
    assert [each.node for each in plain] == [node.name for node in model.graph if node.op_type in ("Conv", "Gemm")]
    for one, other in zip(plain, switched, strict=True):
        assert other.static == pytest.approx(one.static, rel=1e-3) and other.at_outputs is not None
        assert 0 < other.at_outputs < 0.01
    assert ir.to_proto(model).SerializeToString() == before


def test_a_model_without_weighted_nodes_has_none() -> None:
    model = graphs.build("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {})
    assert measure(model, graphs.normal((2, 4))) == []
