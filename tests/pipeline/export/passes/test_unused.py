from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Ops = Callable[[ir.Model], dict[str, int]]


def test_what_nothing_reads_goes(build: Build, ops: Ops) -> None:
    model = build(
        """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
        g (float[N,2] x) => (float[N,2] y) { y = Neg(x)  a = MatMul(x, w)  b = Relu(a) }""",
        {"w": np.ones((2, 2), np.float32), "v": np.ones(2, np.float32)},
    )
    edit = prepare(model)
    assert ops(edit.model) == {"Neg": 1}
    assert list(edit.model.graph.initializers) == []
    assert edit.model.opset_imports == {"": 17}
    assert {"MatMul", "Relu", "w", "v"} <= set(edit.changed)
    assert edit.facts == {"nodes_before": 3, "nodes_after": 1, "opset_before": 17, "opset_after": 17}


def test_weights_of_an_unused_branch_go(build: Build) -> None:
    model = build(
        """g (bool c, float[N,2] x) => (float[N,2] y) {
            z = If(c) <
                then_branch = t () => (float[N,2] p) { p = MatMul(x, w) },
                else_branch = e () => (float[N,2] q) { q = Neg(x) }
            >
            y = Neg(x)
        }""",
        {"w": np.ones((2, 2), np.float32)},
    )
    after = prepare(model).model
    assert list(after.graph.initializers) == []
    assert [value.name for value in after.graph.inputs] == ["c", "x"]
