"""Ranges: every calibrator through the same door, and the importance of channels from the weights that read them."""

import graphs
import numpy as np
import pytest

from onnxpress import graph
from onnxpress.quantization.collecting import collect, needed
from onnxpress.quantization.placement import place
from onnxpress.quantization.ranges import _importance, choose_ranges
from onnxpress_calibration import calibrators


@pytest.mark.parametrize(
    ("body", "shape", "weight"),
    [
        ("g (float[N,6,4,4] x) => (float[N,8,4,4] y) { y = Conv(x, w) }", (2, 6, 4, 4), (8, 6, 1, 1)),
        ("g (float[N,6,4,4] x) => (float[N,12,4,4] y) { y = Conv <group=6> (x, w) }", (2, 6, 4, 4), (12, 1, 1, 1)),
        ("g (float[N,6,4,4] x) => (float[N,8,4,4] y) { y = Conv <group=2> (x, w) }", (2, 6, 4, 4), (8, 3, 1, 1)),
        ("g (float[N,6] x) => (float[N,8] y) { y = MatMul(x, w) }", (2, 6), (6, 8)),
        ("g (float[N,6] x) => (float[N,8] y) { y = Gemm <transB=1> (x, w) }", (2, 6), (8, 6)),
    ],
)
def test_importance_is_what_one_channel_alone_gives(body: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    model = graphs.build(body, {"w": weight})
    (node,) = (each for each in model.graph if graph.weighted(each))
    found = _importance(node)
    assert found is not None
    evaluator = ReferenceEvaluator(ir.to_proto(model))
    for channel, expected in enumerate(found):
        x = np.zeros(shape, np.float32)
        x[(0, channel, *[0] * (len(shape) - 2))] = 1
        assert (evaluator.run(None, {"x": x})[0].astype(np.float64) ** 2).sum() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("calibrator", calibrators.names())
def test_every_calibrator_gives_every_tensor_a_range(calibrator: str) -> None:
    model = graphs.residual()
    placement = place(model, lambda name: True)  # noqa: ARG005
    collected = collect(model, graphs.normal((20, 8, 6, 6)))
    ranges = choose_ranges(placement, placement.measured, collected, calibrator, 256)
    assert ranges.keys() == {value.name for value in placement.measured}
    assert all(low < high for low, high in ranges.values())


def test_what_is_needed_covers_inputs_of_layers_by_channel() -> None:
    names, axes = needed(graphs.conv_chain())
    assert axes == {"x": 1, "p": 1, "f": -1}
    assert set(names) >= {"x", "r", "d", "g", "p", "f"}
