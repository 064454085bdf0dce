"""What is minimized: how far the student's outputs and inner tensors are from the teacher's.

* ``kl``: T² · KL(softmax(teacher / T) ‖ softmax(student / T)), Hinton et al. 2015 (arXiv:1503.02531);
* ``mse``: squared error, relative to the variance of the teacher's tensor, so that no tensor outweighs the others;
* ``cosine``: one minus the cosine of the angle of the last axis, for embeddings;
* inner tensors: as ``mse``, their mean.

Every term is a mean over samples: batches split among processes have the same loss as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxpress.errors import ModelError

Tensors = Mapping[str, Tensor]
TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The loss of a pair of models."""

    outputs: Mapping[str, tuple[str, str]]
    """Student's output: (teacher's output, ``kl``, ``mse`` or ``cosine``)."""
    probabilities: frozenset[str]
    """Student's outputs that are probabilities already: their logarithms are as good as logits."""
    features: tuple[str, ...]
    """Inner tensors that both models have."""
    variances: Mapping[str, float]
    """Of the teacher's tensors."""
    temperature: float
    features_weight: float
    labels_weight: float

    def __call__(self, student: Tensors, teacher: Tensors, labels: Tensor | None) -> Tensor:
        """Return the loss, a scalar.

        Raises:
            ModelError: the two give different shapes.
        """
        total = torch.zeros((), device=next(iter(student.values())).device)
        for name, (other, kind) in self.outputs.items():
            given, wanted = student[name], teacher[other]
            if given.shape != wanted.shape:
                raise ModelError(
                    f"output {name!r}: the student gives {list(given.shape)}, the teacher {list(wanted.shape)}. "
                    "Distillation needs models with equal outputs."
                )
            total = total + self._compare(kind, given, wanted, name in self.probabilities, self.variances[other])
        if self.features:
            terms = [F.mse_loss(student[name], teacher[name]) / self.variances[name] for name in self.features]
            total = total + self.features_weight * torch.stack(terms).mean()
        if labels is not None and self.labels_weight:
            name = next(iter(self.outputs))
            logits = _logits(student[name], name in self.probabilities)
            total = total + self.labels_weight * F.cross_entropy(logits, labels)
        return total

    def _compare(self, kind: str, given: Tensor, wanted: Tensor, probabilities: bool, variance: float) -> Tensor:
        if kind == "kl":
            mine = F.log_softmax(_logits(given, probabilities) / self.temperature, dim=-1)
            right = F.log_softmax(_logits(wanted, probabilities) / self.temperature, dim=-1)
            rows = given.numel() / given.shape[-1]
            return F.kl_div(mine, right, log_target=True, reduction="sum") * (self.temperature**2 / rows)
        if kind == "cosine":
            return 1 - F.cosine_similarity(given, wanted, dim=-1).mean()
        return F.mse_loss(given, wanted) / variance


def variance(tensor: Tensor) -> float:
    """Return the variance of all elements, never quite zero."""
    return max(float(tensor.double().var(correction=0)), TINY)


def _logits(output: Tensor, probabilities: bool) -> Tensor:
    return torch.log(output.clamp_min(TINY)) if probabilities else output
