"""Bias correction: the mean error of each output channel is gone."""

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import session
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress_calibration.dataset import Dataset

GRAPHS = {
    "Conv with a bias": ("r = Relu(x) y = Conv(r, w, b)", {"w": (4, 8, 1, 1), "b": (4,)}),
    "Conv without one": ("r = Relu(x) y = Conv(r, w)", {"w": (4, 8, 1, 1)}),
    "Gemm": ("r = Relu(x) f = Flatten(r) y = Gemm(f, w, b)", {"w": (128, 4), "b": (4,)}),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_no_channel_is_shifted_any_more(case: str) -> None:
    body, weights = GRAPHS[case]
    shape = "N,4" if case == "Gemm" else "N,4,4,4"
    model = graphs.build(f"g (float[N,8,4,4] x) => (float[{shape}] y) {{ {body} }}", weights)
    values = np.random.default_rng(0).normal(size=(32, 8, 4, 4)).astype(np.float32)
    data = Dataset(origin="d", read=lambda: [{"x": values}])
    expected = session.run(session.open_session(model), {"x": values})["y"]
    axis = -1 if case == "Gemm" else 1

    def shift(*, corrected: bool) -> tuple[np.ndarray, int]:
        edit = quantize(model, QuantizeOptions(bits=4, equalize=False, bias_correction=corrected), data)
        error = session.run(session.open_session(edit.model), {"x": values})["y"] - expected
        return np.moveaxis(error, axis, 0).reshape(error.shape[axis], -1).mean(axis=1), edit.facts.get(
            "corrected_biases", 0
        )

    (before, none), (after, one) = shift(corrected=False), shift(corrected=True)
    assert (none, one) == (0, 1)
    assert np.abs(after).max() < 0.1 * np.abs(before).max()


def test_a_matmul_is_left_alone() -> None:
    model = graphs.build(
        "g (float[N,8,4] x) => (float[N,8,4] y) { m = MatMul(x, w) y = Add(m, b) }", {"w": (4, 4), "b": (4,)}
    )
    edit = quantize(model, QuantizeOptions(equalize=False), graphs.normal((8, 8, 4)))
    assert edit.facts["corrected_biases"] == 0


def test_a_bias_that_two_nodes_share_is_corrected_for_each() -> None:
    model = graphs.build(
        "g (float[N,4,4,4] x) => (float[N,4,4,4] y) { r = Relu(x) a = Conv(r, v, b) c = Conv(r, w, b) y = Add(a, c) }",
        {"v": (4, 4, 1, 1), "w": (4, 4, 1, 1), "b": (4,)},
    )
    edit = quantize(model, QuantizeOptions(equalize=False), graphs.normal((8, 4, 4, 4)))
    biases = [v for v in edit.model.graph.initializers.values() if v.dtype == ir.DataType.INT32]
    assert edit.facts["corrected_biases"] == 2 and len(biases) == 2
