"""What a result was made from: hashes of sources and code, versions of libraries."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from functools import cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

import onnxpress
import onnxpress_models
from onnxpress import artifact
from onnxpress.errors import UsageError, did_you_mean
from onnxpress.files import hash_files

LIBRARIES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "torch")


def source_sha256(source: str, weights: str | None) -> str:
    """Hash what an export depends on: the model or weights file, and the Python files beside the factory.

    Raises:
        UsageError: there is no such reference model, module or file.
    """
    files = [Path(weights)] if weights else []
    where, _, name = source.rpartition(":")
    if where == "zoo":
        if name not in onnxpress_models.names():
            names = onnxpress_models.names()
            raise UsageError(f"model {source}: no such reference model.{did_you_mean(name, names)}")
        files += [Path(str(onnxpress_models.model(name).__file__)), onnxpress_models.weights_file(name)]
    elif where.endswith(".py"):
        files += sorted({Path(where), *Path(where).parent.glob("*.py")})
    elif where and not Path(source).exists():
        spec = PathFinder.find_spec(where.partition(".")[0], [str(Path.cwd()), *sys.path])
        if spec is None:
            raise UsageError(
                f"model {source}: no module named {where!r}. Run from the folder that holds it, or give "
                "file.py:function."
            )
        if spec.origin:
            files += sorted(Path(spec.origin).parent.rglob("*.py"))
    elif Path(source).suffix == ".onnx":
        return artifact.read(Path(source)).sha256 + source
    else:
        files.append(Path(source))
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UsageError(f"model {source}: there is no file {missing[0]}. Check the path.")
    return hash_files(files) if files else hashlib.sha256(source.encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"onnxpress": onnxpress.__version__}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def code_sha256() -> str:
    """Hash the code of the three packages, so that no stored step outlives the code that made it."""
    digest = hashlib.sha256()
    for package in ("onnxpress", "onnxpress_calibration"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None  # noqa: S101 - installed together
        for file in sorted(Path(spec.origin).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
