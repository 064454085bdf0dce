"""No command writes over what it reads or over what is there, and a failed one leaves nothing."""

import json
import re
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
            raise ModelError("does not load")
        return load(model, *args)

    monkeypatch.setattr(session, "open_session", broken)
    before = sorted(place.iterdir())
    ended = compress(*words, "-q", "--json", "out.json")
    assert ended.code == 3 and "does not load" in ended.err
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
