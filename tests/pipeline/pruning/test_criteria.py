"""The contract of every criterion, and what each one computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.pruning import criteria, gradients
from onnxpress.pruning.evidence import Evidence, collect
from onnxpress.pruning.groups import analyze
from onnxpress.pruning.weights import Weight, weights_of
from onnxpress_calibration.dataset import Dataset

Build = Callable[..., ir.Model]
NET = """
net (float[N,3,6,6] x, float[8,3,3,3] aw, float[8] ab, float[8,1,3,3] dw, float[4,8,1,1] bw) => (float[N,4,4,4] y) {
  a = Conv <pads = [1,1,1,1]> (x, aw, ab)
  r = Relu (a)
  d = Conv <group = 8> (r, dw)
  y = Conv (d, bw)
}
"""
DENSE = """
net (float[N,5] x, float[5,6] aw, float[6,4] bw) => (float[N,4] y) {
  a = Gemm (x, aw)
  r = Tanh (a)
  y = MatMul (r, bw)
}
"""


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((64, *shape)).astype(np.float32)


def data(x: np.ndarray) -> Dataset:
    return Dataset(origin="test", read=lambda: [{"x": x}])


def named(model: ir.Model, name: str) -> Weight:
    return next(weight for node in model.graph for weight in weights_of(node) if weight.value.name == name)


def hidden_and_wanted(model: ir.Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what enters and leaves bw, in double precision."""
    arrays = {name: value.const_value.numpy().astype(np.float64) for name, value in model.graph.initializers.items()}
    hidden = np.tanh(x @ arrays["aw"])
    return hidden, hidden @ arrays["bw"]


def unexplained(wanted: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return the mean square that least squares leaves of each column."""
    basis = np.hstack([by, np.ones((len(by), 1))])
    return np.mean((wanted - basis @ np.linalg.lstsq(basis, wanted, rcond=None)[0]) ** 2, axis=0)


@pytest.mark.parametrize("name", criteria.names())
@pytest.mark.parametrize("observed", [False, True])
def test_contract(build: Build, name: str, observed: bool) -> None:
    model = build(NET)
    evidence = collect(model, data(samples(3, 6, 6))) if observed else Evidence()
    for node in model.graph:
        for weight in weights_of(node):
            before = weight.rows().copy()
            scores = criteria.score(name, weight, evidence)
            assert scores.shape == before.shape
            assert scores.dtype == np.float64
            assert np.isfinite(scores).all() and (scores >= 0).all()
            assert np.array_equal(scores, criteria.score(name, weight, evidence))
            assert np.array_equal(weight.rows(), before)
    (group,) = analyze(model).prunable
    importance = criteria.importance(name, group, evidence)
    assert importance.shape == (8,)
    assert np.isfinite(importance).all() and (importance >= 0).all()


def test_norms_are_those_of_the_weights(build: Build) -> None:
    weight = named(build(DENSE), "bw")
    array = weight.rows().astype(np.float64)
    assert np.array_equal(criteria.score("l1", weight, Evidence()), np.abs(array))
    assert np.array_equal(criteria.score("l2", weight, Evidence()), array**2)


def test_random_depends_on_the_weights_only(build: Build) -> None:
    model = build(DENSE)
    weight = named(model, "bw")
    before = criteria.score("random", weight, Evidence())
    assert np.array_equal(before, criteria.score("random", weight, collect(model, data(samples(5)))))
    weight.store(weight.rows() + 1)
    assert not np.array_equal(before, criteria.score("random", weight, Evidence()))


def test_activation_and_wanda_look_at_the_inputs(build: Build) -> None:
    model, x = build(DENSE), samples(5)
    weight, evidence = named(model, "bw"), collect(model, data(x))
    energy = np.mean(hidden_and_wanted(model, x)[0] ** 2, axis=0)
    assert np.allclose(criteria.score("activation", weight, evidence), energy[None].repeat(4, 0), rtol=1e-5)
    expected = np.abs(weight.rows()) * np.sqrt(energy)
    assert np.allclose(criteria.score("wanda", weight, evidence), expected, rtol=1e-5)


def test_taylor_is_the_squared_derivative_of_the_outputs(build: Build) -> None:
    pytest.importorskip("torch")
    model, x = build(DENSE), samples(5)
    weight = named(model, "bw")
    evidence = Evidence(derivatives=gradients.squared(model, data(x)))
    hidden, wanted = hidden_and_wanted(model, x)
    scale = 1 / np.sqrt(np.mean(wanted**2, axis=1))[:, None]  # a weight moves one output only: signs do not mix
    derivative = np.mean((hidden * scale) ** 2, axis=0)
    assert np.allclose(criteria.score("taylor", weight, evidence), weight.rows() ** 2 * derivative, rtol=1e-4)


def test_a_depthwise_weight_is_scored_by_its_own_channel(build: Build) -> None:
    model = build(NET)
    model.graph.initializers["aw"].const_value = ir.tensor(np.zeros((8, 3, 3, 3), np.float32), name="aw")
    model.graph.initializers["ab"].const_value = ir.tensor(np.arange(8, dtype=np.float32), name="ab")
    evidence = collect(model, data(samples(3, 6, 6)))
    expected = np.broadcast_to(np.arange(8.0).reshape(8, 1, 1, 1) ** 2, (8, 1, 3, 3))
    assert np.allclose(criteria.score("activation", named(model, "dw"), evidence), expected)


def test_reconstruction_of_single_weights_is_the_error_that_least_squares_leaves(build: Build) -> None:
    model, x = build(DENSE), samples(5)
    weight = named(model, "bw")
    scores = criteria.score("reconstruction", weight, collect(model, data(x)))
    hidden, wanted = hidden_and_wanted(model, x)
    for feature in range(6):
        left = unexplained(wanted, np.delete(hidden, feature, 1))
        assert np.allclose(scores[:, feature], left, rtol=0.1)  # a variance is damped by a thousandth of the mean one


def test_reconstruction_takes_a_channel_that_another_one_can_replace(build: Build) -> None:
    model = build(DENSE)
    for name, axis, scale in (("aw", 1, 1), ("bw", 0, 10)):
        array = np.moveaxis(model.graph.initializers[name].const_value.numpy().copy(), axis, 0)
        array[4] = array[1]
        array[[1, 4]] *= scale  # large, and still free to lose one of
        twins = np.ascontiguousarray(np.moveaxis(array, 0, axis))
        model.graph.initializers[name].const_value = ir.tensor(twins, name=name)
    (group,) = analyze(model).prunable
    lost = criteria.importance("reconstruction", group, collect(model, data(samples(5))))
    assert int(np.argmin(lost)) in (1, 4)
    assert lost.min() < 1e-3 < 0.5 < lost[[1, 4]].max(), "the first costs nothing, both cost most"
    assert int(np.argmin(criteria.importance("l2", group, Evidence()))) not in (1, 4)


def test_reconstruction_adds_up_to_the_error_of_all_that_is_gone(build: Build) -> None:
    model, x = build(DENSE), samples(5)
    (group,) = analyze(model).prunable
    lost = criteria.importance("reconstruction", group, collect(model, data(x)))
    hidden, wanted = hidden_and_wanted(model, x)
    left = unexplained(wanted, hidden[:, np.argsort(-lost)[:3]])
    assert np.sort(lost)[:3].sum() == pytest.approx(left.sum() / wanted.var(axis=0).sum(), rel=0.1)
