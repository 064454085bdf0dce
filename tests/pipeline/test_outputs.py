"""Graphs whose outputs are of every kind: optional, inner, inputs, caches. Every mode keeps them."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import graph
from onnxpress.errors import ModelError, UsageError
from onnxpress.export.prepare import prepare
from onnxpress.pruning.options import PruneOptions
from onnxpress.pruning.prune import prune
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.profiling import exposing
from onnxpress.quantization.quantize import quantize
from onnxpress.session import open_session, run
from onnxpress_calibration.dataset import Dataset

ATTENTION = """g (float[b,s,32] x, float[b,2,t,8] pk, float[b,2,t,8] pv) => (float[b,s,64] y, {outputs}) {{
    q = MatMul(x, w32) k = MatMul(x, w16) v = MatMul(x, v16) o, {made} = {call} y = MatMul(o, w64) }}"""
CACHES = "float[b,2,u,8] nk, float[b,2,u,8] nv"
TEXTS = {
    "caches": ATTENTION.format(
        outputs=CACHES, made="nk, nv", call="Attention<q_num_heads=4, kv_num_heads=2>(q, k, v, , pk, pv)"
    ),
    "caches and scores": ATTENTION.format(
        outputs=f"{CACHES}, float[b,4,s,u] qk",
        made="nk, nv, qk",
        call="Attention<q_num_heads=4, kv_num_heads=2>(q, k, v, , pk, pv)",
    ),
    "onnxruntime's caches": """g (float[b,s,32] x, float[b,4,t,8] pk, float[b,4,t,8] pv) => (float[b,s,64] y, CACHES) {
        q = MatMul(x, w32) k = MatMul(x, v32) v = MatMul(x, u32)
        o, nk, nv = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v, , , , pk, pv)
        y = MatMul(o, w64) }""".replace("CACHES", "float[b,4,u,8] nk, float[b,4,u,8] nv"),
    "concatenated cache": """g (float[b,s,32] x, float[b,t,32] past) => (float[b,s,64] y, float[b,u,32] present) {
        q = MatMul(x, w32) k = MatMul(x, v32) present = Concat<axis=1>(past, k)
        kt = Transpose<perm=[0,2,1]>(present) p = MatMul(q, kt) s = Softmax(p) o = MatMul(s, present) y = MatMul(o, w64)
    }""",
    "inner tensors": """g (float[b,s,32] x) => (float[b,s,64] y, float[b,s,32] h, float[b,s,32] a) {
        a = MatMul(x, w32) h = Relu(a) y = MatMul(h, w64) }""",
    "an input": "g (float[b,s,32] x) => (float[b,s,64] y, float[b,s,32] x) { a = MatMul(x, w32) y = MatMul(a, w64) }",
    "a constant": "g (float[b,s,32] x) => (float[b,s,64] y, float[16] b16) { a = MatMul(x, w32) y = MatMul(a, w64) }",
    "optional, the middle one left out": """g (float[s,1,32] x) => (float[s,1,64] y, float[1,1,8] cell) {
        a = MatMul(x, w32) o, , cell = LSTM<hidden_size=8>(a, l, r) t = Transpose<perm=[0,2,1,3]>(o)
        f = Reshape(t, flat) y = MatMul(f, w8) }""",
    "some of a Split": """g (float[b,s,32] x) => (float[b,s,64] y, float[b,s,16] third) {
        a = MatMul(x, w32) first, second, third = Split<axis=2>(a, sizes) y = MatMul(first, w8) }""",
    "where a MaxPool found its values": """g (float[b,3,12,12] x) => (float[b,4,6,6] y, int64[b,16,6,6] indices) {
        a = Conv<pads=[1,1,1,1]>(x, c) p, indices = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) y = Conv(p, d) }""",
    "statistics of a normalization": """g (float[b,s,32] x) => (float[b,s,64] y, float[b,s,1] mean) {
        a = MatMul(x, w32) h, mean, inverse = LayerNormalization(a, g32) y = MatMul(h, w64) }""",
    "both of an If": """g (float[b,s,32] x) => (float[b,s,64] y, float[b,s,32] z) {
        a = MatMul(x, w32) m = ReduceMax<keepdims=0>(a) some = Greater(m, zero)
        p, z = If(some) <then_branch = t () => (float[b,s,32] i, float[b,s,32] j) { i = Neg(a) j = Relu(a) },
                      else_branch = e () => (float[b,s,32] k, float[b,s,32] l) { k = Relu(a) l = Neg(a) }>
        y = MatMul(p, w64) }""",
}
SHAPES = {
    "w16": (32, 16),
    "v16": (32, 16),
    "w32": (32, 32),
    "v32": (32, 32),
    "u32": (32, 32),
    "w64": (32, 64),
    "w8": (8, 64),
    "b16": (16,),
    "g32": (32,),
    "l": (1, 32, 32),
    "r": (1, 32, 8),
    "c": (16, 3, 3, 3),
    "d": (4, 16, 1, 1),
    "zero": (),
}
INTEGERS = {"flat": [0, -1, 8], "sizes": [8, 8, 16]}


def build(kind: str) -> ir.Model:
    opset = 23 if " Attention<" in TEXTS[kind] else 17
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]>'
    proto = onnx.parser.parse_model(head + TEXTS[kind])
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=shape).astype(np.float32) / 4 for name, shape in SHAPES.items()}
    arrays |= {name: np.array(value) for name, value in INTEGERS.items()}
    read = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(arrays[name], name) for name in arrays if name in read)
    return prepare(ir.from_proto(proto)).model


def samples(model: ir.Model, count: int = 24) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    found = {}
    for value in graph.inputs(model):
        assert value.shape is not None
        sizes = [axis if isinstance(axis, int) else {"t": 3}.get(str(axis.value), 5) for axis in value.shape[1:]]
        found[value.name or ""] = random.normal(size=(count, *sizes)).astype(np.float32)
    return found


def signature(model: ir.Model) -> list[tuple[str | None, ir.DataType | None]]:
    return [(value.name, value.dtype) for value in model.graph.outputs]


def sqnr_db(model: ir.Model, other: ir.Model) -> float:
    """Compare all float outputs, the worst one counts."""
    feeds = samples(model, 1)
    wanted, given = (run(open_session(each), feeds) for each in (model, other))
    assert [value.shape for value in wanted.values()] == [value.shape for value in given.values()]
    floats = [(wanted[name], given[name]) for name in wanted if wanted[name].dtype == np.float32]
    return min(float(10 * np.log10((a**2).sum() / max(((a - b) ** 2).sum(), 1e-30))) for a, b in floats)


MODES = {
    "static": QuantizeOptions(),
    "qoperator": QuantizeOptions(format="qoperator"),
    "onnxruntime": QuantizeOptions(backend="onnxruntime"),
    "dynamic": QuantizeOptions(mode="dynamic"),
    "weight-only": QuantizeOptions(mode="weight-only"),
    "weight-only 4 bits": QuantizeOptions(mode="weight-only", bits=4, verify=False),
    "fp16": QuantizeOptions(mode="fp16"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", TEXTS)
def test_every_mode_keeps_the_outputs(kind: str, mode: str) -> None:
    model = build(kind)
    if kind == "where a MaxPool found its values" and mode not in ("static", "qoperator", "onnxruntime", "fp16"):
        pytest.skip("no layer for this mode")
    if mode == "onnxruntime" and kind in ("an input", "inner tensors"):
        with pytest.raises(ModelError):  # its quantizer makes a wrong model of these, which is found
            quantize(model, MODES[mode], Dataset(origin="normal", read=lambda: [samples(model)]))
        return
    feeds = samples(model)
    edit = quantize(model, MODES[mode], Dataset(origin="normal", read=lambda: [feeds]))
    assert edit.changed and signature(edit.model) == signature(model)
    assert sqnr_db(model, edit.model) > (5 if "4" in mode else 20)


@pytest.mark.parametrize("kind", TEXTS)
def test_pruning_keeps_the_outputs(kind: str) -> None:
    model = build(kind)
    feeds = samples(model)
    try:
        edit = prune(model, PruneOptions(amount=0.25, round_to=4), Dataset(origin="normal", read=lambda: [feeds]))
    except UsageError as error:
        assert "nothing can be removed" in str(error)
        return
    assert signature(edit.model) == signature(model)
    assert open_session(edit.model)
    run(open_session(edit.model), samples(model, 1))


@pytest.mark.parametrize("kind", TEXTS)
def test_every_inner_tensor_can_be_exposed(kind: str) -> None:
    model = build(kind)
    right = run(open_session(model), samples(model, 1))
    for node in model.graph:
        for value in node.outputs:
            if value.name:
                found = run(open_session(exposing(model, [value.name])), samples(model, 1))
                assert value.name in found
                for name in found.keys() & right.keys():
                    np.testing.assert_array_equal(found[name], right[name])


def test_nothing_but_what_is_needed_is_computed() -> None:
    exposed = exposing(build("inner tensors"), ["a"])
    assert [node.op_type for node in exposed.graph] == ["MatMul"]
    assert [value.name for value in exposed.graph.outputs] == ["a"]
    caches = exposing(build("caches"), ["o"])
    assert [value.name for value in caches.graph.outputs] == ["o", "nk", "nv"]
    assert set(caches.graph.initializers) == {"w32", "w16", "v16"}
