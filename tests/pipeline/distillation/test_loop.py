"""The loop: which weights are kept, and what judges them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onnxpress.distillation.loop import Training
from onnxpress.distillation.objective import Objective
from onnxpress.distillation.options import DistillOptions
from onnxpress.distillation.processes import Processes
from onnxpress.distillation.samples import Samples


class Factor(nn.Module):
    """y = w x"""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.w * feeds["x"]}


def training(held: int = 4, *, batch_size: int = 64) -> Training:
    values = np.random.default_rng(0).normal(size=(held, 3)).astype(np.float32)
    return Training(
        Factor(),
        lambda feeds: {"y": feeds["x"]},
        Objective(
            outputs={"y": ("y", "mse")},
            probabilities=frozenset(),
            features=(),
            spreads={"y": 1.0},
            temperature=1.0,
            features_weight=0.0,
            labels_weight=0.0,
        ),
        Samples(groups=({"x": values},)),
        Samples(groups=({"x": values},)),
        (),
        DistillOptions(batch_size=batch_size, augment=("none",)),
        Processes(rank=0, world=1, device=torch.device("cpu")),
    )


@pytest.mark.parametrize(
    ("losses", "kept", "stale"),
    [
        ([[2, 2, 2, 2], [1, 1, 1, 1]], 1, 0),
        ([[2, 2, 2, 2], [1.0, 1.1, 0.9, 1.0], [1.2, 1.0, 1.1, 0.9]], 2, 1),  # worse by chance: the last
        ([[2, 2, 2, 2], [1.0, 1.1, 0.9, 1.0], [1.2, 1.3, 1.1, 1.2]], 1, 1),  # each sample says so: the lowest
        ([[1, 2, 1, 2], [2, 1, 2, 1.1], [1, 2, 1, 2.1]], 0, 2),  # no better than the start
        ([[2, 2, 2, 2], [1, 1, 1, 1], [1.1, 1, 0.95, 1], [1.5, 1.5, 1.5, 1.5], [1, 1.1, 0.95, 1]], 4, 3),
        ([[2], [1], [1.01]], 1, 1),  # one sample says nothing of chance
    ],
)
def test_of_weights_that_judge_alike_the_last_are_kept(
    monkeypatch: pytest.MonkeyPatch, losses: list[list[float]], kept: int, stale: int
) -> None:
    loop = training(len(losses[0]))
    script = iter(losses)
    monkeypatch.setattr(loop, "_held_out_losses", lambda: [float(loss) for loss in next(script)])
    for index in range(len(losses)):
        with torch.no_grad():
            loop.student.w.fill_(index)
        loop._judge([])
    assert (loop.done.kept, loop.done.stale) == (kept, stale)
    assert float(loop.done.kept_weights["w"]) == kept
    assert [held_out for _, _, held_out in loop.done.history] == pytest.approx([np.mean(each) for each in losses])


@pytest.mark.parametrize("batch_size", [3, 64])
def test_each_held_out_sample_has_its_own_loss(batch_size: int) -> None:
    loop = training(7, batch_size=batch_size)
    found = loop._held_out_losses()
    (group,) = loop.held.groups
    assert found == pytest.approx(np.square(group["x"]).mean(axis=1), rel=1e-6)


def test_without_held_out_samples_the_last_weights_stay() -> None:
    loop = training(0)
    loop._judge([])
    loop._judge([1.0])
    assert loop.done.kept_weights == {} and len(loop.done.history) == 2
