"""Models whose weights lie in files beside them, used from anywhere: data is never looked up in the current folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnxpress import artifact
from onnxpress.errors import ModelError
from onnxpress.export.prepare import prepare
from onnxpress.session import open_session, run

TEXT = """<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[N,8] x, bool c) => (float[N,8] y)
<float[8,8] w, float[8] b, int64[2] s, float[0] none>
{
    a = MatMul(x, w)
    p = Concat<axis=0>(b, none)
    d = Add(a, p)
    r = Reshape(d, s)
    i = If(c) <then_branch = t () => (float[N,8] o) <float[8,8] v> { o = MatMul(r, v) },
               else_branch = f () => (float[N,8] o) { k = Constant<value: tensor = float[2,1] {1, 1}>()
                                                      m = ReduceSum<keepdims=0>(k) o = Add(r, m) }>
    y = own.double(i)
}
<domain: "own", opset_import: ["": 17]> double (q) => (z)
{ two = Constant<value: tensor = float[1] {2}>() z = Mul(q, two) }
"""


def proto() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    random = np.random.default_rng(0)
    arrays = {
        "w": random.standard_normal((8, 8)).astype(np.float32),
        "b": random.standard_normal(8).astype(np.float32),
        "s": np.array([-1, 8], np.int64),
        "v": random.standard_normal((8, 8)).astype(np.float32),
        "none": np.empty(0, np.float32),
    }
    del model.graph.initializer[:]
    branch = next(node for node in model.graph.node if node.op_type == "If").attribute[0].g
    del branch.initializer[:]
    for name, array in arrays.items():
        (branch if name == "v" else model.graph).initializer.append(numpy_helper.from_array(array, name))
    return model


def tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return all tensors that may lie outside; those of functions may, too, though onnx's own functions forget them."""
    branches = next(node for node in model.graph.node if node.op_type == "If").attribute
    constants = [branches[1].g.node[0].attribute[0].t, model.functions[0].node[0].attribute[0].t]
    return [*model.graph.initializer, *branches[0].g.initializer, *constants]


def write(path: Path, *, locations: tuple[str, ...] = ("m.onnx.data",), loadable: bool = False) -> Path:
    """Write the model with every tensor outside, in these files in turn.

    ``loadable`` keeps inside what onnxruntime itself wants there: the shape of a Reshape, and what functions hold.
    """
    model = proto()
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = model.graph.initializer[:2] if loadable else tensors(model)
    for index, tensor in enumerate(chosen):
        content, file = numpy_helper.to_array(tensor).tobytes(), locations[index % len(locations)]
        target = path.parent / file
        target.parent.mkdir(parents=True, exist_ok=True)
        offset = target.stat().st_size if target.exists() else 0
        with target.open("ab") as stream:
            stream.write(content)
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", offset), ("length", len(content))):
            tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())
    return path


FEEDS = {"x": np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32), "c": np.array(True)}


def answers(model: ir.Model | Path) -> list[np.ndarray]:
    session = open_session(model)
    return [run(session, {**FEEDS, "c": np.array(way)})["y"] for way in (True, False)]


@pytest.fixture
def right(tmp_path: Path) -> list[np.ndarray]:
    (tmp_path / "inline.onnx").write_bytes(proto().SerializeToString())
    return answers(tmp_path / "inline.onnx")


def test_constants_that_onnxruntime_wants_inside_are_put_there_by_export(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"`compress export MODEL -o OUT` writes them into the model"):
        open_session(path)


@pytest.mark.parametrize(
    "locations",
    [
        ("m.onnx.data",),
        ("weights with spaces.bin", "gewichte-äöü-重み.bin"),
        ("a.data", "b.data", "c.data"),
        ("sub/folder/m.data",),
        ("./m.data",),
        tuple(f"tensor{index}" for index in range(7)),  # one file each, as older exporters write
    ],
)
def test_every_tensor_outside_prepares_and_saves_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: list[np.ndarray], locations: tuple[str, ...]
) -> None:
    path = write(tmp_path / "there" / "m.onnx", locations=locations)
    monkeypatch.chdir(tmp_path)
    model = artifact.load(Path("there/m.onnx"))
    prepared = prepare(model).model
    for made in (model, prepared, prepare(model, opset=21).model):
        np.testing.assert_allclose(answers(made), right, rtol=1e-6)
    saved = artifact.save(prepared, tmp_path / "prepared.onnx")
    assert saved.files == (tmp_path / "prepared.onnx",), "it needs no file but its own"
    np.testing.assert_allclose(answers(saved.path), right, rtol=1e-6)
    assert len(artifact.read(path).files) == 1 + len(set(locations))


def test_a_file_of_the_same_name_in_the_current_folder_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: list[np.ndarray]
) -> None:
    write(tmp_path / "there" / "m.onnx")
    (tmp_path / "m.onnx.data").write_bytes(bytes(10_000))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_allclose(answers(prepare(artifact.load(Path("there/m.onnx"))).model), right, rtol=1e-6)


@pytest.mark.parametrize("gone", [False, True])
def test_the_current_folder_may_change_or_vanish_after_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: list[np.ndarray], gone: bool
) -> None:
    write(tmp_path / "there" / "m.onnx")
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    model = artifact.load(Path("there/m.onnx"))
    monkeypatch.chdir(other)
    if gone:
        other.rmdir()
    np.testing.assert_allclose(answers(prepare(model).model), right, rtol=1e-6)


def hub(folder: Path, path: Path) -> Path:
    """Lay the model out like a download cache: links to files that are named by their content."""
    (folder / "blobs").mkdir(parents=True)
    (folder / "snapshot").mkdir()
    for number, file in enumerate((path, path.with_name("m.onnx.data"))):
        shutil.copy(file, folder / "blobs" / str(number))
        (folder / "snapshot" / file.name).symlink_to(Path("../blobs", str(number)))
    return folder / "snapshot" / "m.onnx"


def link(folder: Path, path: Path) -> Path:
    folder.mkdir()
    (folder / "linked.onnx").symlink_to(path)
    return folder / "linked.onnx"


def hard(folder: Path, path: Path) -> Path:
    """Share the data with a second model, by a second name of the same file."""
    folder.mkdir()
    shutil.copy(path, folder / "m.onnx")
    os.link(path.with_name("m.onnx.data"), folder / "m.onnx.data")
    return folder / "m.onnx"


@pytest.mark.parametrize("lay_out", [hub, link, hard])
def test_links_to_models_and_data_are_followed(
    tmp_path: Path, right: list[np.ndarray], lay_out: Callable[[Path, Path], Path]
) -> None:
    path = write(tmp_path / "there" / "m.onnx", loadable=True)
    found = lay_out(tmp_path / "links", path)
    np.testing.assert_allclose(answers(prepare(artifact.load(found)).model), right, rtol=1e-6)
    np.testing.assert_allclose(answers(found), right, rtol=1e-6)
    assert artifact.read(found).sha256 == artifact.read(path).sha256


def test_a_link_does_not_open_what_lies_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1" * 4096)
    path = write(tmp_path / "there" / "m.onnx")
    path.with_name("m.onnx.data").unlink()
    path.with_name("m.onnx.data").symlink_to(tmp_path / "secret")
    for model in (path, link(tmp_path / "links", path)):
        with pytest.raises(ModelError, match="points outside"):
            artifact.load(model)


SHARE = """<ir_version: 8, opset_import: ["": 17]> g (float[N,64] x) => (float[N,10] y)
<float[64,128] w, float[128] b, float[128,10] v> { a = MatMul(x, w) c = Add(a, b) r = Relu(c) y = MatMul(r, v) }"""

COMMANDS = {
    "export": "export net/m.onnx -o out/o.onnx",
    "inspect": "inspect net/m.onnx",
    "dynamic": "quantize net/m.onnx -o out/o.onnx --mode dynamic",
    "static": "quantize net/m.onnx -o out/o.onnx --calibration d.npz --accept-loss",
    "onnxruntime": "quantize net/m.onnx -o out/o.onnx --calibration d.npz --backend onnxruntime --accept-loss",
    "weight-only": "quantize net/m.onnx -o out/o.onnx --mode weight-only --bits 8",
    "int4": "quantize net/m.onnx -o out/o.onnx --mode weight-only --bits 4 --calibration d.npz --accept-loss",
    "fp16": "quantize net/m.onnx -o out/o.onnx --mode fp16 --calibration d.npz",
    "prune": "prune net/m.onnx -o out/o.onnx --amount 30%",
    "evaluate": "evaluate net/m.onnx net/m.onnx --data d.npz",
    "profile": "profile net/m.onnx --data d.npz -o out/p.profile",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_from_another_folder(
    compress: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    model = onnx.parser.parse_model(SHARE)
    random = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name, shape in (("w", (64, 128)), ("b", (128,)), ("v", (128, 10))):
        array = random.standard_normal(shape).astype(np.float32) / 8
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for folder in ("net", "out"):
        (tmp_path / folder).mkdir()
    onnx.save(model, tmp_path / "net" / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    np.savez(tmp_path / "d.npz", x=random.standard_normal((16, 64)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    ended = compress(*COMMANDS[command].split())
    assert ended.code == 0, ended.err
    if (made := tmp_path / "out" / "o.onnx").exists():
        assert artifact.read(made).files == (made,)
