from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress import graph, session
from onnxpress.errors import ModelError
from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]


def test_functions_are_inlined(build: Build, run: Run, ops: Ops) -> None:
    model = build(
        """<ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[N] x) => (float[N] y) { a = local.twice(x)  y = local.twice(a) }
        <domain: "local", opset_import: ["": 17]>
        twice (p) => (q) { two = Constant<value_float=2.0>() q = Mul(p, two) }"""
    )
    after = prepare(model).model
    assert ops(after) == {"Mul": 2}
    assert after.opset_imports == {"": 17}
    assert len(after.functions) == 0
    np.testing.assert_array_equal(run(after, {"x": np.ones(2, np.float32)})[0], [4, 4])


def test_a_function_of_another_opset_is_refused(build: Build) -> None:
    model = build(
        """<ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[N] x) => (float[N] y) { y = local.same(x) }
        <domain: "local", opset_import: ["": 16]>
        same (p) => (q) { q = Identity(p) }"""
    )
    with pytest.raises(ModelError, match="Opset mismatch"):
        prepare(model)


def test_nodes_come_in_order(build: Build, run: Run) -> None:
    model = build("g (float[N] x) => (float[N] y) { a = Neg(x)  b = Abs(a)  y = Exp(b) }")
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)
    after = prepare(model).model
    assert [node.op_type for node in after.graph] == ["Neg", "Abs", "Exp"]
    assert [node.op_type for node in model.graph] == ["Abs", "Exp", "Neg"], "the given model stays"
    np.testing.assert_array_equal(run(after, {"x": np.zeros(1, np.float32)})[0], [1])


def test_a_cycle_is_refused(build: Build) -> None:
    model = build("g (float[N] x) => (float[N] y) { a = Add(x, x)  b = Abs(a)  y = Exp(b) }")
    first, second, _ = model.graph
    first.replace_input_with(1, second.outputs[0])
    with pytest.raises(ModelError, match="cycle"):
        prepare(model)


def test_inputs_that_are_no_tensors_are_refused_where_samples_are_needed(build: Build) -> None:
    model = build("g (seq(float[N]) s) => (float[M] y) { y = ConcatFromSequence<axis=0>(s) }")
    optional = build("g (optional(float[N]) o) => (bool b) { b = OptionalHasElement(o) }")
    for each, name in ((model, "s"), (optional, "o")):
        made = prepare(each).model
        session.open_session(made)
        with pytest.raises(ModelError, match=f"model input '{name}': .*sequences and maps are not supported"):
            graph.input_specs(made)


@pytest.mark.filterwarnings("ignore")
def test_sparse_initializers() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }'
    )
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.int64)))
    proto.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match=r"reads 'w', which nothing defines"):
        prepare(ir.from_proto(proto))


def test_a_graph_that_the_checker_refuses(build: Build) -> None:
    model = build("g (float[N] x) => (float[N] y) { y = NoSuchOperator(x) }")
    with pytest.raises(ModelError, match=r"not valid ONNX.*NoSuchOperator"):
        prepare(model)


def test_an_output_of_unknown_rank_is_fine(build: Build) -> None:
    model = build("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    model.graph.outputs[0].shape = None
    assert list(prepare(model).model.graph.outputs[0].shape) == ["N"]
