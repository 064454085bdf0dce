"""Questions to a graph, checked against formulas written down independently."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import graph
from onnxpress.errors import ModelError


def parse(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}'))


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
    assert graph.weighted(node) is None


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
