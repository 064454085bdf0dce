"""A user's repository may have packages named like our folders: theirs win."""

import subprocess
import sys
from pathlib import Path

import pytest

from onnxpress import artifact

NET = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
"""


@pytest.mark.slow
def test_export_from_a_repository_with_its_own_models_and_pipeline_packages(tmp_path: Path) -> None:
    for package in ("models", "pipeline", "calibration"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "models" / "net.py").write_text("from pipeline.parts import width\n" + NET)
    (tmp_path / "pipeline" / "parts.py").write_text("width = 8\n")
    command = [sys.executable, "-m", "onnxpress", "export", "models.net:build", "-o", "net.onnx"]
    command += ["--input", "x:float32:batchx4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "matches PyTorch" in done.stdout
    model = artifact.load(tmp_path / "net.onnx")
    assert [str(size) for size in model.graph.inputs[0].shape or ()] == ["batch", "4"]
