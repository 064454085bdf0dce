"""Whole graphs: outputs against onnxruntime, gradients against finite differences, and what is a weight."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

import onnxpress_models
from onnxpress import artifact, graph
from onnxpress.distillation.interpreter import Interpreter
from onnxpress.errors import ModelError
from onnxpress.export.export import ExportOptions, export
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import Dataset

REAL = {
    "squeezenet": "imagenet500/squeezenet1_1_torchvision.onnx",
    "resnet56": "cifar10/resnet56.onnx",
    "kws": "audio/kws_dscnn_fp32.onnx",
    "magika": "magika/magika_standard_v3_3.onnx",
    "mnist": "mnist/mnist.onnx",
    "minilm": "text/all-MiniLM-L6-v2_fp32.onnx",
    "fastestdet": "coco64/FastestDet.onnx",
}


def random_feeds(model: ir.Model, batch: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    feeds = {}
    for name, spec in graph.input_specs(model).items():
        shape = [size or (batch if axis == 0 else 12) for axis, size in enumerate(spec.shape)]
        whole = (
            random.integers(0, 256 if name == "bytes" else 2, shape)
            if spec.dtype.kind == "i"
            else random.normal(size=shape)
        )
        feeds[name] = whole.astype(spec.dtype)
    return feeds


def check(model: ir.Model) -> Interpreter:
    """Compare every output with onnxruntime's, and see that a gradient reaches every weight."""
    feeds = random_feeds(model)
    wanted = run(open_session(model, SessionOptions(threads=1)), feeds)
    module = Interpreter(model)
    given = module({name: torch.from_numpy(value) for name, value in feeds.items()})
    assert given.keys() == wanted.keys()
    for name, each in wanted.items():
        np.testing.assert_allclose(given[name].detach().numpy(), each, atol=2e-5 * np.abs(each).max())
    sum((value.square().sum() for value in given.values()), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert [name for name, weight in module.weights.items() if weight.grad is None] == []
    return module


@pytest.mark.parametrize("name", onnxpress_models.names())
def test_reference_models(name: str) -> None:
    module = check(export(f"zoo:{name}", ExportOptions(verify=False)).edit.model)
    network = onnxpress_models.load(name)
    trained = sum(weight.numel() for weight in network.parameters())
    found = sum(weight.numel() for weight in module.parameters())
    assert 0.97 * trained < found <= 1.02 * trained  # folded BatchNorm takes some and a torch LSTM has two biases


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str, real: Path) -> None:
    check(prepare(artifact.load(real / REAL[name])).model)


@pytest.mark.real
def test_control_flow_is_refused_by_name(real: Path) -> None:
    with pytest.raises(ModelError, match="If is not supported"):
        Interpreter(prepare(artifact.load(real / "audio/silero_vad.onnx")).model)


def digits() -> ir.Model:
    return export("zoo:digits_cnn", ExportOptions(verify=False)).edit.model


def quantized(model: ir.Model) -> ir.Model:
    data = Dataset(origin="normal", read=lambda: [random_feeds(model, 8)])
    return quantize(model, QuantizeOptions(mode="static"), data).model


def test_a_quantized_model_computes_what_onnxruntime_does() -> None:
    model = quantized(digits())
    feeds = random_feeds(model, 4)
    exact = SessionOptions(threads=1, optimization="off")
    wanted = run(open_session(model, exact), feeds)["logits"]
    module = Interpreter(model)
    given = module({name: torch.from_numpy(value) for name, value in feeds.items()})["logits"]
    np.testing.assert_allclose(given.detach().numpy(), wanted, atol=1e-5 * np.abs(wanted).max())
    given.square().sum().backward()
    assert module.quantized
    assert all(parameter.grad is not None for parameter in module.quantized[0].parameters())


def test_gradients_agree_with_finite_differences() -> None:
    model = digits()
    feeds = {name: torch.from_numpy(value).double() for name, value in random_feeds(model).items()}
    module = Interpreter(model).double()
    name, weight = next(iter(module.weights.items()))

    def loss() -> torch.Tensor:
        total: torch.Tensor = module(feeds)["logits"].square().sum()
        return total

    loss().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    flat, step = weight.data.view(-1), 1e-6
    for index in weight.grad.view(-1).abs().topk(3).indices.tolist():
        flat[index] += step
        above = loss().item()
        flat[index] -= 2 * step
        slope = (above - loss().item()) / (2 * step)
        flat[index] += step
        assert weight.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4), name


def test_watched_tensors_come_with_the_outputs_and_carry_gradients() -> None:
    model = digits()
    inner = next(node.outputs[0].name for node in model.graph if node.op_type == "Relu")
    assert inner is not None
    made = Interpreter(model, watch=[inner])({n: torch.from_numpy(v) for n, v in random_feeds(model).items()})
    assert list(made) == ["logits", inner]
    (gradient,) = torch.autograd.grad(made["logits"].sum(), made[inner])
    assert gradient.shape == made[inner].shape


def test_only_what_is_wanted_is_run() -> None:
    model = digits()
    inner = next(node.outputs[0].name for node in model.graph if node.op_type == "Relu")
    module = Interpreter(model, outputs=[inner or ""])
    assert len(module.weights) == 2  # the first convolution and its bias


def test_unknown_tensors_are_refused() -> None:
    with pytest.raises(ModelError, match="tensor 'nothing': the model has none"):
        Interpreter(digits(), watch=["nothing"])


def test_a_failing_node_is_named() -> None:
    model = digits()
    with pytest.raises(ModelError, match=r"node '.*' \(Conv\): fails in PyTorch"):
        Interpreter(model)({"input": torch.zeros(1, 2, 3, 3)})


def test_only_operators_need_torch() -> None:
    code = "import sys, onnxpress.cli, onnxpress.distillation; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
