"""The command line: what each command prints and writes, and one clear line with an exit code for each mistake."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import artifact
from onnxpress.session import open_session, run

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,4,4] x) => (float[N,2] y)
<float[2,3,1,1] w = {1, 2, 3, -1, -2, 0.5}> { c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }"""
Compress = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return artifact.save(ir.from_proto(onnx.parser.parse_model(TEXT)), tmp_path / "net.onnx").path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).normal(size=(40, 3, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0].mean((1, 2)) > 0).astype(np.int64))
    return tmp_path / "data.npz"


def one_line(ended: Any, code: int) -> str:
    """Check that a command failed with this code and one line, and return that line."""
    assert ended.code == code, ended
    lines = ended.err.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in ended.err, ended.err
    return str(lines[0])


def test_quantize_writes_a_model_and_says_what_runs(
    compress: Compress, model: Path, data: Path, tmp_path: Path
) -> None:
    before = model.read_bytes()
    ended = compress("quantize", model, "-o", tmp_path / "q.onnx", "--calibration", data, "--json", tmp_path / "q.json")
    assert ended.code == 0, ended.err
    assert "int8 kernels, 0 float" in ended.out
    document = json.loads((tmp_path / "q.json").read_text())
    assert document["schema"] == "onnxpress.step/1" and document["kernels"]["int8"] >= 1
    (entry,) = artifact.read(tmp_path / "q.onnx").lineage
    assert entry["step"] == "quantize" and entry["input_sha256"] == artifact.read(model).sha256
    assert model.read_bytes() == before


def test_quantize_refuses_what_a_metric_loses(compress: Compress, model: Path, tmp_path: Path) -> None:
    """Labels are what float says; weights of two bits say something else."""
    inputs, out = np.random.default_rng(0).normal(size=(100, 3, 4, 4)).astype(np.float32), tmp_path / "q.onnx"
    np.savez(tmp_path / "labelled.npz", x=inputs, y=run(open_session(model), {"x": inputs})["y"].argmax(1))
    judged = ["quantize", model, "-o", out, "--bits", 2, "--calibration", tmp_path / "labelled.npz", "--metric", "top1"]
    message = one_line(compress(*judged, "-q"), 3)
    assert "top1 drops by" in message and "--max-drop" in message and not out.exists()
    accepted = compress(*judged, "--accept-loss", "--json", tmp_path / "q.json")
    assert accepted.code == 0 and "note: accepted: top1 drops by" in accepted.out
    assert json.loads((tmp_path / "q.json").read_text())["facts"]["drop"] > 1


def test_json_to_standard_output_is_all_there_is(compress: Compress, model: Path) -> None:
    ended = compress("inspect", model, "--json", "-")
    assert json.loads(ended.out)["schema"] == "onnxpress.inspect/1"
    assert compress("inspect", model, "-q").out == ""


def test_inspect_shows_layers_and_what_could_be_quantized(compress: Compress, model: Path) -> None:
    out = compress("inspect", model).out
    assert "6 parameters, 96 MACs" in out and "2x3x1x1 float" in out
    assert "could run as static int8: 1 layers with 100 % of the MACs" in out


def test_evaluate_compares_with_the_first_model(compress: Compress, model: Path, data: Path, tmp_path: Path) -> None:
    compress("quantize", model, "-o", tmp_path / "q.onnx", "--calibration", data)
    ended = compress("evaluate", model, tmp_path / "q.onnx", "--data", data, "--metric", "top1", "--json", "-")
    document = json.loads(ended.out)
    assert document["baseline"] == "net" and document["comparisons"][0]["candidate"] == "q"


@pytest.mark.parametrize(
    "command",
    ("export", "prune", "quantize", "evaluate", "bench", "cost", "gate", "report", "run", "inspect", "doctor"),
)
def test_every_command_has_help_with_a_first_sentence(compress: Compress, command: str) -> None:
    ended = compress(command, "-h")
    assert ended.code == 0 and "--json" in ended.out
    assert command in compress("--help").out


def test_help_is_quick_and_imports_no_heavy_library() -> None:
    code = (
        "import sys, onnxpress.cli\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'numpy', 'pydantic', 'rich'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    used = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "onnxpress", "--help"], check=True, capture_output=True)
        after = os.times()  # the child's own time: a wall clock would measure what else the machine does
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(used) <= 0.3


def test_a_profile_gives_the_same_model_as_the_data_and_merged_shards_the_same_as_one(
    compress: Compress, model: Path, data: Path, tmp_path: Path
) -> None:
    plain = ("--no-equalize", "--no-smooth", "--no-bias-correction", "--rounding", "nearest")
    # a profile holds no samples to do them with
    compress("quantize", model, "-o", tmp_path / "direct.onnx", "--calibration", data, *plain)
    arrays = dict(np.load(data))
    for name, part in (("all", slice(None)), ("first", slice(0, 13)), ("second", slice(13, None))):
        np.savez(tmp_path / f"{name}.npz", **{key: value[part] for key, value in arrays.items()})
        ended = compress("profile", model, "--data", tmp_path / f"{name}.npz", "-o", tmp_path / f"{name}.profile")
        assert ended.code == 0, ended.err
    first, second = tmp_path / "first.profile", tmp_path / "second.profile"
    compress("profile", model, "--merge", first, "--merge", second, "-o", tmp_path / "merged.profile")
    weights = []
    for name in ("all", "merged"):
        out = tmp_path / f"{name}.onnx"
        assert compress("quantize", model, "-o", out, "--profile", tmp_path / f"{name}.profile").code == 0
        weights.append([tensor.tobytes() for tensor in artifact.tensors(artifact.load(out))])
    direct = [tensor.tobytes() for tensor in artifact.tensors(artifact.load(tmp_path / "direct.onnx"))]
    assert weights[0] == weights[1] == direct


def test_a_profile_of_another_model_is_refused(compress: Compress, model: Path, data: Path, tmp_path: Path) -> None:
    compress("profile", model, "--data", data, "-o", tmp_path / "p.profile")
    other = ir.from_proto(onnx.parser.parse_model(TEXT.replace("{1, 2, 3", "{4, 2, 3")))
    path = artifact.save(other, tmp_path / "other.onnx").path
    ended = compress("quantize", path, "-o", tmp_path / "q.onnx", "--profile", tmp_path / "p.profile", "-q")
    assert "is of the model" in one_line(ended, 2)
    assert "nothing to do" in one_line(compress("profile", model, "-o", tmp_path / "n.profile", "-q"), 2)
    none = compress("quantize", path, "-o", tmp_path / "q.onnx", "--profile", tmp_path / "none.profile", "-q")
    assert "no such file" in one_line(none, 2)


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_missing_model(compress: Compress, tmp_path: Path) -> None:
    assert "no such file" in one_line(compress("inspect", tmp_path / "none.onnx"), 2)


@pytest.mark.parametrize("content", [b"", b"this is no model", os.urandom(200)])
def test_not_an_onnx_file(compress: Compress, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    assert "not an ONNX file" in one_line(compress("inspect", tmp_path / "bad.onnx"), 3)


def test_truncated_model(compress: Compress, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-40])
    assert "truncated" in one_line(compress("quantize", model, "-o", model.with_name("q.onnx"), "--mode", "dynamic"), 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((4, 3, 4, 4), np.float32)}, "has no array 'x'"),
        ({"x": np.zeros((4, 3, 5, 4), np.float32)}, "shape 1x3x5x4, the model expects ?x3x4x4"),
        ({"x": np.zeros((4, 3, 4, 4), np.int32)}, "dtype int32, the model expects float32"),
        ({"x": np.full((4, 3, 4, 4), np.nan, np.float32)}, "holds NaN or infinity"),
        ({"x": np.zeros((0, 3, 4, 4), np.float32)}, "holds no samples"),
    ],
)
def test_data_that_does_not_fit(
    compress: Compress, model: Path, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    ended = compress("quantize", model, "-o", tmp_path / "q.onnx", "--calibration", tmp_path / "bad.npz", "-q")
    assert message in one_line(ended, 3)
    assert not (tmp_path / "q.onnx").exists()


def test_missing_labels(compress: Compress, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3, 4, 4), np.float32))
    ended = compress("evaluate", model, "--data", tmp_path / "d.npz", "--metric", "top1", "-q")
    assert "has no labels" in one_line(ended, 3)


@pytest.mark.parametrize(("content", "code", "message"), [(None, 2, "no such file"), (b"junk", 3, "truncated")])
def test_a_second_model_that_is_none(
    compress: Compress, model: Path, tmp_path: Path, content: bytes | None, code: int, message: str
) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3, 4, 4), np.float32))
    if content is not None:
        (tmp_path / "int8.onnx").write_bytes(content)
    ended = compress("evaluate", model, tmp_path / "int8.onnx", "--data", tmp_path / "d.npz", "-q")
    said = one_line(ended, code)
    assert message in said and "int8.onnx" in said and "ONNXRuntimeError" not in said


def test_facts_of_pruning_have_the_digits_that_people_read(compress: Compress, model: Path, tmp_path: Path) -> None:
    ended = compress("prune", model, "-o", tmp_path / "p.onnx", "--amount", "33%", "--granularity", "weight")
    assert ended.code == 0, ended.err
    numbers = re.findall(r": ([\d.]+)$", ended.out, re.MULTILINE)
    assert numbers and all(len(number.replace(".", "").lstrip("0")) <= 4 for number in numbers), ended.out


def test_no_samples_are_no_choice(compress: Compress, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3, 4, 4), np.float32))
    assert "'--samples'" in one_line(compress("evaluate", model, "--data", tmp_path / "d.npz", "--samples", "0"), 2)


def test_missing_data_and_unknown_words(compress: Compress, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    assert "--calibration" in one_line(compress("quantize", model, "-o", out, "-q"), 2)
    assert "no such file" in one_line(compress("quantize", model, "-o", out, "--calibration", "none.npz", "-q"), 3)
    assert "Did you mean 'mse'" in one_line(compress("quantize", model, "-o", out, "--calibrator", "mze", "-q"), 2)
    assert "no regular expression" in one_line(compress("quantize", model, "-o", out, "--include", "(", "-q"), 2)
    assert "Did you mean 'digits/test'" in one_line(compress("evaluate", model, "--data", "zoo:digits/tset", "-q"), 2)


def test_unknown_zoo_name_lists_what_exists(compress: Compress, tmp_path: Path) -> None:
    line = one_line(compress("export", "zoo:nothing_like_it", "-o", tmp_path / "m.onnx", "-q"), 2)
    assert "digits_resnet" in line and "unicode_bert" in line
    assert "digits_resnet" in one_line(compress("run", "zoo:nothing_like_it", "-o", tmp_path / "r", "-q"), 2)


def test_existing_output(compress: Compress, model: Path, data: Path) -> None:
    out = model.with_name("q.onnx")
    out.write_text("precious")
    assert "--force" in one_line(compress("quantize", model, "-o", out, "--calibration", data, "-q"), 2)
    assert out.read_text() == "precious"
    assert compress("quantize", model, "-o", out, "--calibration", data, "-q", "--force").code == 0
    assert artifact.load(out)


def test_the_input_cannot_be_the_output(compress: Compress, model: Path, data: Path) -> None:
    before = model.read_bytes()
    ended = compress("quantize", model, "-o", model, "--calibration", data, "-q", "--force")
    assert "is the input" in one_line(ended, 2)
    assert model.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(compress: Compress, model: Path, data: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    ended = compress("quantize", model, "-o", closed / "q.onnx", "--calibration", data, "-q")
    assert "write permission" in one_line(ended, 2)


def test_a_missing_folder(compress: Compress, model: Path, data: Path, tmp_path: Path) -> None:
    ended = compress("quantize", model, "-o", tmp_path / "no" / "q.onnx", "--calibration", data, "-q")
    assert "there is no folder" in one_line(ended, 2)


def test_usage_errors_of_the_command_line_itself(compress: Compress, model: Path) -> None:
    assert compress("quantise", model).code == 2
    assert compress("quantize", model).code == 2
    assert compress("inspect", model, "--nonsense").code == 2


def test_an_internal_error_is_explained_not_dumped(
    compress: Compress, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxpress import inspection

    def broken(path: Path, shape: dict[str, int]) -> None:
        raise ZeroDivisionError(f"{path} {shape}")

    monkeypatch.setattr(inspection, "inspect", broken)
    assert "internal error: ZeroDivisionError" in one_line(compress("inspect", model), 5)
    assert "Traceback" in compress("inspect", model, "-v").err


def test_preprocessing_is_an_option(compress: Callable[..., Any], tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("L", (10, 12), ord(name)).save(tmp_path / "photos" / f"{name}.png")
    assert compress("export", "zoo:digits_cnn", "-o", tmp_path / "m.onnx").code == 0
    words = ["evaluate", tmp_path / "m.onnx", tmp_path / "m.onnx", "--data", tmp_path / "photos", "--preprocessing"]
    ended = compress(*words, "size: 32, color: gray", "--json", "-")
    assert ended.code == 0 and json.loads(ended.out)["data"]["samples"] == 2, ended.err
    ended = compress(*words, "size: 32, colour: gray")
    assert ended.code == 3 and "unknown key 'colour'. Did you mean 'color'?" in ended.err


def test_a_fault_is_the_models_where_the_runtime_cannot_run_it_either(
    tmp_path: Path, compress: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,M] y)
    <float[4,3] w = {1,2,3,4,5,6,7,8,9,1,2,3}> { y = MatMul(x, w) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "good.onnx")
    onnx.save(onnx.parser.parse_model(text.replace("x, w", "w, x")), tmp_path / "bad.onnx")

    def fail(*_: object) -> None:
        raise IndexError("of ours")

    monkeypatch.setattr("onnxpress.inspection.inspect", fail)
    good, bad = (compress("inspect", tmp_path / name) for name in ("good.onnx", "bad.onnx"))
    assert good.code == 5 and "IndexError: of ours" in good.err
    assert bad.code == 3 and "onnxruntime cannot run it" in bad.err and bad.err.count("\n") == 1
    assert bad.err.count("bad.onnx: ") == 1
