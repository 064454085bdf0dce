"""Operators that onnxruntime runs and onnx's checker does not know, or calls deprecated: every mode takes them."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress.errors import ModelError, UsageError
from onnxpress.export.prepare import prepare
from onnxpress.pruning.options import PruneOptions
from onnxpress.pruning.prune import prune
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.session import open_session, run
from onnxpress_calibration.dataset import Dataset

SEQUENCE, IMAGE = (64, 5, 32), (64, 3, 12, 12)
TEXTS = {
    "SimplifiedLayerNormalization": """g (float[b,s,32] x) => (float[b,s,64] y)
        { a = MatMul(x, v) h = SimplifiedLayerNormalization<axis=-1, epsilon=0.000001>(a, g) y = MatMul(h, w) }""",
    "LayerNormalization": """g (float[b,s,32] x) => (float[b,s,64] y)
        { a = MatMul(x, v) h = LayerNormalization<axis=-1>(a, g, z) y = MatMul(h, w) }""",
    "SkipSimplifiedLayerNormalization": """g (float[b,s,32] x) => (float[b,s,64] y)
        { a = MatMul(x, v) h = com.microsoft.SkipSimplifiedLayerNormalization(a, a, g) y = MatMul(h, w) }""",
    "BiasGelu": """g (float[b,s,32] x) => (float[b,s,64] y)
        { a = MatMul(x, v) h = com.microsoft.BiasGelu(a, z) y = MatMul(h, w) }""",
    "MultiHeadAttention": """g (float[b,s,32] x) => (float[b,s,64] y)
        { a = MatMul(x, v) h = com.microsoft.MultiHeadAttention<num_heads=4>(a, a, a) y = MatMul(h, w) }""",
    "GroupNormalization": """g (float[b,3,12,12] x) => (float[b,64] y)
        { a = Conv<pads=[1,1,1,1]>(x, c) n = GroupNormalization<num_groups=4>(a, e, e) r = Relu(n)
          p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, w) }""",
    "FusedConv": """g (float[b,3,12,12] x) => (float[b,64] y)
        { r = com.microsoft.FusedConv<activation="Relu", pads=[1,1,1,1]>(x, c)
          p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, w) }""",
}
CASES = [
    *(("SimplifiedLayerNormalization", opset) for opset in (11, 13, 17, 21, 23)),
    *(("LayerNormalization", opset) for opset in (11, 13, 16)),
    *(("GroupNormalization", opset) for opset in (18, 20)),
    ("SkipSimplifiedLayerNormalization", 17),
    ("BiasGelu", 17),
    ("MultiHeadAttention", 17),
    ("FusedConv", 17),
]


def build(operator: str, opset: int) -> ir.Model:
    head = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>'
    proto = onnx.parser.parse_model(head + TEXTS[operator])
    random = np.random.default_rng(0)
    shapes = {"v": (32, 48), "g": (48,), "z": (48,), "c": (48, 3, 3, 3), "e": (4,), "w": (48, 64)}
    for name, shape in shapes.items():
        if any(name in node.input for node in proto.graph.node):
            array = random.normal(size=shape).astype(np.float32) / 4
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def samples(model: ir.Model) -> np.ndarray:
    shape = SEQUENCE if len(model.graph.inputs[0].shape or ()) == 3 else IMAGE
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def sqnr_db(model: ir.Model, other: ir.Model) -> float:
    x = samples(model)
    wanted, given = (run(open_session(each), {"x": x})["y"].astype(np.float64) for each in (model, other))
    return float(10 * np.log10((wanted**2).sum() / max(((wanted - given) ** 2).sum(), 1e-30)))


@pytest.mark.parametrize(("operator", "opset"), CASES)
def test_prepared_at_its_own_opset_and_at_others(operator: str, opset: int) -> None:
    model = build(operator, opset)
    for goal in (None, 21, 23):
        if goal is not None and goal < opset:
            continue
        prepared = prepare(model, opset=goal).model
        assert operator in {node.op_type for node in prepared.graph}
        assert "aside" not in prepared.opset_imports
        assert sqnr_db(model, prepared) > 110
        assert prepare(prepared).changed == ()


MODES = {
    "static": QuantizeOptions(),
    "dynamic": QuantizeOptions(mode="dynamic", min_agreement=0),
    "weight-only": QuantizeOptions(mode="weight-only"),
    "weight-only 4 bits": QuantizeOptions(mode="weight-only", bits=4, verify=False),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("operator", "opset"), CASES)
def test_quantized_around_it(operator: str, opset: int, mode: str) -> None:
    model = prepare(build(operator, opset)).model
    x = samples(model)
    edit = quantize(model, MODES[mode], Dataset(origin="normal", read=lambda: [{"x": x}]))
    assert edit.changed
    assert operator in {node.op_type for node in edit.model.graph}
    assert sqnr_db(model, edit.model) > (12 if "4" in mode else 25)


@pytest.mark.parametrize(("operator", "opset"), CASES)
def test_pruned_around_it_or_left_with_a_reason(operator: str, opset: int) -> None:
    model = prepare(build(operator, opset)).model
    options = PruneOptions(amount=0.25, round_to=4)
    if operator != "GroupNormalization":
        with pytest.raises(UsageError, match=rf"nothing can be removed.*{operator}|{operator}.*nothing can be removed"):
            prune(model, options)
        return
    edit = prune(model, options)
    assert open_session(edit.model)
    assert edit.facts["channels_after"] < edit.facts["channels_before"]


def test_what_the_runtime_refuses_too_is_refused_with_the_checkers_reason() -> None:
    head = '<ir_version: 8, opset_import: ["": 17]>'
    for text in ("NoSuchOperator(x)", "Upsample(x, x)"):
        model = ir.from_proto(onnx.parser.parse_model(f"{head} g (float[N] x) => (float[N] y) {{ y = {text} }}"))
        with pytest.raises(ModelError, match=r"^model: not valid ONNX"):
            prepare(model)


def test_groups_whose_channels_are_unknown_are_not_widened() -> None:
    text = "g (float[N,c,4] x, float[2] s) => (float[N,c,4] y) { y = GroupNormalization<num_groups=2>(x, s, s) }"
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}'))
    assert prepare(model).model
    with pytest.raises(ModelError, match="GroupNormalization"):
        prepare(model, opset=21)
