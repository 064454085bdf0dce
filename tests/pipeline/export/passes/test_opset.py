from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.errors import ModelError, UsageError
from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]

OLD = """g (float[N,4] x) => (float[N,4] y) {
    a = Unsqueeze<axes=[0]>(x)
    b = MatMul(a, w)
    c = Squeeze<axes=[0]>(b)
    d = Softmax<axis=1>(c)
    y = Clip<min=0.1, max=0.9>(d)
}"""


def test_old_models_are_converted(build: Build, run: Run, rng: np.random.Generator) -> None:
    model = build(OLD, {"w": rng.normal(size=(4, 4)).astype(np.float32)}, opset=9, ir_version=4)
    edit = prepare(model)
    assert edit.facts["opset_before"] == 9
    assert edit.facts["opset_after"] == edit.model.opset_imports[""] == 17
    assert edit.model.ir_version == 8
    onnx.checker.check_model(ir.to_proto(edit.model), full_check=True)
    feeds = {"x": rng.normal(size=(2, 4)).astype(np.float32)}
    np.testing.assert_allclose(run(edit.model, feeds)[0], run(model, feeds)[0], rtol=1e-6)
    assert prepare(edit.model).changed == ()


def test_softmax_of_two_axes_needs_no_help(build: Build, ops: Ops) -> None:
    """onnx converts Softmax below 13 to Flatten, Softmax, Reshape; here that does nothing."""
    assert ops(prepare(build(OLD, {"w": np.eye(4, dtype=np.float32)}, opset=9)).model)["Softmax"] == 1
    assert "Reshape" not in ops(prepare(build(OLD, {"w": np.eye(4, dtype=np.float32)}, opset=9)).model)


@pytest.mark.parametrize(("opset", "ir_version"), [(13, 8), (18, 8), (19, 9), (21, 10), (23, 11)])
def test_ir_version_follows_the_opset(build: Build, opset: int, ir_version: int) -> None:
    model = build("g (float[N] x) => (float[N] y) { y = Neg(x) }", opset=13, ir_version=7)
    edit = prepare(model, opset=opset)
    assert (edit.model.opset_imports[""], edit.model.ir_version) == (opset, ir_version)


def test_branches_are_converted(build: Build, run: Run) -> None:
    model = build(
        """g (bool c, float[N,4] x) => (float[N] y) {
            y = If(c) <
                then_branch = t () => (float[N] p) { p = ReduceMean<axes=[1], keepdims=0>(x) },
                else_branch = e () => (float[N] q) { q = ReduceMax<axes=[1], keepdims=0>(x) }
            >
        }""",
        opset=13,
    )
    after = prepare(model, opset=18).model
    for condition, expected in ((True, [2.5]), (False, [4])):
        feeds = {"c": np.array(condition), "x": np.array([[1, 2, 3, 4]], np.float32)}
        np.testing.assert_array_equal(run(after, feeds)[0], expected)


def test_weights_do_not_pass_through_the_converter(
    build: Build, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    convert = onnx.version_converter.convert_version
    monkeypatch.setattr(
        onnx.version_converter, "convert_version", lambda p, o: seen.append(p.ByteSize()) or convert(p, o)
    )
    weight = rng.normal(size=(4, 10000)).astype(np.float32)
    model = build("g (float[N,4] x) => (float[N,10000] y) { y = MatMul(x, w) }", {"w": weight}, opset=11)
    after = prepare(model).model
    assert max(seen) < 2000
    np.testing.assert_array_equal(after.graph.initializers["w"].const_value.numpy(), weight)
    assert [value.name for value in after.graph.inputs] == ["x"]


def test_other_domains_stay(build: Build, ops: Ops) -> None:
    model = build(
        """<ir_version: 6, opset_import: ["ai.onnx": 11, "com.microsoft": 1]>
        g (float[N,4] x) => (float[N,4] y) { a = com.microsoft.Gelu(x)  y = Relu(a) }"""
    )
    after = prepare(model).model
    assert ops(after) == {"Gelu": 1, "Relu": 1}
    assert after.opset_imports == {"": 17, "com.microsoft": 1}


def test_an_operator_that_cannot_be_converted_is_named(build: Build) -> None:
    """Upsample ended with opset 9; a file that claims 11 and uses it is as invalid as it was made."""
    model = build(
        "g (float[1,1,2,2] x) => (float[1,1,4,4] y) { y = Upsample(x, s) }", {"s": np.ones(4, np.float32)}, opset=11
    )
    with pytest.raises(ModelError, match="Upsample"):
        prepare(model)


@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10)])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("scale", [2.0, 2.5])
def test_old_images_keep_their_pixels(
    build: Build, run: Run, rng: np.random.Generator, op: str, opset: int, mode: str, scale: float
) -> None:
    model = build(
        f'g (float[1,2,4,6] x) => (float[A,B,C,D] y) {{ y = {op}<mode="{mode}">(x, s) }}',
        {"s": np.array([1, 1, scale, scale], np.float32)},
        opset=opset,
    )
    feeds = {"x": rng.normal(size=(1, 2, 4, 6)).astype(np.float32)}
    np.testing.assert_allclose(run(prepare(model).model, feeds)[0], run(model, feeds)[0], rtol=1e-6)


BATCHED_SCAN = """g (float[3,2] initial, float[3,4,2] x, int64[3] lengths) => (float[3,2] y, float[3,4,2] z) {
    y, z = Scan <num_scan_inputs = 1, directions = [1], body = body (float[2] s, float[2] n) => (float[2] a, float[2] b)
        { a = Add(s, n)  u = Unsqueeze<axes = [0]>(a)  b = Squeeze<axes = [0]>(u) }> (LENGTHS, initial, x) }"""


def test_a_scan_over_batches_becomes_two(build: Build, run: Run, rng: np.random.Generator) -> None:
    model = build(BATCHED_SCAN.replace("LENGTHS", '""'), opset=8, ir_version=3)
    made = prepare(model).model
    assert [node.op_type for node in made.graph] == ["Scan"] and made.opset_imports[""] == 17
    feeds = {"initial": rng.normal(size=(3, 2)), "x": rng.normal(size=(3, 4, 2)), "lengths": np.full(3, 4)}
    feeds = {name: array.astype(np.int64 if name == "lengths" else np.float32) for name, array in feeds.items()}
    for expected, found in zip(run(model, feeds), run(made, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_scan_over_sequences_of_several_lengths_is_refused(build: Build) -> None:
    model = build(BATCHED_SCAN.replace("LENGTHS", "lengths"), opset=8, ir_version=3)
    with pytest.raises(ModelError, match="operator Scan cannot be converted from opset 8 to 17"):
        prepare(model)


def test_a_model_of_other_domains_only(build: Build, ops: Ops) -> None:
    model = build(
        """<ir_version: 8, opset_import: ["ai.onnx.ml": 3]>
        g (float[N,2] x) => (float[N,2] y) { y = ai.onnx.ml.Normalizer<norm="L2">(x) }"""
    )
    assert ops(prepare(model).model) == {"Normalizer": 1}


def test_conversion_errors_name_the_operator(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(proto: onnx.ModelProto, opset: int) -> None:  # noqa: ARG001
        raise RuntimeError(
            "BaseConverter.h: adapter_lookup: Assertion `false` failed: No Adapter From Version $16 for Foo"
        )

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(ModelError, match="operator Foo cannot be converted from opset 13 to 17"):
        prepare(build("g (float[N] x) => (float[N] y) { y = Neg(x) }", opset=13), opset=17)


@pytest.mark.parametrize("opset", [12, 99])
def test_an_opset_that_makes_no_sense(build: Build, opset: int) -> None:
    with pytest.raises(UsageError, match=f"opset {opset}: choose one from 13"):
        prepare(build("g (float[N] x) => (float[N] y) { y = Neg(x) }"), opset=opset)
