import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import artifact
from onnxpress.errors import ModelError, UsageError
from onnxpress.export import ExportOptions
from onnxpress.export import export as module
from onnxpress.export.export import export
from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]

REAL = Path(os.environ.get("ONNXPRESS_REAL_DATA", Path(__file__).parents[3] / "../shared/real"))
NET = """g (float[batch,2,length] x) => (float[batch,3,length] y) {
    z = Conv(x, w)
    y = BatchNormalization(z, scale, shift, mean, var)
}"""


@pytest.fixture
def net(build: Build, rng: np.random.Generator, tmp_path: Path) -> Path:
    arrays = {name: rng.uniform(0.5, 2, 3).astype(np.float32) for name in ("scale", "shift", "mean", "var")}
    model = build(NET, arrays | {"w": rng.normal(size=(3, 2, 1)).astype(np.float32)}, opset=11)
    artifact.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_a_file_is_prepared_and_compared_with_what_it_was(net: Path) -> None:
    exported = export(str(net))
    assert [node.op_type for node in exported.model.graph] == ["Conv"]
    assert exported.edit.facts["opset_after"] == 17
    check = exported.verification
    assert check is not None
    assert check.against == "the original"
    assert [shape["x"] for shape in check.shapes] == [(1, 2, 16), (2, 2, 16), (7, 2, 16), (3, 2, 32), (3, 2, 17)]
    assert 0 < check.max_abs_error < 1e-5


def test_a_preparation_gone_wrong_is_not_written(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ir.Model, opset: int | None) -> object:
        edit = prepare(model, opset=opset)
        edit.model.graph.initializers["w"].const_value = ir.tensor(np.ones((3, 2, 1), np.float32), name="w")
        return edit

    monkeypatch.setattr(module, "prepare", wrong)
    with pytest.raises(ModelError, match=r"output 'y' at x=1x2x16 .* differs by .* compared with the original"):
        export(str(net))
    assert export(str(net), ExportOptions(verify=False)).verification is None


def test_options_of_pytorch_do_not_go_with_a_file(net: Path) -> None:
    for options in (ExportOptions(weights="w.pt"), ExportOptions(inputs=("x:float32:1",))):
        with pytest.raises(UsageError, match="an ONNX file has both"):
            export(str(net), options)


def test_inputs_that_cannot_be_guessed_are_not_compared(
    build: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two inputs whose axes must agree, which the file does not say, and one of an unknown dtype of numbers."""
    model = build("g (float[N,A] x, float[N,B] z) => (float[N,C] y) { y = Add(x, z) }")
    artifact.save(model, tmp_path / "add.onnx")
    assert export(str(tmp_path / "add.onnx")).verification is None
    text = build("g (string[N] x) => (bool[N] y) { y = Equal(x, x) }", opset=19, ir_version=9)
    artifact.save(text, tmp_path / "text.onnx")
    assert export(str(tmp_path / "text.onnx")).verification is None
    assert capfd.readouterr().err == ""


def test_axes_without_names_are_their_own(build: Build, tmp_path: Path) -> None:
    model = build("g (float[a,b] x) => (float[a,b] y) { y = Neg(x) }")
    model.graph.inputs[0].shape = ir.Shape([None, None])
    artifact.save(model, tmp_path / "neg.onnx")
    check = export(str(tmp_path / "neg.onnx")).verification
    assert check is not None
    assert {shape["x"] for shape in check.shapes} == {(1, 16), (2, 16), (7, 16), (3, 32), (3, 17)}


def test_a_map_as_input_is_refused(build: Build, tmp_path: Path) -> None:
    proto = ir.to_proto(build("g (float[N] x) => (float[N] y) { y = Neg(x) }"))
    unread = proto.graph.input.add(name="m")
    unread.type.map_type.key_type = 7
    unread.type.map_type.value_type.tensor_type.elem_type = 1
    (tmp_path / "map.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"map\.onnx: malformed or unsupported graph \(Map types") as raised:
        export(str(tmp_path / "map.onnx"))
    assert "\n" not in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        export(str(tmp_path / "none.onnx"))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real models in {REAL}")
@pytest.mark.parametrize(
    ("file", "shapes"),
    [("mnist/mnist.onnx", 1), ("audio/kws_dscnn_fp32.onnx", 3), ("text/all-MiniLM-L6-v2_fp32.onnx", 5)],
)
def test_real_files(file: str, shapes: int) -> None:
    check = export(str(REAL / file)).verification
    assert check is not None
    assert len(check.shapes) == shapes
    assert check.max_rel_error < 1e-5
