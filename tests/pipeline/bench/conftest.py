import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a model from its ONNX text; ``name`` and ``opset`` have defaults."""

    def to(graph: str, name: str = "model.onnx") -> Path:
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {graph}')
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return to


@pytest.fixture
def a_process_of_its_own() -> Iterator[None]:
    """A runner has its process for itself; here it is the one that runs the tests, and stays as it was."""
    cpus = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cpus)
    gc.enable()
    gc.unfreeze()
