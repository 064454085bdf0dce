"""What is minimized."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from onnxpress.distillation.objective import Objective  # noqa: E402


def objective(kind: str) -> Any:
    return Objective(
        outputs={"y": ("y", kind)},
        probabilities=frozenset(),
        features=("inner",),
        spreads={"y": 1.0, "inner": 1.0},
        temperature=2.0,
        features_weight=1.0,
        labels_weight=0.0,
    )


@pytest.mark.parametrize("kind", ["kl", "mse", "cosine"])
def test_what_stands_at_padding_has_no_gradient(kind: str) -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    student = {name: torch.randn(2, 3, 4, requires_grad=True) for name in ("y", "inner")}
    teacher = {name: torch.randn(2, 3, 4) for name in ("y", "inner")}
    objective(kind)(student, teacher, None, mask).backward()
    for value in student.values():
        assert not value.grad[mask == 0].any()
        assert value.grad[mask == 1].abs().amin() > 0


def test_squared_errors_count_at_real_positions_only() -> None:
    teacher = {name: torch.zeros(1, 4, 2) for name in ("y", "inner")}
    student = {name: torch.tensor([1.0, 2.0, 9.0, 9.0])[None, :, None].expand(1, 4, 2) for name in ("y", "inner")}
    loss = objective("mse")(student, teacher, None, torch.tensor([[1, 1, 0, 0]]))
    assert float(loss) == pytest.approx(2 * (1 + 4) / 4)
