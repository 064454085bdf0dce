"""float16 with its guard: half the bytes, the same answers, and no infinity where float32 had none."""

import re
from collections.abc import Callable
from pathlib import Path

import graphs
import numpy as np
import onnx.checker
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import artifact, graph, session
from onnxpress.artifact import Edit
from onnxpress.errors import ModelError
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions, fp16
from onnxpress.quantization.kernels import kernels
from onnxpress.quantization.quantize import quantize
from onnxpress_calibration.dataset import Dataset


def half(model: ir.Model, data: Dataset | None = None, **chosen: object) -> Edit:
    return quantize(model, QuantizeOptions(mode="fp16", **chosen), data)  # type: ignore[arg-type]


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return next(iter(session.run(session.open_session(model), feeds).values()))


BUILD = {graphs.conv_chain: (3, 8, 8), graphs.residual: (8, 6, 6), graphs.concat: (4, 6, 6), graphs.dense: (5, 16)}


@pytest.mark.parametrize("build", list(BUILD))
@pytest.mark.parametrize("keep_io", [True, False])
def test_float16_agrees_and_is_valid(build: Callable[[], ir.Model], keep_io: bool, tmp_path: Path) -> None:
    model = build()
    before = ir.to_proto(model).SerializeToString()
    made = half(model, keep_io=keep_io).model
    assert ir.to_proto(model).SerializeToString() == before
    onnx.checker.check_model(artifact.save(made, tmp_path / "m.onnx").path, full_check=True)
    x = np.random.default_rng(5).normal(size=(4, *BUILD[build])).astype(np.float32)
    expected = run(model, {"x": x})
    found = run(made, {"x": x if keep_io else x.astype(np.float16)})
    assert found.dtype == (np.float32 if keep_io else np.float16)
    assert np.abs(found - expected).max() <= 0.01 * np.abs(expected).max()
    floats = [value for value in made.graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
    assert not floats


def growing() -> ir.Model:
    """The second product passes 65504, the third brings it back."""
    model = graphs.build(
        "g (float[N,16] x) => (float[N,16] y) { a = MatMul(x, w1) b = MatMul(a, w2) c = Relu(b) y = MatMul(c, w3) }",
        {"w1": (16, 16), "w2": (16, 16), "w3": (16, 16)},
    )
    for name, factor in (("w1", 200.0), ("w2", 500.0), ("w3", 1e-5)):
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=name)  # type: ignore[union-attr]
    return model


def test_the_guard_keeps_what_would_overflow_in_float32() -> None:
    model, data = growing(), graphs.normal((64, 16))
    x = {"x": np.random.default_rng(5).normal(size=(4, 16)).astype(np.float32)}
    expected = run(model, x)
    edit = half(model, data)
    assert {skip.op for skip in edit.skipped} == {"MatMul", "Relu"} and len(edit.skipped) == 3
    assert all("float16 ends at 65504" in skip.reason for skip in edit.skipped)
    assert np.abs(run(edit.model, x) - expected).max() <= 0.01 * np.abs(expected).max()
    first = next(node for node in edit.model.graph if node.op_type == "MatMul")
    assert first.outputs[0].dtype == ir.DataType.FLOAT16
    stored = {value.name: value.dtype for value in edit.model.graph.initializers.values() if len(value.shape) == 2}
    assert set(stored.values()) == {ir.DataType.FLOAT16}  # also those of nodes in float32


def test_fragile_operators_stay_float32_until_statistics_show_that_they_are_safe() -> None:
    model = graphs.build(
        "g (float[N,4,32] x) => (float[N,4,32] y) <float two = {2.0}, float eps = {1e-5}> { "
        "m = ReduceMean <axes=[-1]> (x) d = Sub(x, m) q = Pow(d, two) v = ReduceMean <axes=[-1]> (q) e = Add(v, eps) "
        "s = Sqrt(e) n = Div(d, s) y = MatMul(n, w) }",
        {"w": (32, 32)},
    )
    data, x = graphs.normal((32, 4, 32)), np.random.default_rng(2).normal(size=(4, 4, 32)).astype(np.float32)
    without, with_data = half(model), half(model, data)
    assert [skip.op for skip in without.skipped] == ["Pow"] and not with_data.skipped
    expected = run(model, {"x": x})
    for edit in (without, with_data):
        assert np.abs(run(edit.model, {"x": x}) - expected).max() <= 0.02 * np.abs(expected).max()


def test_a_mask_beyond_the_range_is_clamped_and_named() -> None:
    model = graphs.build(
        "g (float[N,6] x, float[N,6] keep) => (float[N,6] y) <float one = {1}, float far = {-3.4e38}> "
        "{ d = Sub(one, keep) m = Mul(d, far) s = Add(x, m) p = Softmax <axis=-1> (s) y = MatMul(p, w) }",
        {"w": (6, 6)},
    )
    edit = half(model)
    (skip,) = edit.skipped
    assert skip.op == "weight" and skip.where == "far" and "clamped to ±65504" in skip.reason
    keep = np.array([[1, 1, 1, 1, 0, 0]], np.float32)
    x = np.ones((1, 6), np.float32)
    np.testing.assert_allclose(run(edit.model, {"x": x, "keep": keep}), run(model, {"x": x, "keep": keep}), rtol=0.01)


def test_weights_in_bodies_are_halved_too(tmp_path: Path) -> None:
    model = graphs.build(
        "g (bool c, float[5,N,16] x) => (float[5,1,N,32] y) { y = If (c) <"
        "then_branch = t () => (float[5,1,N,32] p) { p, h = LSTM <hidden_size=32> (x, w, r) }, "
        "else_branch = e () => (float[5,1,N,32] q) { q, j = GRU <hidden_size=32> (x, v, u) }> }",
        {"w": (1, 128, 16), "r": (1, 128, 32), "v": (1, 96, 16), "u": (1, 96, 32)},
    )
    edit = half(model)
    sizes = [artifact.save(each, tmp_path / f"{i}.onnx").size_bytes for i, each in enumerate((model, edit.model))]
    assert sizes[1] < 0.55 * sizes[0]
    x = np.random.default_rng(0).normal(size=(5, 3, 16)).astype(np.float32)
    for branch in (True, False):
        feeds = {"c": np.array(branch), "x": x}
        assert np.abs(run(edit.model, feeds) - run(model, feeds)).max() < 0.01


def test_only_what_onnx_defines_for_float16_becomes_float16(tmp_path: Path) -> None:
    model = graphs.build(
        "g (float[1,4,4,4] x) => (float[1,4,8,8] y) <float[4] scales = {1, 1, 2, 2}> "
        '{ a = Conv(x, w) y = Resize <mode = "nearest"> (a, , scales) }',
        {"w": (4, 4, 1, 1)},
    )
    made = half(model).model
    onnx.checker.check_model(artifact.save(made, tmp_path / "m.onnx").path, full_check=True)
    (resize,) = (node for node in made.graph if node.op_type == "Resize")
    assert [value and value.dtype for value in resize.inputs] == [ir.DataType.FLOAT16, None, ir.DataType.FLOAT]


@pytest.mark.parametrize("build", [graphs.conv_chain, graphs.residual, graphs.concat])
def test_layers_behind_int8_layers_read_it_as_float16(build: Callable[[], ir.Model], tmp_path: Path) -> None:
    model = build()
    convs = [node.name or "" for node in model.graph if node.op_type == "Conv"]
    options = QuantizeOptions(exclude=f"^{convs[1]}$", verify=False, equalize=False)
    integers = quantize(model, options, graphs.normal((8, *BUILD[build]))).model
    mixed = integers.clone()
    converted = fp16.mix(mixed, {convs[1]}, set(convs), {})
    assert convs[1] in converted and convs[0] not in converted
    onnx.checker.check_model(artifact.save(mixed, tmp_path / "m.onnx").path, full_check=True)
    x = np.random.default_rng(5).normal(size=(64, *BUILD[build])).astype(np.float32)
    expected, found = run(integers, {"x": x}), run(mixed, {"x": x})
    assert 0 < np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


def fused() -> ir.Model:
    """A dense layer, an operator of the runtime's own that onnx infers nothing of, and a dense layer."""
    model = ir.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "ai.onnx.ml": 3]> '
            "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w1) a = com.microsoft.BiasGelu(h, b) "
            'n = ai.onnx.ml.Normalizer <norm="L2"> (a) y = MatMul(n, w2) }'
        )
    )
    for name, shape in (("w1", (32, 64)), ("b", (64,)), ("w2", (64, 32))):
        array = np.random.default_rng(0).normal(size=shape, scale=0.2).astype(np.float32)
        (value,) = {v for node in model.graph for v in node.inputs if v is not None and v.name == name}
        value.const_value, value.shape, value.dtype = ir.tensor(array, name=name), ir.Shape(shape), ir.DataType.FLOAT
        model.graph.register_initializer(value)
    return prepare(model).model


@pytest.mark.parametrize("keep_io", [True, False])
def test_types_of_the_runtimes_operators_are_asked_of_it(keep_io: bool) -> None:
    model = fused()
    assert all(value.dtype == ir.DataType.FLOAT for node in model.graph for value in node.outputs)
    edit = half(model, keep_io=keep_io)
    assert [(skip.op, skip.reason) for skip in edit.skipped] == [("Normalizer", "it has no float16 form")]
    gelu = next(node for node in edit.model.graph if node.op_type == "BiasGelu")
    assert gelu.outputs[0].dtype == ir.DataType.FLOAT16
    x = np.random.default_rng(5).normal(size=(4, 32)).astype(np.float32)
    expected = run(model, {"x": x})
    found = run(edit.model, {"x": x if keep_io else x.astype(np.float16)})
    assert np.abs(found - expected).max() <= 0.01 * np.abs(expected).max()


def test_what_reads_a_value_of_unknown_type_stays_float32() -> None:
    model = fused()
    gelu = next(node for node in model.graph if node.op_type == "BiasGelu")
    gelu.outputs[0].type = None
    edit = half(model)
    unknown = f"the type of {gelu.outputs[0].name} is not known"
    assert {skip.op for skip in edit.skipped if skip.reason == unknown} == {"BiasGelu", "Normalizer"}
    session.open_session(edit.model)


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("y, m, s = LayerNormalization <axis = 1> (x, x0) z = Mul(y, m)", set()),
        ("q = Softmax(x) l = SplitToSequence <axis = 0> (q) z = SequenceAt(l, i)", {"SplitToSequence", "SequenceAt"}),
        ("q = Softmax(x) b = BitCast <to = 6> (q) c = BitCast <to = 1> (b) z = Relu(c)", set()),
        ('q = Softmax(x) z = ScatterND <reduction = "add"> (q, j, x)', {"ScatterND"}),
    ],
    ids=["statistics", "sequence", "bits", "reduction"],
)
def test_a_form_that_does_not_load_is_not_written(text: str, stays: set[str]) -> None:
    body = (
        "g (float[2,4] x) => (float z) <float[4] x0 = {1, 1, 1, 1}, int64 i = {0}, int64[2,1] j = {0, 1}> "
        f"{{ {text} }}"
    )
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 13, opset_import: ["": 26]> {body}'))
    model = prepare(model).model
    edit = half(model)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(run(edit.model, {"x": x}), run(model, {"x": x}), atol=0.01)
    assert {skip.op for skip in edit.skipped if skip.reason == "it has no float16 form"} == stays


def test_what_was_float16_stays_so() -> None:
    """In a body, too; only what was float32 is converted."""
    model = graphs.build(
        "g (bool c, float16[N,8] h, float[N,8] x) => (float16[N,8] y, float[N,8] z) { "
        "y = If (c) <then_branch = t () => (float16[N,8] p) { p = Relu(h) }, "
        "else_branch = e () => (float16[N,8] q) { q = Neg(h) }> z = MatMul(x, w) }",
        {"w": (8, 8)},
    )
    made = half(model).model
    assert [value.dtype for value in made.graph.outputs] == [ir.DataType.FLOAT16, ir.DataType.FLOAT]
    assert not any(node.op_type == "Cast" for value in made.graph.inputs[:2] for node in graph.consumers(value))
    feeds = {"c": np.array(True), "h": np.ones((2, 8), np.float16), "x": np.ones((2, 8), np.float32)}
    assert run(made, feeds).dtype == np.float16


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_int8_layers_stay_as_they_are(mode: str, tmp_path: Path) -> None:
    model = graphs.dense()
    first, second = (node.name or "" for node in model.graph if node.op_type == "MatMul")
    options = QuantizeOptions.model_validate({"mode": mode, "exclude": f"^{second}$", "verify": False})
    integers = prepare(quantize(model, options, graphs.normal((8, 5, 16))).model).model
    edit = half(integers)
    assert second in edit.changed and first not in edit.changed
    paths = [artifact.save(each, tmp_path / f"{i}.onnx").path for i, each in enumerate((integers, edit.model))]
    before, after = (kernels(path) for path in paths)
    assert after.int8 == before.int8 == 1
    whole = quantize(model, QuantizeOptions.model_validate({"mode": mode, "verify": False}), graphs.normal((8, 5, 16)))
    with pytest.raises(ModelError, match="part of an int8 layer, which float16 would take apart"):
        half(prepare(whole.model).model)


@pytest.mark.parametrize(
    ("dtype", "mode", "reason"),
    [
        (np.float64, "fp16", "MatMul: it computes in float64, not in float32"),
        (np.float16, "fp16", "its weights are float16, not float32"),
        (np.float64, "weight-only", "MatMul: its weight is double, not float32"),
        (np.float16, "weight-only", "MatMul: its weight is float16, not float32"),
        (np.float64, "dynamic", "MatMul: its weight is double, not float32"),
    ],
)
def test_floats_of_another_width_are_named(dtype: type[np.floating], mode: str, reason: str) -> None:
    word = "double" if dtype is np.float64 else "float16"
    model = graphs.build(f"g ({word}[N,64] x) => ({word}[N,64] y) {{ y = MatMul(x, w) }}", {"w": (64, 64)})
    weight = model.graph.initializers["w"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy().astype(dtype), name="w")
    weight.type = ir.TensorType(weight.const_value.dtype)
    with pytest.raises(ModelError, match=re.escape(reason)):
        quantize(prepare(model).model, QuantizeOptions.model_validate({"mode": mode}))
