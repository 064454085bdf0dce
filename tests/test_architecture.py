"""The layering, held by tests: who may import whom, and that every plug-in folder is covered."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "onnxpress": ROOT / "pipeline" / "onnxpress",
    "onnxpress_models": ROOT / "models" / "onnxpress_models",
    "onnxpress_calibration": ROOT / "calibration" / "onnxpress_calibration",
}
DISTILLATION = PACKAGES["onnxpress"] / "distillation"
LIGHT = ("__init__.py", "options.py")
FILES = [(package, file) for package, folder in PACKAGES.items() for file in sorted(folder.rglob("*.py"))]

TORCH_SIDE = {file for _, file in FILES if DISTILLATION in file.parents} - {DISTILLATION / name for name in LIGHT}
"""Modules that are PyTorch code through and through: they import it at the top, and nobody imports them there."""
TORCH_MODULES = {
    ".".join(file.relative_to(PACKAGES["onnxpress"].parent).with_suffix("").parts).removesuffix(".__init__")
    for file in TORCH_SIDE
}


def top_level_modules(file: Path) -> Iterator[str]:
    """Yield the full name of every module (and name in it) that a file imports at the top."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(file: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Yield the first word of every module a file imports."""
    tree = ast.parse(file.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in tree.body if top_level_only else ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize(("package", "file"), FILES, ids=[str(file.relative_to(ROOT)) for _, file in FILES])
def test_leaves_import_no_other_package_and_nobody_imports_torch_or_onnxruntime_at_import_time(
    package: str, file: Path
) -> None:
    ours = set(imported(file)) & PACKAGES.keys()
    assert package == "onnxpress" or ours <= {package}
    allowed = {"torch"} if file in TORCH_SIDE else set()
    assert not {"torch", "onnxruntime", "sklearn"} & set(imported(file, top_level_only=True)) - allowed


def test_only_distillation_imports_its_torch_side() -> None:
    outside = [file for _, file in FILES if file not in TORCH_SIDE]
    guilty = [file.name for file in outside if TORCH_MODULES & set(top_level_modules(file))]
    assert TORCH_SIDE
    assert guilty == []


def test_only_session_creates_onnxruntime_sessions() -> None:
    makers = [file.name for _, file in FILES if "InferenceSession(" in file.read_text()]
    assert makers == ["session.py"]


def test_outputs_leave_through_one_door() -> None:
    """Files are written by `files`, or into a folder that it gave: by what turns a value into a file of its form."""
    forms = {"artifact.py", "files.py", "inputs.py", "process.py", "profile.py", "programs.py", "result.py"}
    locks_and_scratch = {"rounding.py", "runner.py", "scratch.py"}
    writes = re.compile(r"\.write_(text|bytes)\(|open\([^)]*\"[wax]b?\+?\"|mkdtemp|TemporaryDirectory|NamedTemporary")
    writers = {
        file.name for package, file in FILES if package != "onnxpress_models" and writes.search(file.read_text())
    }
    assert writers - forms - locks_and_scratch == set()


def test_no_option_dicts() -> None:
    users = [
        f"{file.name}: {node.name}"
        for _, file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None and file.parent.name != "cli"
    ]
    assert users == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_from_an_empty_folder_without_shadowing_the_users(package: str, tmp_path: Path) -> None:
    for name in ("models", "pipeline", "calibration"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"MINE = {name!r}\n")
    code = f"import {package}, models, pipeline, calibration; print(models.MINE, pipeline.MINE, calibration.MINE)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["models", "pipeline", "calibration"]
