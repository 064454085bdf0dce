import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxpress_models
from onnxpress.errors import ModelError, UsageError
from onnxpress.export import ExportOptions
from onnxpress.export.export import export
from onnxpress.export.prepare import prepare
from onnxpress.session import open_session

torch = pytest.importorskip("torch")

Ops = Callable[[ir.Model], dict[str, int]]

NETS = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, image):
        return self.head(torch.relu(self.norm(self.conv(image))).mean(dim=(2, 3)))

class Steps(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 4)

    def forward(self, ids, mask):
        vectors = self.table(ids) * mask.unsqueeze(-1)
        return {"sum": vectors.sum(1), "all": vectors}

class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.ones(3, 4))

    def forward(self, x):
        return x + self.offset

class Eigen(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x @ x.T).abs()

class Broken(nn.Module):
    def forward(self, x):
        return x @ torch.ones(7, 3)

class Two(nn.Module):
    def forward(self, x):
        return x.reshape(2, 4) if x.shape[0] == 2 else x * x.shape[0]

def fails():
    raise KeyError("no such net")

def not_a_model():
    return {}

def with_examples():
    net = Steps()
    net.example_inputs = {"ids": torch.tensor([[7, 12, 3]]), "mask": torch.ones(1, 3)}
    return net
"""


def line(code: str) -> int:
    """The number of the line of NETS that holds this code."""
    return next(number for number, text in enumerate(NETS.lstrip("\n").splitlines(), start=1) if code in text)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "nets.py").write_text(NETS.lstrip("\n"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("nets", None)


def options(*inputs: str, **others: object) -> ExportOptions:
    return ExportOptions.model_validate({"inputs": inputs, **others})


def shapes(values: list[ir.Value]) -> dict[str | None, list[int | str | None]]:
    return {
        value.name: [axis if isinstance(axis, int) else axis.value for axis in value.shape or ()] for value in values
    }


def test_a_factory_in_a_file(nets: Path, ops: Ops) -> None:
    exported = export("nets.py:Small", options("image:float32:batchx1xheight=9x8"))
    assert ops(exported.model) == {"Conv": 1, "Relu": 1, "ReduceMean": 1, "Gemm": 1}
    assert shapes(exported.model.graph.inputs) == {"image": ["batch", 1, "height", 8]}
    assert shapes(exported.model.graph.outputs) == {"output": ["batch", 2]}
    assert exported.model.opset_imports[""] == 21
    assert prepare(exported.model).changed == ()
    check = exported.verification
    assert check is not None
    assert [shape["image"] for shape in check.shapes] == [(n, 1, 9, 8) for n in (1, 2, 7)] + [
        (3, 1, 18, 8),
        (3, 1, 10, 8),
    ]
    assert check.max_abs_error < 1e-5
    again = export("nets.py:Small", options("image:float32:batchx1xheight=9x8", verify=False))
    assert again.verification is None
    first, second = (ir.to_proto(each.model).SerializeToString(deterministic=True) for each in (exported, again))
    assert first == second
    assert str(nets).encode() not in first, "no path of this machine"


@pytest.mark.usefixtures("nets")
def test_a_module_several_inputs_and_outputs_by_name() -> None:
    exported = export("nets:Steps", options("mask:float32:batchxlength", "ids:int64:batchxlength"))
    assert shapes(exported.model.graph.inputs) == {"ids": ["batch", "length"], "mask": ["batch", "length"]}
    assert shapes(exported.model.graph.outputs) == {"sum": ["batch", 4], "all": ["batch", "length", 4]}
    assert exported.verification is not None
    assert {shape["ids"] for shape in exported.verification.shapes} == {(1, 16), (2, 16), (7, 16), (3, 32), (3, 17)}


@pytest.mark.usefixtures("nets")
def test_inputs_from_examples() -> None:
    exported = export("nets:with_examples")
    assert shapes(exported.model.graph.inputs) == {"ids": ["batch", 3], "mask": ["batch", 3]}


def test_a_scalar_input(nets: Path) -> None:
    (nets / "scaled.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x, factor): return x * factor\n"
    )
    exported = export("scaled.py:Net", options("x:float32:batchx3", "factor:float32:"))
    assert shapes(exported.model.graph.inputs) == {"x": ["batch", 3], "factor": []}


@pytest.mark.usefixtures("nets")
def test_names_that_forward_does_not_have() -> None:
    exported = export("nets:Small", options("pixels:float32:Nx1x8x8"))
    assert shapes(exported.model.graph.inputs) == {"pixels": ["N", 1, 8, 8]}


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("opset", [18, 23])
def test_another_opset(opset: int) -> None:
    assert export("nets:Small", options("image:float32:batchx1x8x8", opset=opset)).model.opset_imports[""] == opset


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(
    ("name", "code", "account"),
    [
        ("Branch", "x.sum() > 0", r"cannot export it: the code decides by the values of a tensor at nets\.py:{line} "),
        ("Fixed", "", r"cannot export it: the model fixes the dynamic axis 'batch' \(axis 0 of 'x'\) at 3"),
        ("Eigen", "eigvals", r"cannot export it: operator aten\.linalg_eig at nets\.py:{line} has no ONNX counterpart"),
        ("Broken", "torch.ones(7", r"does not run on random inputs x:float32:batchx4 at nets\.py:{line}: RuntimeError"),
        ("Two", "", r"output 'output' at x=2x4 \(axis batch = 2\) differs"),
        ("fails", "KeyError", r"the factory fails at nets\.py:{line}: KeyError: 'no such net'"),
    ],
)
def test_what_cannot_be_exported(name: str, code: str, account: str) -> None:
    with pytest.raises(ModelError, match=account.replace("{line}", str(line(code)))) as raised:
        export(f"nets.py:{name}", options("x:float32:batchx4"))
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("nets")
def test_a_difference_stops_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the exporter had lost the bias of the last layer."""
    from onnxpress.export import export as module

    def wrong(model: ir.Model, opset: int | None) -> object:
        edit = prepare(model, opset=opset)
        bias = edit.model.graph.initializers["head.bias"]
        bias.const_value = ir.tensor(np.zeros(2, np.float32), name="head.bias")
        return edit

    monkeypatch.setattr(module, "prepare", wrong)
    with pytest.raises(ModelError, match=r"output 'output' at image=1x1x8x8 \(axis batch = 1\) differs by 0\."):
        export("nets:Small", options("image:float32:batchx1x8x8"))
    assert export("nets:Small", options("image:float32:batchx1x8x8", atol=10)).verification is not None


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nets.py:Small", r"nothing says what its inputs are\. Describe each input with --input NAME:DTYPE:SHAPE"),
        ("nets.py:not_a_model", "returns dict, not a torch.nn.Module"),
        ("nets.py:nothing", r"nets\.py has no function 'nothing'"),
        ("other.py:Small", "no such file other.py"),
        ("nothing:Small", "no module named 'nothing'"),
        ("zoo:digits_cn", "no such reference model. Did you mean 'digits_cnn'?"),
        ("missing.pt2", "no such file"),
        ("weights.pt", "holds weights only. Give the code of the model, and --weights weights.pt"),
        ("nets", "is none of zoo:NAME, module:factory, file.py:factory, program.pt2 and model.onnx"),
    ],
)
def test_sources_that_are_none(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export(source)


@pytest.fixture
def program(nets: Path) -> Path:
    from onnxpress.quiet import quiet

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    with quiet():
        exported = torch.export.export(module, (torch.ones(2, 4),), dynamic_shapes=({0: torch.export.Dim("rows")},))
        torch.export.save(exported, nets / "program.pt2")
    return nets / "program.pt2"


def test_an_exported_program(program: Path, ops: Ops) -> None:
    exported = export(str(program))
    assert shapes(exported.model.graph.inputs) == {"input": ["batch", 4]}
    assert ops(exported.model) == {"Gemm": 1, "Relu": 1}
    assert exported.verification is not None
    named = export(str(program), options("input:float32:rowsx4"))
    assert shapes(named.model.graph.inputs) == {"input": ["rows", 4]}


def test_what_does_not_go_with_a_program(program: Path) -> None:
    with pytest.raises(UsageError, match="which are input:float32:batchx4"):
        export(str(program), options("other:float32:rowsx4"))
    with pytest.raises(UsageError, match="holds its own"):
        export(str(program), options(weights="w.safetensors"))
    program.write_bytes(b"no zip file")
    with pytest.raises(ModelError, match="is no archive, or truncated"):
        export(str(program))


@pytest.mark.parametrize("name", onnxpress_models.names())
@pytest.mark.slow
def test_reference_models(name: str) -> None:
    exported = export(f"zoo:{name}")
    described = onnxpress_models.model(name)
    assert [value.name for value in exported.model.graph.inputs] == list(described.INPUTS)
    assert [value.name for value in exported.model.graph.outputs] == list(described.OUTPUTS)
    assert exported.verification is not None
    assert exported.verification.max_rel_error < 1e-5
    assert open_session(exported.model).get_inputs()[0].shape[0] == "batch"


@pytest.mark.slow
def test_the_users_own_packages_win_and_nothing_is_printed(tmp_path: Path) -> None:
    """Their packages are named models and pipeline, and import each other only when they are called."""
    for package in ("models", "pipeline"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "pipeline" / "sizes.py").write_text("WIDTH = 3\n")
    (tmp_path / "models" / "net.py").write_text(
        textwrap.dedent(
            """
            import torch

            class Net(torch.nn.Module):
                example_inputs = {"x": torch.ones(2, 4)}
                def __init__(self, width):
                    super().__init__()
                    self.layer = torch.nn.LSTM(4, width, batch_first=True)
                def forward(self, x):
                    from pipeline import sizes
                    assert sizes.WIDTH == 3
                    return self.layer(x.unsqueeze(1))[0].squeeze(1)

            def build():
                from pipeline.sizes import WIDTH
                return Net(WIDTH)
            """
        )
    )
    code = (
        "from onnxpress.export.export import export; import json, sys; "
        "made = export('models.net:build'); "
        "json.dump([value.name for value in made.model.graph.inputs], open('out.json', 'w'))"
    )
    # As the installed command runs: the current folder is not on the path, the packages are.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((tmp_path / "out.json").read_text()) == ["x"]
