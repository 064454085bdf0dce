"""Questions to a graph, checked against formulas written down independently."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import graph
from onnxpress.errors import ModelError


def parse(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}'))


@pytest.mark.parametrize(
    ("text", "macs"),
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
        ("g (float[N,0,8,8] x, float[6,0,3,3] w) => (float[N,6,6,6] y) { y = Conv(x, w) }", 0),
        ("g (float[N,5,0] x, float[0,3] w) => (float[N,5,3] y) { y = MatMul(x, w) }", 0),
    ],
)
def test_macs(text: str, macs: int) -> None:
    (node,) = parse(text).graph
    assert graph.macs(node) == macs


def test_macs_of_an_unknown_shape_are_unknown() -> None:
    (node,) = parse("g (float[N,4,H,W] x, float[6,4,3,3] w) => (float[N,6,A,B] y) { y = Conv(x, w) }").graph
    assert graph.macs(node) is None


def test_constants_are_initializers_and_constant_nodes_but_not_inputs_with_a_default() -> None:
    model = parse(
        "g (float[1] x, float[1] d) => (float[1] y) <float[1] w = {2}, float[1] d = {3}> "
        "{ c = Constant <value = float[1] {4}> () a = Add(x, w) b = Add(a, c) y = Add(b, d) }"
    )
    adds = [node for node in model.graph if node.op_type == "Add"]
    assert [None if v is None else v.tolist() for v in (graph.constant(add.inputs[1]) for add in adds)] == [
        [2],
        [4],
        None,
    ]
    assert [value.name for value in graph.inputs(model)] == ["x"]


def test_weighted_knows_a_transposed_gemm() -> None:
    (plain,) = parse("g (float[1,8] x, float[8,3] w) => (float[1,3] y) { y = Gemm(x, w) }").graph
    (transposed,) = parse("g (float[1,8] x, float[3,8] w) => (float[1,3] y) { y = Gemm <transB=1> (x, w) }").graph
    for node, channels in ((plain, 1), (transposed, 0)):
        facts = graph.weighted(node)
        assert facts is not None and (facts.out_axis, facts.in_axis) == (channels, 1 - channels)


def test_an_operator_of_another_domain_is_not_ours() -> None:
    model = parse("g (float[1,8] x) => (float[1,8] y) { y = Relu(x) }")
    (node,) = model.graph
    node.domain, node.op_type = "com.example", "Conv"
    assert graph.weighted(node) is None and graph.macs(node) == 0


def test_input_specs() -> None:
    specs = graph.input_specs(parse("g (float[N,3] x, int64[2] i) => (float[N,3] y) { y = Identity(x) }"))
    assert specs["x"].shape == (None, 3) and specs["i"].dtype == np.int64


def test_an_input_without_rank_is_refused_by_name() -> None:
    model = parse("g (float[N,3] x) => (float[N,3] y) { y = Identity(x) }")
    model.graph.inputs[0].shape = None
    with pytest.raises(ModelError, match="model input 'x'"):
        graph.input_specs(model)


def test_subgraph_nodes_are_seen() -> None:
    model = parse(
        "g (bool c, float[1] x) => (float[1] y) { y = If (c) <then_branch = t () => (float[1] a) { a = Relu(x) }, "
        "else_branch = e () => (float[1] b) { b = Neg(x) }> }"
    )
    assert sorted(node.op_type for node in graph.nodes(model)) == ["If", "Neg", "Relu"]
    (outer,) = model.graph
    assert len(graph.subgraphs(outer)) == 2
