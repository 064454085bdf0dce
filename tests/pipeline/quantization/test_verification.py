"""The guard: what was lost is said, and a useless model is refused."""

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.errors import ModelError
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.verification import verify


def test_what_was_lost_is_in_the_facts() -> None:
    edit = quantize(graphs.conv_chain(), QuantizeOptions(), graphs.normal((70, 3, 8, 8)))
    assert edit.facts["sqnr_db"] > 25 and edit.facts["agreement_pct"] > 90
    assert edit.facts["verified_samples"] == 64
    assert (
        "sqnr_db" not in quantize(graphs.conv_chain(), QuantizeOptions(verify=False), graphs.normal((4, 3, 8, 8))).facts
    )


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_model_below_the_floor_is_refused(mode: str) -> None:
    options = QuantizeOptions(mode=mode, min_sqnr="60 dB")
    with pytest.raises(
        ModelError, match=r"dB SQNR on 16 calibration samples, 60 dB is the least .*Nothing was written"
    ):
        quantize(graphs.conv_chain(), options, graphs.normal((16, 3, 8, 8)))
    assert quantize(graphs.conv_chain(), options.model_copy(update={"verify": False}), graphs.normal((16, 3, 8, 8)))


def test_two_bits_are_refused_by_default() -> None:
    with pytest.raises(ModelError, match="10 dB is the least"):
        quantize(graphs.conv_chain(), QuantizeOptions(bits=2), graphs.normal((16, 3, 8, 8)))


def test_class_changes_are_refused_or_noted() -> None:
    model, other = graphs.conv_chain(), graphs.conv_chain()
    head = other.graph.initializers["b3"]
    head.const_value = ir.tensor(np.array([0, 0, 0, 0, 50], np.float32), name="b3")
    data, options = graphs.normal((64, 3, 8, 8)), QuantizeOptions(min_sqnr=-100)
    with pytest.raises(ModelError, match=r"float model's class for .* 90 % is the least \(--min-agreement\)"):
        verify(model, other, options, data)
    found = verify(model, other, options.model_copy(update={"min_agreement": 0}), data)
    assert found["notes"] and found["agreement_pct"] < 90


def test_not_a_number_is_refused() -> None:
    model = graphs.build("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {})
    broken = graphs.build("g (float[N,4] x) => (float[N,4] y) { a = Sub(x, x) y = Div(a, a) }", {})
    with pytest.raises(ModelError, match="output 'y' of the int8 model holds NaN"):
        verify(model, broken, QuantizeOptions(), graphs.normal((4, 4)))
