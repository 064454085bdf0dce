"""PyTorch students: trained by the loop of graphs, refused where they do not fit, and exported with their weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from onnxpress.distillation.distill import distill
from onnxpress.distillation.modules import distill_module
from onnxpress.distillation.options import DistillOptions
from onnxpress.errors import ModelError, UsageError
from onnxpress.export.export import export
from onnxpress.export.options import ExportOptions
from onnxpress_calibration.dataset import Dataset

FACTORIES = """
from torch import nn
import torch

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.only = nn.Linear(6, 4)
    def forward(self, x):
        return self.only(x), self.only(x)

def teacher():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))

def student():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 4))

def other():
    return nn.Linear(6, 3)

def two():
    return Two()

def frozen():
    return nn.ReLU()
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("factories") / "nets.py"
    path.write_text(FACTORIES)
    return path


@pytest.fixture(scope="module")
def teacher(nets: Path) -> ir.Model:
    return export(f"{nets}:teacher", ExportOptions(inputs=("x:float32:batchx6",), verify=False)).model


def samples(count: int = 200) -> Dataset:
    arrays = {"x": np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)}
    return Dataset(origin="normal", read=lambda: [arrays])


def options(**values: object) -> DistillOptions:
    return DistillOptions.model_validate({"steps": 150, "batch_size": 32, "learning_rate": 0.02} | values)


def test_a_new_smaller_network_learns_to_answer_like_its_teacher(nets: Path, teacher: ir.Model) -> None:
    module, facts = distill_module(f"{nets}:student", teacher, options(), samples())
    assert isinstance(module, nn.Module)
    assert not module.training
    assert float(facts["loss_after"]) < float(facts["loss_before"]) / 5  # type: ignore[arg-type]
    assert not torch.equal(module[1].running_mean, torch.zeros(8))  # type: ignore[index]


def test_one_seed_gives_one_result_whatever_the_random_state(nets: Path, teacher: ir.Model) -> None:
    found = []
    for seed, state in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        module, _ = distill_module(f"{nets}:student", teacher, options(steps=5, seed=seed), samples())
        assert torch.equal(torch.get_rng_state(), before)
        found.append(module.state_dict()["0.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class KilledError(Exception):
    pass


def test_dropout_and_statistics_resume_with_the_same_bits(nets: Path, teacher: ir.Model, tmp_path: Path) -> None:
    source, checkpoint = f"{nets}:student", tmp_path / "checkpoint"
    whole, _ = distill_module(source, teacher, options(steps=60), samples())
    done = 0

    def die(per_mille: int) -> None:
        nonlocal done
        done += per_mille
        if done > 500:
            raise KilledError

    with pytest.raises(KilledError):
        distill_module(source, teacher, options(steps=60), samples(), checkpoint=checkpoint, advance=die)
    resumed, _ = distill_module(source, teacher, options(steps=60), samples(), checkpoint=checkpoint, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_what_does_not_fit_is_refused(nets: Path, teacher: ir.Model) -> None:
    with pytest.raises(ModelError, match=r"the student gives \[32, 3\], the teacher \[32, 4\]|gives \[\d+, 3\]"):
        distill_module(f"{nets}:other", teacher, options(), samples())
    with pytest.raises(UsageError, match="teacher: has 1 outputs, the student 2"):
        distill_module(f"{nets}:two", teacher, options(), samples())
    with pytest.raises(ModelError, match="has no weights that can be trained"):
        distill_module(f"{nets}:frozen", teacher, options(), samples())


def test_a_graph_learns_from_a_pytorch_model(nets: Path, teacher: ir.Model) -> None:
    source = ExportOptions(inputs=("x:float32:batchx6",), verify=False)
    student = export(f"{nets}:student", source).model
    edit = distill(student, teacher, options(), samples())
    assert float(edit.facts["loss_after"]) < float(edit.facts["loss_before"]) / 5


@pytest.mark.slow
def test_command_with_reference_models(tmp_path: Path, compress: Callable[..., Any]) -> None:
    words = ["distill", "zoo:digits_cnn", "--teacher", "zoo:digits_resnet", "--data", "zoo:digits/calibration"]
    words += ["--steps", "10", "--batch-size", "16"]
    assert compress(*words, "-o", tmp_path / "w.onnx").code == 2  # a PyTorch student has weights, no graph
    ended = compress(*words, "-o", tmp_path / "w.safetensors", "--json", tmp_path / "w.json")
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "w.json").read_text())["facts"]["updates"] == 10
    made = compress("export", "zoo:digits_cnn", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "m.onnx")
    assert made.code == 0, made.err
