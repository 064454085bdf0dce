"""float16 with its guard: half the bytes, the same answers, and no infinity where float32 had none."""

from collections.abc import Callable
from pathlib import Path

import graphs
import numpy as np
import onnx.checker
import onnx_ir as ir
import pytest

from onnxpress import artifact, session
from onnxpress.artifact import Edit
from onnxpress.quantization import QuantizeOptions, fp16
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
