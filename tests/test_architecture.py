"""The layering, held by tests: who may import whom, and that every plug-in folder is covered."""

import ast
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
FILES = [(package, file) for package, folder in PACKAGES.items() for file in sorted(folder.rglob("*.py"))]


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
    assert not {"torch", "onnxruntime", "sklearn"} & set(imported(file, top_level_only=True))


def test_only_session_creates_onnxruntime_sessions() -> None:
    makers = [file.name for _, file in FILES if "InferenceSession(" in file.read_text()]
    assert makers == ["session.py"]


def test_no_option_dicts() -> None:
    users = [
        f"{file.name}: {node.name}"
        for _, file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None and file.name != "cli.py"
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
