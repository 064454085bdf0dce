"""Importances scaled to what the outputs lose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import session
from onnxpress.artifact import Edit
from onnxpress.errors import UsageError
from onnxpress.pruning import PruneOptions, allocation, prune, sensitivity, surgery
from onnxpress.pruning.evidence import Evidence
from onnxpress.pruning.groups import analyze
from onnxpress.pruning.sensitivity import measured
from onnxpress_calibration.dataset import Dataset

Build = Callable[..., ir.Model]
NET = """
net (float[N,5] x, float[5,6] aw, float[5,8] bw, float[6,3] cw, float[8,3] dw) => (float[N,3] y) {
  a = Gemm (x, aw)
  b = Gemm (x, bw)
  at = Tanh (a)
  bt = Tanh (b)
  c = Gemm (at, cw)
  d = Gemm (bt, dw)
  y = Add (c, d)
}
"""
X = np.random.default_rng(1).standard_normal((32, 5)).astype(np.float32)


def data() -> Dataset:
    return Dataset(origin="test", read=lambda: [{"x": X}])


def test_the_half_that_goes_adds_up_to_the_error_of_the_outputs(build: Build) -> None:
    model = build(NET)
    groups = analyze(model).prunable
    importances = {group: np.arange(1.0, group.size + 1) for group in groups}
    scaled = measured(model, groups, importances, PruneOptions(amount=0.5, round_to=1), Evidence(), data())
    whole = session.run(session.open_session(model), {"x": X})["y"]
    for group in groups:
        keep = allocation.best(importances[group], group.size // 2)
        cut = session.run(session.open_session(surgery.masked(model, {group: keep})), {"x": X})["y"]
        error = np.mean((cut - whole) ** 2) / whole.var()
        assert scaled[group][~keep].sum() == pytest.approx(error, rel=1e-4)
        assert np.allclose(scaled[group] / scaled[group][0], importances[group])


def test_a_branch_that_the_outputs_hardly_hear_goes_first(build: Build) -> None:
    model = build(NET)
    weight = model.graph.initializers["cw"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(0.01), name="cw")
    edit = prune(model, PruneOptions(amount=3 / 14, round_to=1, allocation="sensitivity"), data())
    assert edit.model.graph.initializers["cw"].shape == (3, 3)
    assert edit.model.graph.initializers["dw"].shape == (8, 3)


def test_it_needs_data(build: Build) -> None:
    with pytest.raises(UsageError, match="allocation sensitivity needs calibration data"):
        prune(build(NET), PruneOptions(amount=0.5, allocation="sensitivity"))


def test_auto_keeps_the_allocation_that_brings_the_outputs_closer(build: Build) -> None:
    model = build(NET)
    weight = model.graph.initializers["cw"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(0.01), name="cw")
    options: dict[str, Any] = {"target": {"macs": 0.6}, "repair": True, "round_to": 1}
    expected = session.run(session.open_session(model), {"x": X})["y"]

    def error(edit: Edit) -> float:
        return float(np.mean((session.run(session.open_session(edit.model), {"x": X})["y"] - expected) ** 2))

    edits = {how: prune(model, PruneOptions(**options, allocation=how), data()) for how in ("global", "sensitivity")}
    auto = prune(model, PruneOptions(**options), data())
    assert error(edits["sensitivity"]) < 0.9 * error(edits["global"])
    assert error(auto) == error(edits["sensitivity"])
    assert (auto.facts["method"], auto.facts["allocation"]) == ("reconstruction", "sensitivity")


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ({2: 3.0}, [1, 2, 3, 4]),
        ({0: 20.0}, [2, 4, 6, 8]),
        ({2: 3.0, 0: 17.0}, [1, 2, 6, 8]),  # the second half costs more
        ({2: 6.0, 0: 10.0}, [1, 2, 3, 4]),  # it costs less: who takes the first will take it, too
        ({2: 0.0, 0: 0.0}, [0, 0, 0, 0]),
    ],
)
def test_importances_add_up_to_the_errors(errors: dict[int, float], expected: list[float]) -> None:
    assert sensitivity._scaled(np.array([1.0, 2, 3, 4]), errors) == pytest.approx(np.array(expected))
