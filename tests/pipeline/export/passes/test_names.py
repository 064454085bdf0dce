from collections.abc import Callable

import onnx
import onnx_ir as ir

from onnxpress.export.passes.names import name_uniquely
from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]


def test_everything_has_its_own_name(build: Build) -> None:
    model = build(
        """g (bool c, float[N] x) => (float[N] y) {
            ["n"] a = Neg(x)
            ["n"] b = Abs(a)
            d = Exp(b)
            ["n_1"] y = If(c) <
                then_branch = t () => (float[N] p) { ["n"] a1 = Exp(d)  p = Exp(a1) },
                else_branch = e () => (float[N] p) { a1 = Neg(d)  p = Exp(a1) }
            >
        }"""
    )
    after = prepare(model).model
    nodes = [node.name for node in after.graph.all_nodes()]
    values = [value.name for graph in after.graphs() for node in graph for value in node.outputs]
    assert len(set(nodes)) == len(nodes) == 8
    assert len(set(values)) == len(values) == 8
    assert nodes[:4] == ["n", "n_2", "Exp", "n_1"], "who has a name for himself keeps it"
    onnx.checker.check_model(ir.to_proto(after))
    assert name_uniquely(after) == []


def test_outputs_left_out_stay_left_out(build: Build) -> None:
    model = build(
        """g (float[5,1,2] x) => (float[1,1,3] y) { s, y, "" = LSTM<hidden_size=3>(x, w, r) }""",
        opset=14,
    )
    lstm = next(iter(model.graph))
    lstm.outputs[0].name = ""
    name_uniquely(model)
    assert lstm.outputs[0].name == ""
