"""Artifacts: read with every defect named, written whole or not at all, bit by bit the same."""

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import artifact
from onnxpress.errors import ModelError, OutputError, UsageError

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,2] x) => (float[N,2] y)
<float[2,2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }"""


def model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(TEXT))


def external(folder: Path, location: str = "weights.data", length: int = 16) -> Path:
    """Write a model whose one weight lies in an external file."""
    proto = onnx.parser.parse_model(TEXT)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def test_round_trip_with_hash_and_lineage(tmp_path: Path) -> None:
    made = artifact.save(model(), tmp_path / "m.onnx", step={"step": "a"})
    assert made.sha256 == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert made.size_bytes == (tmp_path / "m.onnx").stat().st_size
    again = artifact.save(artifact.load(made.path), tmp_path / "n.onnx", step={"step": "b"})
    assert [entry["step"] for entry in again.lineage] == ["a", "b"]
    assert artifact.read(again.path) == again


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    first, second = (
        artifact.save(model(), tmp_path / name, step={"step": "z", "a": 2}) for name in ("a.onnx", "b.onnx")
    )
    assert first.sha256 == second.sha256


def test_external_data_is_read_hashed_and_folded_in(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    before = artifact.read(path)
    assert before.size_bytes == path.stat().st_size + 16
    (tmp_path / "weights.data").write_bytes(np.ones(4, np.float32).tobytes())
    assert artifact.read(path).sha256 != before.sha256
    made = artifact.save(artifact.load(path), tmp_path / "inline.onnx")
    assert made.files == (made.path,)
    assert next(artifact.tensors(artifact.load(made.path))).numpy().tolist() == [[1, 1], [1, 1]]


def test_large_weights_go_beside_the_model_named_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "INLINE_LIMIT_BYTES", 1000)
    large = ir.from_proto(onnx.parser.parse_model(TEXT.replace("{1, 2, 3, 4}", "{1, 2, 3, 4}")))
    weights = np.arange(800, dtype=np.float32).reshape(2, 400)
    large.graph.initializers["w"].const_value = ir.tensor(weights, name="w")
    large.graph.initializers["w"].shape = ir.Shape(weights.shape)
    made = artifact.save(large, tmp_path / "m.onnx")
    (data,) = made.files[1:]
    assert data.name.startswith("m.") and data.suffix == ".data"
    assert made.size_bytes == made.path.stat().st_size + data.stat().st_size
    assert (next(artifact.tensors(artifact.load(made.path))).numpy() == weights).all()


@pytest.mark.parametrize(
    ("location", "content", "message"),
    [
        ("weights.data", None, "is missing"),
        ("weights.data", b"12345678", "has 8 bytes, 16 are needed"),
        ("../weights.data", b"1" * 16, "points outside"),
        ("/etc/hostname", None, "points outside"),
        ("a" * 300, None, "names no file"),
    ],
)
def test_external_data_that_cannot_be_used(tmp_path: Path, location: str, content: bytes | None, message: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = external(inner, location)
    if content is not None:
        (inner / location).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        artifact.load(path)


def test_external_data_that_is_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.data").symlink_to("weights.data")
    with pytest.raises(ModelError, match="names no file"):
        artifact.load(external(tmp_path))


def test_a_model_is_read_as_one_whatever_its_name_ends_with(tmp_path: Path) -> None:
    path = tmp_path / "report.json"  # onnx would choose its JSON reader
    path.write_text('{"schema": "onnxpress.report/1"}')
    with pytest.raises(ModelError, match="not an ONNX file"):
        artifact.load(path)


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret").write_bytes(b"1" * 16)
    (inner / "weights.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="points outside"):
        artifact.load(external(inner))


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x00" * 100, os.urandom(64)])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX file"):
        artifact.load(tmp_path / "m.onnx")


def test_every_truncation_of_a_model_is_refused(tmp_path: Path) -> None:
    whole = artifact.save(model(), tmp_path / "m.onnx").path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "t.onnx").write_bytes(whole[:length])
        with pytest.raises(ModelError):
            artifact.load(tmp_path / "t.onnx")


def test_a_missing_model_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        artifact.load(tmp_path / "none.onnx")


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        artifact.save(model(), path)
    assert path.read_text() == "mine"
    artifact.save(model(), path, force=True)
    assert artifact.load(path)


def test_outputs_that_have_no_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        artifact.save(model(), tmp_path / "none" / "m.onnx")
    with pytest.raises(OutputError, match="is a folder"):
        artifact.save(model(), tmp_path)
