"""Exported programs: plain ones load as torch loads them; whatever would run code does not, and the attack is real."""

import contextlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from onnxpress.errors import ModelError
from onnxpress.export import programs
from onnxpress.export.programs import MODEL, _is_expression
from onnxpress.quiet import quiet

WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
ORIGINAL_PATH = list(sys.path)
Edit = Callable[[dict[str, Any], Path], None]


class Small(torch.nn.Module):
    """A branch, sizes that are computed, a buffer, a constant and nested inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("scale", torch.ones(3))
        self.offset = torch.tensor([1.0, 2.0, 3.0])

    def forward(self, x: torch.Tensor, more: dict[str, list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        hidden = self.layer(x) * self.scale + self.offset
        chosen = torch.cond(hidden.sum() > 0, lambda h: h * 2, lambda h: h - 1, (hidden,))
        return {"out": chosen.reshape(x.shape[0] // 2, -1), "more": more["list"][0] + 1}


INPUTS = (torch.ones(4, 4), {"list": [torch.ones(4)]})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = torch.export.Dim.DYNAMIC
    path = tmp_path_factory.mktemp("program") / "program.pt2"
    with quiet():
        exported = torch.export.export(
            Small().eval(), INPUTS, dynamic_shapes={"x": {0: rows}, "more": {"list": [{0: rows}]}}
        )
        torch.export.save(exported, path)
    return path


def members(path: Path) -> dict[str, Any]:
    """Return the members of an archive without its folder; JSON is parsed."""
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    return {name: json.loads(content) if name.endswith(".json") else content for name, content in found.items()}


def pack(path: Path, found: dict[str, Any], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in found.items():
            archive.writestr(f"p/{name}", content if isinstance(content, bytes) else json.dumps(content))
    return path


class Canary:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


def pickled(canary: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(Canary(canary), stream)
    return stream.getvalue()


def nodes(found: dict[str, Any]) -> list[dict[str, Any]]:
    return list(found[MODEL]["graph_module"]["graph"]["nodes"])


def python(canary: Path) -> str:
    return f"__import__('os').mkdir('{canary}')"


def weight(found: dict[str, Any], canary: Path) -> None:
    entry = found[WEIGHTS]["config"]["layer.bias"]
    entry["use_pickle"] = True
    found[f"data/weights/{entry['path_name']}"] = pickled(canary)


def constant(found: dict[str, Any], canary: Path) -> None:
    entry = found[CONSTANTS]["config"]["offset"]
    entry["use_pickle"] = True
    found[f"data/constants/{entry['path_name']}"] = pickled(canary)


def opaque(found: dict[str, Any], canary: Path) -> None:
    found[CONSTANTS]["config"]["offset"]["path_name"] = "opaque_obj_0"
    found["data/constants/opaque_obj_0"] = pickle.dumps(Canary(canary))
    found[CONSTANTS]["config"]["offset"]["use_pickle"] = True


def older_weights(found: dict[str, Any], canary: Path) -> None:
    found["data/weights/model.pt"] = pickled(canary)


def older_constants(found: dict[str, Any], canary: Path) -> None:
    found["data/constants/model.pt"] = pickled(canary)


def size(found: dict[str, Any], canary: Path) -> None:
    value = found[MODEL]["graph_module"]["graph"]["tensor_values"]["x"]
    value["sizes"][0] = {"as_expr": {"expr_str": python(canary), "hint": {"as_int": 4}}}


def default(found: dict[str, Any], canary: Path) -> None:
    (canary.parent / "hostile.py").write_text(f"import os; os.mkdir({str(canary)!r})")
    spec = {
        "type": "collections.defaultdict",
        "context": {"default_factory_module": "hostile", "default_factory_name": "os", "dict_context": []},
        "children_spec": [],
    }
    found[MODEL]["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, spec])


def name(found: dict[str, Any], canary: Path) -> None:
    """A name that becomes code when torch writes the forward function down."""
    text = json.dumps(found[MODEL])
    found[MODEL] = json.loads(text.replace('"linear"', json.dumps(f"linear = {python(canary)}; linear")))


def guard(found: dict[str, Any], canary: Path) -> None:
    found[MODEL]["guards_code"] = [python(canary)]


def example(found: dict[str, Any], canary: Path) -> None:
    found["data/sample_inputs/model.pt"] = pickled(canary)


def compiled(found: dict[str, Any], canary: Path) -> None:  # noqa: ARG001 - nothing here would make a folder
    found["data/aotinductor/model/a.wrapper.so"] = b"\x7fELF"


def operator(target: str) -> Edit:
    def edit(found: dict[str, Any], canary: Path) -> None:  # noqa: ARG001
        nodes(found)[1]["target"] = target

    edit.__name__ = target
    return edit


def attribute(found: dict[str, Any], canary: Path) -> None:
    for spec in found[MODEL]["graph_module"]["signature"]["input_specs"]:
        if "buffer" in spec:
            spec["buffer"]["buffer_name"] = f'scale", {python(canary)}, "'


def container(found: dict[str, Any], canary: Path) -> None:  # noqa: ARG001
    spec = {"type": "builtins.dict", "context": '{"__enum__": true, "fqn": "os:x"}', "children_spec": []}
    found[MODEL]["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, spec])


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "ran"
    torch._export.serde.serialize._CURRENT_DESERIALIZER = None  # torch does not tidy up after some failures


def test_a_plain_program_computes_what_it_did(saved: Path) -> None:
    loaded, expected = programs.load(saved), torch.export.load(saved)
    for rows in (4, 6):
        inputs = (torch.randn(rows, 4), {"list": [torch.randn(2)]})
        found, right = loaded.module()(*inputs), expected.module()(*inputs)
        assert all(torch.equal(found[key], right[key]) for key in right)
    assert str(loaded.graph) == str(expected.graph)
    assert loaded._guards_code == expected._guards_code
    assert loaded.example_inputs is None


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (weight, "'layer.bias' is pickled"),
        (constant, "'offset' is pickled"),
        (opaque, "'offset' is pickled"),
        (older_weights, "older format that needs pickle"),
        (older_constants, "older format that needs pickle"),
        (size, "expression .* could run code"),
        (default, "packed as 'collections.defaultdict'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_torch_would_run_is_refused(saved: Path, canary: Path, edit: Edit, message: str) -> None:
    found = members(saved)
    edit(found, canary)
    path = pack(canary.parent / "hostile.pt2", found)
    with pytest.raises(ModelError, match=message):
        programs.load(path)
    assert not canary.exists()
    with quiet(), contextlib.suppress(Exception):
        torch.export.load(path)
    assert canary.exists()


@pytest.mark.parametrize("edit", [example, guard], ids=lambda edit: edit.__name__)
def test_what_torch_would_run_but_nobody_needs_is_left_out(saved: Path, canary: Path, edit: Edit) -> None:
    found = members(saved)
    edit(found, canary)
    path = pack(canary.parent / "hostile.pt2", found)
    programs.load(path).module()(*INPUTS)
    assert not canary.exists()
    with quiet(), contextlib.suppress(Exception):
        torch.export.load(path).module()(*INPUTS)
    assert canary.exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (name, "name .* could run code"),
        (attribute, "buffer_name .* could run code"),
        (container, "keys that are neither"),
        (compiled, "compiled code"),
        *(
            (operator(target), "operator .* could run code")
            for target in (
                "torch.os.system",
                "torch.hub.load",
                "torch.load",
                "torch.ops.load_library",
                "torch.ops.aten.from_file.default",
                "torch.ops.aten.save.default",
                "torch.ops.aten.__class__.mro",
                "torch.ops.torchvision.write_file.default",
                "torch.ops.higher_order.call_torchbind",
                "_operator.attrgetter",
                "math.__loader__.load_module",
                "#hostile:x",
                "torch.ops.aten.add.Tensor\n",
            )
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_text_that_could_run_code_is_refused(saved: Path, canary: Path, edit: Edit, message: str) -> None:
    found = members(saved)
    edit(found, canary)
    with pytest.raises(ModelError, match=message):
        programs.load(pack(canary.parent / "hostile.pt2", found))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "let_through"),
    [
        ("Symbol('s77', positive=True, integer=True)", True),
        ("Mul(Integer(3), FloorDiv(Symbol('s77', positive=True, integer=True), Integer(2)))", True),
        ("Add(Float('0.5', precision=53), Pow(Symbol('s0'), Integer(-1)))", True),
        ("((3*L['x'].size()[0]) % (L['x'].size()[0] // 2)) == 0", True),
        ("u0 + s1**2 <= 512 and Max(1, s0) > 2", True),
        ("Pow(Integer(10), Integer(1000000000))", False),
        ("Pow(Pow(Integer(3), Integer(64)), Integer(64))", False),
        ("10**10**10", False),
        ("1 << (64*64*64)", False),
        ("Symbol('a b')", False),
        ("Float('1e999999999')", False),
        ("L['x'].size.__func__", False),
        ("L['x'].__class__", False),
        ("open('x')", False),
        ("(lambda: 0)()", False),
        ("[x for x in (1,)]", False),
        ("L['it\"s'].size()[0] == 1", False),
        ("(" * 300 + ")" * 300, False),
        ("1+" * 6000 + "1", False),
        ("\0", False),
    ],
)
def test_expressions(text: str, *, let_through: bool) -> None:
    assert _is_expression(text) is let_through


def test_tensors_larger_than_what_is_stored(saved: Path, tmp_path: Path) -> None:
    for sizes, strides, content in (([1 << 40], [0], b"1234"), ([3], [1], b""), ([100], [1], b"1234")):
        found = members(saved)
        entry = found[WEIGHTS]["config"]["layer.bias"]
        entry["tensor_meta"]["sizes"] = [{"as_int": each} for each in sizes]
        entry["tensor_meta"]["strides"] = [{"as_int": each} for each in strides]
        found[f"data/weights/{entry['path_name']}"] = content
        with pytest.raises((ModelError, RuntimeError)):
            programs.load(pack(tmp_path / "p.pt2", found))


def test_archives_that_torch_does_not_write(saved: Path, tmp_path: Path) -> None:
    found = members(saved)
    path = tmp_path / "p.pt2"
    with pytest.raises(ModelError, match="compressed members"):
        programs.load(pack(path, found, zipfile.ZIP_DEFLATED))
    with pytest.raises(ModelError, match="more than one program"):
        programs.load(pack(path, {**found, "models/other.json": found[MODEL]}))
    with pytest.raises(ModelError, match="no archive of one exported program"):
        programs.load(pack(path, {"version": b"8.8", "serialized_exported_program.json": b"{}"}))
    with pytest.raises(ModelError, match="no JSON"):
        programs.load(pack(path, {**found, MODEL: b"[" * 100_000}))
    with pytest.raises(ModelError, match="member"):
        programs.load(pack(path, {**found, WEIGHTS: {"config": {"layer.bias": {"path_name": "weight_1"}}}}))
    with pytest.raises(ModelError, match="deeper"):
        deep = json.loads('{"a":' * 300 + "1" + "}" * 300)
        programs.load(pack(path, {**found, MODEL: {**found[MODEL], "opset_version": deep}}))
    whole = saved.read_bytes()
    for length in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="is no archive"):
            programs.load(path)


def test_no_code_beside_a_program_is_imported(saved: Path, canary: Path) -> None:
    (canary.parent / "onnxscript.py").write_text(f"import os; os.mkdir({str(canary)!r})")
    shutil.copy(saved, canary.parent / "program.pt2")
    command = [sys.executable, "-P", "-c", "from onnxpress.cli import main; main()", "export", "program.pt2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in ORIGINAL_PATH if path)}
    ended = subprocess.run(
        [*command, "-o", "p.onnx"], cwd=canary.parent, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert not canary.exists()
