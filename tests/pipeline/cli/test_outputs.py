"""No command writes over what it reads or over what is there, and a failed one leaves nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import artifact, session
from onnxpress.cli import cli
from onnxpress.cli.shared import InputPath, InputText, OutputPath
from onnxpress.errors import ModelError

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,4,4] x) => (float[N,2] y)
<float[2,3,1,1] w = {1, 2, 3, -1, -2, 0.5}> { c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }"""
POLICY = "schema: onnxpress.policy/1\nrules:\n  size.total_bytes: [error, {max: 1 MB}]\n"
RECIPE = "schema: onnxpress.recipe/1\nmodel: {source: model.onnx}\ndata: {evaluation: data.npz}\nvariants: {}\n"
FOLDERS = {("run", "output"), ("gate judge", "out")}
"""Options that name a folder in which the command writes files of fixed names."""
Compress = Callable[..., Any]


def commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} ")
        else:
            yield f"{prefix}{name}", command


def test_every_path_on_the_command_line_is_known_as_an_input_or_an_output() -> None:
    unknown = [
        (name, option.name)
        for name, command in commands()
        for option in command.params
        if (
            isinstance(option.type, click.Path) or option.human_readable_name in ("DATA", "SOURCE", "STUDENT", "RECIPE")
        )
        and not isinstance(option.type, (InputPath, InputText, OutputPath))
    ]
    assert set(unknown) == FOLDERS
    data = [
        (name, option.name)
        for name, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and option.metavar in ("DATA", "SOURCE")
        if not isinstance(option.type, InputText)
    ]
    assert data == []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of each kind that a command reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    artifact.save(model, tmp_path / "model.onnx")
    artifact.save(model, tmp_path / "other.onnx")
    ir.save(model, tmp_path / "apart.onnx", external_data="apart.data", size_threshold_bytes=0)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32))
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "prices.csv").write_text("a,b\n")
    return tmp_path


DATA = ("--data", "data.npz")
QUANTIZE = ("quantize", "model.onnx", "-o")
GATE = ("gate", "model.onnx", "other.onnx", "--policy", "policy.yaml")
OVER_INPUTS = [
    *[("inspect", "model.onnx", "--json", name) for name in ("model.onnx", "hard.onnx", "soft.onnx", "./model.onnx")],
    ("inspect", "apart.onnx", "--json", "apart.data"),
    (*QUANTIZE, "hard.onnx", "--mode", "dynamic"),
    (*QUANTIZE, "q.onnx", "--calibration", "data.npz", "--json", "data.npz"),
    ("quantize", "apart.onnx", "-o", "apart.data", "--mode", "dynamic"),
    ("prune", "model.onnx", "-o", "soft.onnx", "--amount", "30%"),
    ("export", "model.onnx", "-o", "model.onnx"),
    ("profile", "model.onnx", *DATA, "-o", "model.onnx"),
    ("profile", "model.onnx", *DATA, "-o", "data.npz"),
    ("evaluate", "model.onnx", *DATA, "--json", "data.npz"),
    ("bench", "model.onnx", "other.onnx", "--save-samples", "other.onnx"),
    *[(*GATE, form, "policy.yaml") for form in ("--junit", "--sarif", "--html", "--markdown", "--benchmark-json")],
    (*GATE, "--json", "other.onnx"),
    ("gate", "init", "model.onnx", "other.onnx", "-o", "other.onnx"),
    ("prices", "import", "prices.csv", "--format", "table", "-o", "prices.csv"),
    ("run", "recipe.yaml", "--json", "recipe.yaml"),
    ("run", "recipe.yaml", "--json", "model.onnx"),
    ("run", "recipe.yaml", "--json", "data.npz"),
]


@pytest.mark.parametrize("words", OVER_INPUTS, ids=lambda words: " ".join(words))
def test_no_input_is_written_over_not_even_with_force(compress: Compress, place: Path, words: tuple[str, ...]) -> None:
    (place / "hard.onnx").hardlink_to(place / "model.onnx")
    (place / "soft.onnx").symlink_to(place / "model.onnx")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    for more, reason in (((), r"which is never changed|exists already"), (("--force",), r"which is never changed")):
        ended = compress(*words, *more, "-q")
        assert ended.code == 2 and re.search(reason, ended.err) and ended.err.count("\n") == 1, ended.err
        assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before


OVER_OTHERS = [
    ("inspect", "model.onnx", "--json", "there"),
    (*QUANTIZE, "q.onnx", "--mode", "dynamic", "--json", "there"),
    ("profile", "model.onnx", *DATA, "-o", "there"),
    ("evaluate", "model.onnx", *DATA, "--json", "there"),
    ("bench", "model.onnx", "--save-samples", "there"),
    *[(*GATE, form, "there") for form in ("--json", "--junit", "--sarif", "--html", "--markdown", "--benchmark-json")],
    ("gate", "init", "model.onnx", "other.onnx", "-o", "there"),
    ("doctor", "--json", "there"),
]


@pytest.mark.parametrize("words", OVER_OTHERS, ids=lambda words: " ".join(words))
def test_nothing_that_is_there_is_written_over_without_force(
    compress: Compress, place: Path, words: tuple[str, ...]
) -> None:
    (place / "there").write_text("precious")
    before = sorted(path.name for path in place.iterdir())
    ended = compress(*words, "-q")
    assert ended.code == 2 and "--force" in ended.err and ended.err.count("\n") == 1, ended.err
    assert (place / "there").read_text() == "precious" and sorted(path.name for path in place.iterdir()) == before


def test_force_replaces_what_is_there(compress: Compress, place: Path) -> None:
    (place / "there").write_text("old")
    assert compress("inspect", "model.onnx", "--json", "there", "--force", "-q").code == 0
    assert json.loads((place / "there").read_text())["schema"] == "onnxpress.inspect/1"


def test_two_outputs_are_two_files(compress: Compress, place: Path) -> None:
    (place / "folder").mkdir()
    for words in (
        (*QUANTIZE, "q", "--mode", "dynamic", "--json", "q"),
        (*QUANTIZE, "q", "--mode", "dynamic", "--json", "./q"),
        (*GATE, "--junit", "q", "--sarif", "q"),
        (*GATE, "--out", "folder", "--json", "folder/gate.json"),
    ):
        ended = compress(*words, "-q")
        assert ended.code == 2 and "asked for twice" in ended.err, ended.err
        assert not (place / "q").exists() and not list(place.glob("folder/*"))


@pytest.mark.parametrize(
    "words",
    [
        (*QUANTIZE, "out.onnx", "--mode", "fp16"),
        (*QUANTIZE, "out.onnx", "--calibration", "data.npz"),
        ("prune", "model.onnx", "-o", "out.onnx", "--amount", "30%", "--granularity", "weight"),
        ("export", "model.onnx", "-o", "out.onnx"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_model_that_does_not_load_is_not_left_behind(
    compress: Compress, place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    load = session.open_session

    def broken(model: Any, *args: Any) -> Any:
        if isinstance(model, Path) and model.name == "out.onnx":
            raise ModelError(f"model {model}: does not load")
        return load(model, *args)

    monkeypatch.setattr(session, "open_session", broken)
    before = sorted(place.iterdir())
    ended = compress(*words, "-q", "--json", "out.json")
    assert ended.code == 3 and ended.err == "error: model out.onnx: does not load\n"
    assert sorted(place.iterdir()) == before


def test_a_folder_that_is_no_run_is_not_written_into(compress: Compress, place: Path) -> None:
    (place / "baseline").mkdir()
    (place / "baseline" / "notes").write_text("precious")
    ended = compress("run", "recipe.yaml", "-o", ".", "-q")
    assert ended.code == 2 and "holds something else" in ended.err
    assert (place / "baseline" / "notes").read_text() == "precious" and not (place / "steps").exists()


def test_a_stored_baseline_is_updated_in_place_but_not_with_the_result(compress: Compress, place: Path) -> None:
    assert compress("run", "recipe.yaml", "-o", "demo", "-q").code == 0
    assert compress("baseline", "write", "demo", "-o", "stored.json", "-q").code == 0
    assert compress("baseline", "update", "demo", "--file", "stored.json", "-q").code == 0
    ended = compress("baseline", "update", "demo", "--file", "stored.json", "--json", "stored.json", "--force", "-q")
    assert ended.code == 2
    assert json.loads((place / "stored.json").read_text())["schema"].startswith("onnxpress.baseline/")


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have no such names")
def test_names_that_are_no_utf8_work(compress: Compress, place: Path) -> None:
    odd, result = os.fsdecode(b"m\xff.onnx"), os.fsdecode(b"o\xff.onnx")
    (place / odd).hardlink_to(place / "model.onnx")
    os.link(place / "data.npz", os.fsdecode(b"d\xff.npz"))
    ended = compress("quantize", odd, "-o", result, "--calibration", os.fsdecode(b"d\xff.npz"), "--json", "-")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["artifact"]["path"] == result and (place / result).is_file()
    ended.out.encode()
    ended = compress("evaluate", "model.onnx", odd, result, *DATA)
    assert ended.code == 0, ended.err
    assert "m\N{REPLACEMENT CHARACTER}" in ended.out


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "x" * 300),
        ("inspect", "model.onnx", "--json", "x" * 300),
        ("quantize", "model.onnx", "-o", "x" * 300, "--mode", "fp16"),
        ("evaluate", "model.onnx", "--data", "x" * 300 + ".npz"),
        (*GATE, "--out", "model.onnx/x"),
        (*GATE, "--junit", "none/x"),
        ("gate", "x" * 300, "--policy", "policy.yaml"),
        ("run", "recipe.yaml", "-o", "x" * 300),
        ("run", "recipe.yaml", "-o", "model.onnx"),
        ("run", "x" * 300),
        ("baseline", "write", "x" * 300),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_names_that_no_file_can_have_are_one_line(compress: Compress, place: Path, words: tuple[str, ...]) -> None:
    before = sorted(place.iterdir())
    ended = compress(*words, "-q")
    assert ended.code in (2, 3) and ended.err.count("\n") == 1 and ended.err.startswith("error: "), ended
    assert "internal" not in ended.err and sorted(place.iterdir()) == before


def test_a_summary_that_cannot_be_written_is_one_line(
    compress: Compress, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "none" / "summary.md"))
    ended = compress(*GATE, "--annotations", "github", "--json", "gate.json", "-q")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "summary.md" in ended.err
    assert not (place / "gate.json").exists()


def test_a_failed_run_leaves_a_folder_only_with_finished_steps(compress: Compress, place: Path) -> None:
    (place / "model.onnx").write_bytes(b"broken")
    ended = compress("run", "recipe.yaml", "-o", "demo", "-q")
    assert ended.code == 3 and not (place / "demo").exists()


def test_a_run_folder_that_goes_meanwhile_is_one_line(
    compress: Compress, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxpress import runner

    measure = runner.measure

    def removed(*args: Any, **kwargs: Any) -> Any:
        shutil.rmtree(place / "demo")
        return measure(*args, **kwargs)

    monkeypatch.setattr(runner, "measure", removed)
    ended = compress("run", "recipe.yaml", "-o", "demo", "-q")
    assert ended.code == 2 and ended.err.count("\n") == 1 and not (place / "demo").exists(), ended


def test_a_search_does_not_write_into_what_is_no_journal(compress: Compress, place: Path) -> None:
    (place / "q.onnx.search.jsonl").write_text("precious\n")
    words = ("quantize", "model.onnx", "-o", "q.onnx", "--mode", "auto", "--calibration", "data.npz", "--budget", "2s")
    ended = compress(*words, "-q")
    assert ended.code == 2 and "holds something else" in ended.err
    assert (place / "q.onnx.search.jsonl").read_text() == "precious\n"


def test_an_unfinished_training_is_not_thrown_away(compress: Compress, place: Path) -> None:
    pytest.importorskip("torch")
    (place / "d.onnx.checkpoint").write_text("precious")
    ended = compress("distill", "model.onnx", "-o", "d.onnx", "--teacher", "other.onnx", *DATA, "-q")
    assert ended.code == 2 and "--resume" in ended.err
    assert (place / "d.onnx.checkpoint").read_text() == "precious"


FULL = """
import resource, sys
from onnxpress.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "blamed"),
    [
        ((*QUANTIZE, "out.onnx", "--mode", "fp16"), "temporary folder"),
        (("export", "model.onnx", "-o", "out.onnx"), ""),
        (("prune", "model.onnx", "-o", "out.onnx", "--amount", "50%", "--granularity", "weight"), ""),
        (("inspect", "model.onnx", "--json", "out.json"), "output out.json"),
        (("profile", "model.onnx", *DATA, "-o", "out.profile"), ""),
        (("bench", "model.onnx", "other.onnx", "--budget", "1s"), "temporary folder"),
        (("run", "recipe.yaml", "-o", "demo"), ""),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else words,
)
def test_a_full_disk_is_named_and_nothing_is_left(place: Path, words: tuple[str, ...], blamed: str) -> None:
    before, environment = sorted(place.iterdir()), os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", FULL, *words, "-q"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {blamed}") and done.stderr.count("\n") == 1, done
    assert "File too large" in done.stderr and sorted(place.iterdir()) == before
