"""What is minimized: how far the student's outputs and inner tensors are from the teacher's.

* ``kl``: KL(softmax(teacher / T) ‖ softmax(student / T)), Hinton et al. 2015 (arXiv:1503.02531);
* ``mse``: squared error;
* ``cosine``: one minus the cosine of the angle of the last axis, for embeddings;
* inner tensors: as ``mse``, their mean.

``kl`` and ``mse`` are relative to what the best constant answer would lose (the teacher's mean): 0 is the teacher, 1
has learned nothing, and no tensor outweighs the others because its numbers are larger.

Every term is a mean over samples: batches split among processes have the same loss as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    spreads: Mapping[str, float]
    """What the best constant answer would lose, by teacher's tensor."""
    temperature: float
    features_weight: float
    labels_weight: float

    def __call__(self, student: Tensors, teacher: Tensors, labels: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            student: Its tensors by name.
            teacher: Likewise.
            labels: Of the samples, where they are used.
            mask: [samples, positions], 0 at padding: what tensors hold there means nothing, and has no gradient.

        Raises:
            ModelError: the two give different shapes.
        """
        if mask is not None and mask.ndim == 2:
            student, teacher = _without_padding(student, mask > 0), _without_padding(teacher, mask > 0)
        total = torch.zeros((), device=next(iter(student.values())).device)
        for name, (other, kind) in self.outputs.items():
            given, wanted = student[name], teacher[other]
            if given.shape != wanted.shape:
                raise ModelError(
                    f"output {name!r}: the student gives {list(given.shape)}, the teacher {list(wanted.shape)}. "
                    "Distillation needs models with equal outputs."
                )
            total = total + self._compare(kind, given, wanted, name in self.probabilities, self.spreads[other])
        if self.features:
            terms = [F.mse_loss(student[name], teacher[name]) / self.spreads[name] for name in self.features]
            total = total + self.features_weight * torch.stack(terms).mean()
        if labels is not None and self.labels_weight:
            name = next(iter(self.outputs))
            logits = _logits(student[name], name in self.probabilities)
            total = total + self.labels_weight * F.cross_entropy(logits, labels)
        return total

    def _compare(self, kind: str, given: Tensor, wanted: Tensor, probabilities: bool, spread: float) -> Tensor:
        if kind == "kl":
            mine, right = (_soft(each, self.temperature, probabilities=probabilities) for each in (given, wanted))
            rows = given.numel() / given.shape[-1]
            return F.kl_div(mine, right, log_target=True, reduction="sum") / (rows * spread)
        if kind == "cosine":
            return 1 - F.cosine_similarity(given, wanted, dim=-1).mean()
        return F.mse_loss(given, wanted) / spread


def spread(tensors: Sequence[Tensor]) -> float:
    """Return the variance of all elements, never quite zero: what a constant loses by squared error."""
    return max(float(torch.cat([each.reshape(-1) for each in tensors]).double().var(correction=0)), TINY)


def information(outputs: Sequence[Tensor], temperature: float, *, probabilities: bool) -> float:
    """Return the mean divergence of rows of classes from their mean, never quite zero: what a constant loses by kl."""
    rows = torch.cat([each.reshape(-1, each.shape[-1]) for each in outputs]).double()
    soft = _soft(rows, temperature, probabilities=probabilities)
    mean = soft.exp().mean(dim=0, keepdim=True).log()
    return max(float(F.kl_div(mean.expand_as(soft), soft, log_target=True, reduction="batchmean")), TINY)


def _without_padding(tensors: Tensors, kept: Tensor) -> dict[str, Tensor]:
    """Return tensors with zeros at padding, which leaves every term a mean over samples."""
    return {
        name: value.masked_fill(~kept.reshape(*kept.shape, *[1] * (value.ndim - 2)), 0)
        if value.shape[:2] == kept.shape
        else value
        for name, value in tensors.items()
    }


def _soft(output: Tensor, temperature: float, *, probabilities: bool) -> Tensor:
    return F.log_softmax(_logits(output, probabilities) / temperature, dim=-1)


def _logits(output: Tensor, probabilities: bool) -> Tensor:
    return torch.log(output.clamp_min(TINY)) if probabilities else output
