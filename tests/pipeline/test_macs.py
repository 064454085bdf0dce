"""Multiply-accumulates, checked against formulas written down independently."""

import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import macs
from onnxpress.errors import UsageError
from onnxpress.export.passes import shapes


def parse(text: str) -> ir.Model:
    header = '<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]>'
    return ir.from_proto(onnx.parser.parse_model(f"{header} {text}"))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        # out channels x (in channels / groups) x kernel x output pixels
        ("g (float[N,4,8,8] x, float[6,4,3,3] w) => (float[N,6,6,6] y) { y = Conv(x, w) }", 6 * 4 * 9 * 36),
        ("g (float[1,4,8,8] x, float[4,1,3,3] w) => (float[1,4,6,6] y) { y = Conv <group=4> (x, w) }", 4 * 9 * 36),
        # each input pixel is spread over the kernel
        ("g (float[1,4,5,5] x, float[4,6,2,2] w) => (float[1,6,6,6] y) { y = ConvTranspose(x, w) }", 4 * 6 * 4 * 25),
        ("g (float[N,8] x, float[8,3] w) => (float[N,3] y) { y = Gemm(x, w) }", 24),
        ("g (float[N,8] x, float[3,8] w) => (float[N,3] y) { y = Gemm <transB=1> (x, w) }", 24),
        ("g (float[N,5,8] x, float[8,3] w) => (float[N,5,3] y) { y = MatMul(x, w) }", 5 * 8 * 3),
        ("g (float[N,2,5,8] x, float[N,2,8,5] w) => (float[N,2,5,5] y) { y = MatMul(x, w) }", 2 * 5 * 8 * 5),
        (
            "g (float[7,N,4] x, float[1,8,4] w, float[1,8,2] r) => (y) { y, h, c = LSTM <hidden_size=2> (x, w, r) }",
            7 * 48,
        ),
        ("g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }", 0),
        # every axis once, that of the samples left out
        ('g (float[N,5,8] x, float[8,3] w) => (float[N,5,3] y) { y = Einsum <equation="bsd,de->bse"> (x, w) }', 120),
        (
            "g (float[N,5,2,8] x, float[N,7,2,8] k) => (float[N,2,5,7] y) "
            '{ y = Einsum <equation="bqhd,bkhd->bhqk"> (x, k) }',
            560,
        ),
        ("g (float[6,5] w, float[N,5,8] x) => (float[N,6,8] y) { y = MatMul(w, x) }", 6 * 5 * 8),
        ("g (float[6,5] w, float[5,N] x) => (float[6,N] y) { y = Gemm(w, x) }", 5),
        ("g (float[N,4,9] x, float[6,4,3] w) => (float[N,6,7] y) { y = Conv(x, w) }", 6 * 4 * 3 * 7),
        ("g (float[N,4,5,5,5] x, float[6,4,3,3,3] w) => (float[N,6,3,3,3] y) { y = Conv(x, w) }", 6 * 4 * 27 * 27),
        ("g (float[N,4,9] x, float[4,6,3] w) => (float[N,6,11] y) { y = ConvTranspose(x, w) }", 4 * 6 * 3 * 9),
        (
            "g (float[N,4,5,5] x, float[6,4,2,2] w, float[N,8,4,4] o) => (float[N,6,4,4] y) "
            "{ y = DeformConv(x, w, o) }",
            6 * 4 * 4 * 16,
        ),
        ("g (float[7,N,4] x, float[1,6,4] w, float[1,6,2] r) => (y) { y = GRU <hidden_size=2> (x, w, r) }", 7 * 36),
        # heads x queries x keys x (width of a head, twice)
        (
            "g (float[N,2,5,8] q, float[N,2,7,8] k, float[N,2,7,8] v) => (float[N,2,5,8] y) { y = Attention(q, k, v) }",
            1120,
        ),
        (
            "g (float[N,5,16] q, float[N,7,8] k, float[N,7,8] v) => (float[N,5,16] y) "
            "{ y = Attention <q_num_heads=2, kv_num_heads=1> (q, k, v) }",
            1120,
        ),
        # a free axis counts as 1
        ("g (float[N,4,H,W] x, float[6,4,3,3] w) => (float[N,6,A,B] y) { y = Conv(x, w) }", 6 * 4 * 9),
        ("g (float[N,T,8] x, float[8,3] w) => (float[N,T,3] y) { y = MatMul(x, w) }", 24),
        ("g (float[T,N,4] x, float[1,8,4] w, float[1,8,2] r) => (y) { y = LSTM <hidden_size=2> (x, w, r) }", 48),
        ("g (float[N,0,8,8] x, float[6,0,3,3] w) => (float[N,6,6,6] y) { y = Conv(x, w) }", 0),
        ("g (float[N,5,0] x, float[0,3] w) => (float[N,5,3] y) { y = MatMul(x, w) }", 0),
    ],
)
def test_macs(text: str, count: int) -> None:
    (node,) = parse(text).graph
    assert macs.of(node) == count


def test_a_node_of_unknown_rank_is_unknown() -> None:
    (node,) = parse("g (float[N,4,8,8] x, float[6,4,3,3] w) => (y) { y = Conv(x, w) }").graph
    node.outputs[0].shape = None
    assert macs.of(node) is None


def test_an_operator_of_another_domain_counts_nothing() -> None:
    (node,) = parse("g (float[N,8] x, float[8,3] w) => (float[N,3] y) { y = MatMul(x, w) }").graph
    node.domain = "com.example"
    assert macs.of(node) == 0
    node.domain, node.op_type = "com.microsoft", "FusedMatMul"
    assert macs.of(node) == 24


def test_free_axes_count_as_given_through_the_whole_network() -> None:
    model = parse(
        "g (float[N,4,H,W] x, float[6,4,3,3] w, float[6,6,3,3] v) => (float[N,6,A,B] y) { "
        "a = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w) y = Conv <pads=[1,1,1,1]> (a, v) }"
    )
    shapes.infer(model)
    per_position = 6 * 4 * 9 + 6 * 6 * 9
    assert macs.total(model) == per_position
    assert macs.free_axes(model) == ["N", "H", "W"]
    assert macs.stated(model, {"H": 8}) == "H = 8, N, W = 1"
    known = macs.sizes(model, {"H": 8, "W": 12})
    assert macs.total(model, known) == per_position * 4 * 6
    assert macs.free_axes(model) == ["N", "H", "W"]  # the model itself stays as it is
    with pytest.raises(UsageError, match=r"shape T: the model has no such free axis\. Known: H, N, W"):
        macs.sizes(model, {"T": 8})


def test_an_axis_without_a_name_is_called_after_its_input() -> None:
    model = parse("g (float[N,4,?] x, float[6,4,3] w) => (float[N,6,?] y) { y = Conv <pads=[1,1]> (x, w) }")
    assert macs.free_axes(model) == ["N", "x_2"]
    assert macs.total(model, macs.sizes(model, {"x_2": 5})) == 6 * 4 * 3 * 5
