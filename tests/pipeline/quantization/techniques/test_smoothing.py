"""Smoothing: outlier channels of a MatMul's input stop setting its step, and the float model stays what it was."""

import graphs
import numpy as np
import onnx_ir as ir

from onnxpress import session
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.techniques.smoothing import smooth
from onnxpress_calibration.dataset import Dataset


def block(outlier: float) -> ir.Model:
    """Erf, whose channels cannot be rescaled before it, times a vector with one large entry that both readers see."""
    model = graphs.build(
        "g (float[N,6,16] x) => (float[N,6,8] y) { e = Erf(x) m = Mul(e, c) s = Add(m, x) a = MatMul(s, w) "
        "b = MatMul(s, v) y = Add(a, b) }",
        {"c": (16,), "w": (16, 8), "v": (16, 8)},
    )
    factors = np.ones(16, np.float32)
    factors[3] = outlier
    model.graph.initializers["c"].const_value = ir.tensor(factors, name="c")
    for name in ("w", "v"):  # what is large is not important: as in transformers
        weight = model.graph.initializers[name].const_value.numpy().copy()  # type: ignore[union-attr]
        weight[3] /= outlier
        model.graph.initializers[name].const_value = ir.tensor(weight, name=name)
    return model


def outputs(model: ir.Model, data: Dataset) -> np.ndarray:
    return session.run(session.open_session(model), dict(next(iter(data.read()))))["y"]


def test_an_outlier_channel_costs_the_others_nothing_any_more() -> None:
    model, data = block(200.0), graphs.normal((32, 6, 16))
    expected = outputs(model, data)
    errors = []
    for on in (True, False):
        edit = quantize(model, QuantizeOptions(smooth=on, verify=False), data)
        assert edit.facts.get("smoothed_tensors", 0) == on
        errors.append(float(np.square(outputs(edit.model, data) - expected).sum()))
    assert errors[0] < 0.05 * errors[1]


def test_the_float_model_computes_what_it_did() -> None:
    model, data = block(200.0), graphs.normal((8, 6, 16))
    before = ir.to_proto(model).SerializeToString()
    edit = smooth(model, QuantizeOptions(), data)
    assert edit.changed == ("s",) and ir.to_proto(model).SerializeToString() == before
    np.testing.assert_allclose(outputs(edit.model, data), outputs(model, data), rtol=1e-4, atol=1e-4)
    (readers,) = {
        len(value.uses()) for node in edit.model.graph for value in node.outputs if value.name == "s_smoothed"
    }
    assert readers == 2


def test_nothing_is_inserted_where_it_does_not_pay() -> None:
    data = graphs.normal((8, 6, 16))
    assert smooth(block(1.0), QuantizeOptions(), data).changed == ()
    assert smooth(graphs.conv_chain(), QuantizeOptions(), graphs.normal((4, 3, 8, 8))).changed == ()
