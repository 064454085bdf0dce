"""Which tensors share a range."""

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import session
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.placement import place
from onnxpress.quantization.quantize import quantize


def joined(first: str, second: str, rest: str = "") -> ir.Model:
    """Two convolutions, something behind each (a is the first's output, b the second's), joined before a third."""
    return graphs.build(
        f"g (float[N,4,6,6] x) => (float[N,2,6,6] y) <float zero = {{0.0}}, float six = {{6.0}}> {{ "
        f"a = Conv (x, w1) b = Conv (x, w2) {first} {second} c = Concat <axis=1> (p, q) {rest} y = Conv (c, w3) }}",
        {"w1": (4, 4, 1, 1), "w2": (4, 4, 1, 1), "w3": (2, 8, 1, 1)},
    )


@pytest.mark.parametrize(
    ("first", "second", "rest", "shared"),
    [
        ("p = Relu(a)", "q = Relu(b)", "", {"p", "q"}),
        ("p = Identity(a)", "q = Relu(b)", "", set()),  # an operator without an int8 kernel: no Concat on integers
        ("p = Relu(a)", "q = LeakyRelu(b)", "", {"q"}),  # a Relu is absorbed only with its own zero point
        ("p = Clip(a, zero, six)", "q = Clip(b, zero, six)", "", set()),
        ("r = Relu(a) p = Transpose <perm=[0,1,3,2]> (r)", "q = Relu(b)", "", {"p", "q", "r"}),
        ("p = Relu(a)", "q = Relu(b)", "s = Relu(p) t = MaxPool <kernel_shape=[1,1]> (p) ", {"q"}),  # others read p
        (
            "p = Relu(a)",
            "h = Relu(b) d, e = Split <axis=1> (h) q = Concat <axis=1> (d, e)",
            "",
            {"p", "q", "d", "e", "h"},
        ),
    ],
)
def test_what_only_a_concat_reads_takes_its_range(first: str, second: str, rest: str, shared: set[str]) -> None:
    model = joined(first, second, rest)
    placement = place(model, QuantizeOptions().selects)
    sources = {value.name: source.name for value, source in placement.quantized.items()}
    assert {name for name, source in sources.items() if source == "c" and name != "c"} == shared


def test_values_are_rounded_once_and_copied() -> None:
    model, data = joined("p = Relu(a)", "q = Relu(b)"), graphs.normal((64, 4, 6, 6))
    edit = quantize(model, QuantizeOptions(), data)
    scales = {
        node.inputs[1].const_value.numpy().item()
        for node in edit.model.graph
        if node.op_type == "QuantizeLinear" and node.inputs[1] and node.inputs[1].const_value and node.name != "x_q"
    }
    joined_scales = [node.outputs[0].name for node in edit.model.graph if node.op_type == "QuantizeLinear"]
    assert len(joined_scales) == 5  # x, p, q, c, y
    assert len(scales) == 2  # of y, and one of the three others
    feeds = dict(next(iter(graphs.normal((8, 4, 6, 6), seed=5).read())))
    expected, given = (
        next(iter(session.run(session.open_session(each), feeds).values())) for each in (model, edit.model)
    )
    assert 10 * np.log10(np.square(expected).sum() / np.square(expected - given).sum()) > 30


def test_a_pad_between_int8_kernels_does_not_leave_the_addition_float() -> None:
    model = graphs.build(
        "g (float[N,4,6,6] x) => (float[N,2,6,6] y) <int64[8] pads = {0, 2, 0, 0, 0, 2, 0, 0}> { a = Conv (x, w1) "
        "r = Relu(a) p = Pad (r, pads) b = Conv (r, w2) s = Add(b, p) t = Relu(s) y = Conv (t, w3) }",
        {"w1": (4, 4, 1, 1), "w2": (8, 4, 1, 1), "w3": (2, 8, 1, 1)},
    )
    placement = place(model, QuantizeOptions().selects)
    assert [node.op_type for node in placement.others] == ["Add"]
    assert {"r", "p", "t"} <= {value.name for value in placement.quantized}
