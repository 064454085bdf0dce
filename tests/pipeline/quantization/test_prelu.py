"""Networks of many small branches with PReLU: int8 goes where it pays, and does not collapse."""

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import session
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.placement import place
from onnxpress.quantization.quantize import quantize


def branches(width: int) -> ir.Model:
    """Depthwise branches of several dilations, joined, added to their input, and resized."""
    body = "a = Conv <pads=[1,1,1,1]> (x, w0, b0) p = PRelu(a, s0) r = Conv (p, w1, b1) q = PRelu(r, s1) "
    quarter = width // 4
    weights = {"w0": (width, 8, 3, 3), "b0": (width,), "s0": (width, 1, 1), "w1": (quarter, width, 1, 1)}
    weights |= {"b1": (quarter,), "s1": (quarter, 1, 1)}
    for i, dilation in enumerate((1, 2, 4, 8)):
        pads = ",".join([str(dilation)] * 4)
        body += f"d{i} = Conv <group={quarter}, dilations=[{dilation},{dilation}], pads=[{pads}]> (q, v{i}, c{i}) "
        body += f"e{i} = PRelu(d{i}, t{i}) f{i} = Conv(e{i}, u{i}) "
        weights |= {f"v{i}": (quarter, 1, 3, 3), f"c{i}": (quarter,), f"t{i}": (quarter, 1, 1)}
        weights |= {f"u{i}": (quarter, quarter, 1, 1)}
    body += "g = Concat <axis=1> (f0, f1, f2, f3) h = Add(g, p) k = PRelu(h, s2) "
    body += 'z = Resize <mode="linear"> (k, , sc) '
    body += "y = Conv(z, w2)"
    weights |= {"s2": (width, 1, 1), "w2": (2, width, 1, 1)}
    model = graphs.build(
        f"g (float[N,8,16,16] x) => (float[N,2,32,32] y) <float[4] sc = {{1, 1, 2, 2}}> {{ {body} }}", weights
    )
    for value in model.graph.initializers.values():
        if value.name and value.name[0] in "wvu" and value.const_value is not None:
            array = value.const_value.numpy()
            value.const_value = ir.tensor(array * np.float32((4 / np.prod(array.shape[1:])) ** 0.5), name=value.name)
    return model


@pytest.mark.parametrize("width", [16, 96])
def test_branches_stay_near_float(width: int) -> None:
    model, data = branches(width), graphs.normal((16, 8, 16, 16))
    edit = quantize(model, QuantizeOptions(), data)
    feeds = dict(next(iter(graphs.normal((4, 8, 16, 16), seed=7).read())))
    expected, given = (
        next(iter(session.run(session.open_session(each), feeds).values())) for each in (model, edit.model)
    )
    assert 10 * np.log10(np.square(expected).sum() / np.square(expected - given).sum()) > 24


def test_a_small_convolution_before_a_prelu_stays_float_and_a_large_one_does_not() -> None:
    placement = place(branches(96), QuantizeOptions().selects)
    reasons = {skip.where for skip in placement.skipped if "a PRelu follows" in skip.reason}
    assert len(reasons) == 4  # the depthwise ones: 9 products a value
    inputs = {node.inputs[1].name for node in placement.weighted if node.inputs[1] is not None}
    assert {"w0", "w1", "u0", "u1", "u2", "u3", "w2"} == inputs
    small = place(branches(16), QuantizeOptions().selects)
    assert {"w1"}.isdisjoint({node.inputs[1].name for node in small.weighted if node.inputs[1] is not None})
