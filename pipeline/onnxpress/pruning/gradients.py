"""How much each weight moves the model's outputs: squared derivatives, from unlabelled samples.

For outputs ``f`` and a random vector ``r`` of signs, the expectation of ``(∂(rᵀf)/∂w)²`` is ``Σ_i (∂f_i/∂w)²``: the
diagonal of the Gauss-Newton matrix of the squared error against the model's own outputs (M. F. Hutchinson, 1989). The
error itself has no gradient there, since the model agrees with itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.evaluation.fidelity import MASK
from onnxpress.graph import Array
from onnxpress.progress import Stage, unshown
from onnxpress.pruning.weights import weights_of
from onnxpress_calibration.dataset import LABELS, Dataset

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 64


def squared(model: ir.Model, data: Dataset, stage: Stage = unshown) -> Mapping[ir.Value, Array]:
    """Return the mean squared derivative of each weight, by weight, in the weight's own form.

    Args:
        model: A float model whose operators `distillation.interpreter` knows.
        data: `SAMPLES` of it are used, one at a time.
        stage: Shows how many are done.

    Raises:
        ModelError: PyTorch cannot run an operator of the model; the message names it.

    """
    import torch

    from onnxpress.distillation.interpreter import Interpreter

    run, random = Interpreter(model), torch.Generator().manual_seed(0)
    parameters = run.weights
    sums = {name: np.zeros(tuple(weight.shape)) for name, weight in parameters.items()}
    count, specs = 0, graph.input_specs(model)
    with stage("see how weights move the outputs", SAMPLES) as advance:
        for sample in data.drawn(specs, SAMPLES).batches(specs, 1):
            run.zero_grad()
            outputs = run({name: torch.tensor(value) for name, value in sample.items() if name != LABELS})
            real = [_told(value, sample.get(MASK)) for value in outputs.values() if value.is_floating_point()]
            for value in real:
                sign = torch.randint(0, 2, value.shape, generator=random) * 2 - 1
                size = value.detach().square().mean().sqrt().clamp(min=1e-12)  # outputs of any scale count alike
                torch.autograd.backward((value * sign).sum() / size, retain_graph=True)
            for name, weight in parameters.items():
                if weight.grad is not None:
                    sums[name] += weight.grad.numpy().astype(np.float64) ** 2
            count += 1
            advance(1)
    values = {weight.value for node in model.graph for weight in weights_of(node)}
    return {value: sums[str(value.name)] / count for value in values if value.name in sums}


def _told(output: Tensor, mask: Array | None) -> Tensor:
    """Leave out what an output holds at padding, where the mask [samples, positions] is 0."""
    return output[mask > 0] if mask is not None and tuple(output.shape[: mask.ndim]) == mask.shape else output
