from collections.abc import Callable
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
