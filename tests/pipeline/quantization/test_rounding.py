"""Rounding by reconstruction: against brute force, and moments against an independent formula."""

import itertools
import tracemalloc
from typing import Literal

import graphs
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress import running, session
from onnxpress.quantization import QuantizeOptions, rounding
from onnxpress.quantization.params import WeightGrid, quantize_weight
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.rounding import Reconstruction, observe, reconstruct
from onnxpress.quantization.weights import Weights
from onnxpress_calibration.dataset import Dataset


def loss(matrix: np.ndarray, steps: np.ndarray, scales: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return the squared error of each channel, with the damping that `reconstruct` adds."""
    size = squares.shape[1]
    mean = np.trace(squares, axis1=1, axis2=2) / size
    damped = squares + (rounding.DAMPING * mean)[:, None, None] * np.eye(size)
    errors = matrix - steps * scales
    total: np.ndarray = np.einsum("gic,gij,gjc->gc", errors, damped, errors)
    return total


def problem(seed: int, groups: int, features: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(groups, 3 * features, features)) @ random.normal(size=(groups, features, features))
    return random.normal(size=(groups, features, channels)), rows.transpose(0, 2, 1) @ rows / rows.shape[1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(1, 3),
    features=st.integers(1, 200),
    channels=st.integers(1, 4),
    bits=st.integers(2, 8),
)
def test_no_channel_is_worse_than_by_nearest_rounding(
    seed: int, groups: int, features: int, channels: int, bits: int
) -> None:
    matrix, squares = problem(seed, groups, features, channels)
    limit = 2 ** (bits - 1) - 1
    scales = np.abs(matrix).max(axis=1, keepdims=True) / limit
    steps = reconstruct(matrix, scales, squares, -limit, limit)
    nearest = np.rint(matrix / scales)
    assert (steps == np.rint(steps)).all() and np.abs(steps).max() <= limit
    assert (loss(matrix, steps, scales, squares) <= loss(matrix, nearest, scales, squares) * (1 + 1e-9)).all()


def test_it_is_near_the_best_of_all_roundings() -> None:
    found, best, nearest = 0.0, 0.0, 0.0
    for seed in range(20):
        matrix, squares = problem(seed, 1, 5, 1)
        scales = np.abs(matrix).max(axis=1, keepdims=True) / 3
        every = np.array(list(itertools.product(range(-3, 4), repeat=5)), float).T[None]
        best += loss(np.broadcast_to(matrix, every.shape), every, scales, squares).min()
        found += loss(matrix, reconstruct(matrix, scales, squares, -3, 3), scales, squares).sum()
        nearest += loss(matrix, np.rint(matrix / scales), scales, squares).sum()
    assert best <= found < best + 0.2 * (nearest - best)


def test_features_that_never_vary_together_are_rounded_to_nearest() -> None:
    matrix, _ = problem(0, 1, 6, 3)
    steps = reconstruct(matrix, np.full((1, 1, 3), 0.3), np.diag([3.0, 1, 2, 0, 5, 4])[None], -7, 7)
    assert (steps == np.clip(np.rint(matrix / 0.3), -7, 7)).all()


def observed(model: ir.Model, data: Dataset) -> Reconstruction:
    nodes = [node for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul")]
    return observe(model, nodes, data, centred=lambda node: False)  # noqa: ARG005


@pytest.mark.parametrize(
    ("attributes", "shape"), [("", (6, 4, 2, 2)), ("<group=2>", (6, 2, 2, 2)), ("<group=4>", (4, 1, 2, 2))]
)
def test_moments_of_a_convolution_are_those_of_its_windows(attributes: str, shape: tuple[int, ...]) -> None:
    model = graphs.build(
        f"g (float[N,4,5,5] x) => (float[N,{shape[0]},4,4] y) {{ y = Conv {attributes} (x, w) }}", {"w": shape}
    )
    (seen,) = observed(model, graphs.normal((8, 4, 5, 5))).seen.values()
    (batch,) = graphs.normal((8, 4, 5, 5)).read()
    groups = 4 // shape[1]
    for group, found in enumerate(seen.squares):
        part = batch["x"][:, group * shape[1] : (group + 1) * shape[1]].astype(np.float64)
        rows = np.stack([part[:, :, i : i + 2, j : j + 2].reshape(8, -1) for i in range(4) for j in range(4)])
        rows = rows.reshape(-1, rows.shape[-1])
        np.testing.assert_allclose(found, rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)
    assert len(seen.squares) == groups


def test_a_tied_weight_is_rounded_for_all_its_readers() -> None:
    model = graphs.build(
        "g (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }", {"w": (8, 8)}
    )
    (seen,) = observed(model, graphs.normal((16, 8))).seen.values()
    (batch,) = graphs.normal((16, 8)).read()
    x = batch["x"].astype(np.float64)
    r = np.maximum(x @ model.graph.initializers["w"].const_value.numpy(), 0)  # type: ignore[union-attr]
    np.testing.assert_allclose(seen.squares[0], (x.T @ x + r.T @ r) / 32, rtol=1e-5, atol=1e-6)


def test_a_weight_that_is_read_in_two_layouts_is_rounded_to_nearest() -> None:
    model = graphs.build(
        "g (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w) r = Relu(a) y = Gemm <transB=1> (r, w) }", {"w": (8, 8)}
    )
    assert not observed(model, graphs.normal((16, 8))).seen


def test_what_has_too_many_features_is_rounded_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "MOST_FEATURES", 20)
    found = observed(graphs.conv_chain(), graphs.normal((4, 3, 8, 8)))
    assert [each.layer.weight.name for each in found.seen.values()] == ["w3"]  # the others have 27 and 72


def test_large_moments_lie_in_files() -> None:
    model = graphs.build("g (float[N,600] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (600, 4)})
    data = graphs.normal((64, 600))
    tracemalloc.start()
    try:
        (seen,) = observed(model, data).seen.values()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(seen.moments.squares, np.memmap)
    assert held < 601 * 601 * 8
    (batch,) = data.read()
    np.testing.assert_allclose(seen.squares[0], batch["x"].T @ batch["x"] / 64, rtol=1e-4, atol=1e-4)


def test_little_memory_takes_more_passes_and_sees_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = graphs.conv_chain(), graphs.normal((8, 3, 8, 8))
    nodes = [node for node in model.graph if node.op_type in ("Conv", "Gemm")]
    opened, counted = [], []

    def opening(model: ir.Model, options: session.SessionOptions) -> object:
        opened.append([value.name for value in model.graph.outputs])
        return session.open_session(model, options)

    monkeypatch.setattr(running, "open_session", opening)
    once = observe(model, nodes, data, centred=lambda node: False)  # noqa: ARG005
    several = observe(model, nodes, data, centred=lambda node: False, memory_budget=1, advance=counted.append)  # noqa: ARG005
    assert len(opened) == 4 and sum(counted) == 8
    for one, other in zip(once.seen.values(), several.seen.values(), strict=True):
        assert one.moments.count == other.moments.count
        np.testing.assert_allclose(one.squares, other.squares, rtol=1e-5, atol=1e-7)


def test_the_order_of_the_samples_changes_no_bit() -> None:
    values = np.random.default_rng(3).normal(size=(20, 3, 8, 8)).astype(np.float32)

    def bits(x: np.ndarray) -> list[bytes]:
        edit = quantize(graphs.conv_chain(), QuantizeOptions(), Dataset(origin="d", read=lambda: [{"x": x}]))
        return [value.const_value.numpy().tobytes() for value in edit.model.graph.initializers.values()]  # type: ignore[union-attr]

    assert bits(values) == bits(values[::-1])


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("axis", [0, None])
def test_weights_keep_scales_and_limits_and_are_made_once(axis: int | None, unsigned: bool) -> None:
    model = graphs.conv_chain()
    found = observed(model, graphs.normal((8, 3, 8, 8)))
    tensor = model.graph.initializers["w2"].const_value
    assert tensor is not None
    grid = WeightGrid(bits=4, unsigned=unsigned)
    weights = Weights(rounding=found)
    integers, scale = weights.quantize(tensor, axis, grid)
    nearest, expected = quantize_weight(tensor.numpy(), axis, grid)
    assert integers.dtype == nearest.dtype and integers.shape == nearest.shape
    assert (scale == expected).all() and (integers != nearest).any()
    assert np.abs(integers.astype(int) - int(grid.zero_point)).max() <= grid.limit
    assert Weights(rounding=found).quantize(tensor, axis, grid)[0] is integers  # another search, the same memory
    floor = np.broadcast_to(scale * 2, (1,) if axis is None else scale.shape)
    assert (Weights(rounding=found).quantize(tensor, axis, grid, floor=floor)[1] == scale * 2).all()


def test_a_table_that_is_also_a_weight_is_looked_up_by_its_own_rounding() -> None:
    model = graphs.dense()
    found = observed(model, graphs.normal((8, 5, 16)))
    tensor = model.graph.initializers["w1"].const_value
    assert tensor is not None
    assert found.integers(tensor, 0, np.ones(16, np.float32), WeightGrid()) is None


def test_static_int4_answers_nearer_to_float() -> None:
    model = graphs.build("g (float[N,32] x) => (float[N,8] y) { y = MatMul(x, w) }", {"w": (32, 8)})
    random = np.random.default_rng(5)
    few = random.normal(size=(64, 6)) @ random.normal(size=(6, 32))
    x = (few + 0.1 * random.normal(size=(64, 32))).astype(np.float32)
    data = Dataset(origin="d", read=lambda: [{"x": x[:48]}])
    expected = session.run(session.open_session(model), {"x": x[48:]})["y"]

    def noise(how: Literal["nearest", "reconstruct"]) -> float:
        edit = quantize(model, QuantizeOptions(bits=4, rounding=how, verify=False), data)
        assert edit.facts.get("reconstructed_weights", 0) == (1 if how == "reconstruct" else 0)
        return float(np.square(session.run(session.open_session(edit.model), {"x": x[48:]})["y"] - expected).sum())

    assert noise("reconstruct") < 0.3 * noise("nearest")


@pytest.mark.parametrize("constant", [0.0, 1.0, 1e4])
def test_inputs_that_never_change_are_no_obstacle(constant: float) -> None:
    data = Dataset(origin="d", read=lambda: [{"x": np.full((8, 3, 8, 8), constant, np.float32)}])
    assert quantize(graphs.conv_chain(), QuantizeOptions(verify=False), data).facts["reconstructed_weights"] == 3
