"""Profiling: the same bits whatever the order, shards or groups; nearly the same from batches; bad values by name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import session
from onnxpress.errors import DataError, UsageError
from onnxpress.quantization import profiling
from onnxpress.quantization.profiling import profile
from onnxpress.running import shared
from onnxpress_calibration import calibrators, sampling
from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.profile import Profile

Build = Callable[[], ir.Model]
NAMES = ["x", "r", "d", "g"]
AXES = {"x": 1, "d": 1}


def data(values: np.ndarray, name: str = "x") -> Dataset:
    return Dataset(origin="d", read=lambda: [{name: values}])


def images(count: int = 40, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, size, size)).astype(np.float32)


def bits(collected: Profile, folder: Path) -> bytes:
    """Return the file of a profile without what names its data."""
    file = folder / "p"
    Profile(model_sha256="", data_sha256="", samples=collected.samples, tensors=collected.tensors).write(file)
    return file.read_bytes()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let small tensors pass for large ones."""
    monkeypatch.setattr(sampling, "LIMIT", 16)
    monkeypatch.setattr(sampling, "LARGE", 32)
    sampling.positions.cache_clear()
    yield
    sampling.positions.cache_clear()


def test_statistics_agree_with_the_tensors_themselves() -> None:
    model, values = graphs.conv_chain(), images()
    exposed = profiling.exposing(model, ["r", "d"])
    expected = session.run(session.open_session(exposed), {"x": values}) | {"x": values}
    collected = profile(model, ["x", "r", "d"], data(values), channels={"d": 1})
    for name, statistics in collected.tensors.items():
        assert (statistics.low, statistics.high) == pytest.approx(
            (expected[name].min(), expected[name].max()), rel=1e-6
        )
        assert statistics.count == expected[name].size
    channels = collected.tensors["d"].channels
    assert channels is not None
    assert channels.mean == pytest.approx(expected["d"].mean((0, 2, 3), dtype=np.float64), rel=1e-5)
    assert channels.peak == pytest.approx(np.abs(expected["d"]).max((0, 2, 3)), rel=1e-5)


@pytest.mark.usefixtures("large")
def test_shuffled_samples_and_merged_shards_give_the_same_bits(tmp_path: Path) -> None:
    model, values = graphs.conv_chain(), images()
    whole = profile(model, NAMES, data(values), channels=AXES)
    shuffled = profile(model, NAMES, data(np.random.default_rng(1).permutation(values)), channels=AXES)
    shards = [profile(model, NAMES, data(part), channels=AXES) for part in (values[:13], values[13:])]
    assert bits(whole, tmp_path) == bits(shuffled, tmp_path) == bits(shards[1].merged(shards[0]), tmp_path)


@pytest.mark.usefixtures("large")
def test_groups_that_fit_into_the_memory_budget_change_nothing(tmp_path: Path) -> None:
    model, values, seen = graphs.conv_chain(), images(), []
    groups = profiling.groups(model, profiling.named(model, NAMES), data(values), budget=5000)
    assert [name for group in groups for name in group] == NAMES and len(groups) > 1
    assert groups == profiling.groups(model, profiling.named(model, NAMES), data(values), budget=5000)
    split = profile(model, NAMES, data(values), channels=AXES, memory_budget=5000 * shared()[0], advance=seen.append)
    assert bits(split, tmp_path) == bits(profile(model, NAMES, data(values), channels=AXES), tmp_path)
    assert sum(seen) == 40


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("build", [graphs.conv_chain, graphs.residual])
def test_a_larger_batch_changes_no_scale(build: Build) -> None:
    model = build()
    shape = [int(size) for size in model.graph.inputs[0].shape[1:]]  # type: ignore[index]
    values = np.random.default_rng(0).normal(size=(60, *shape)).astype(np.float32)
    names = [value.name or "" for node in model.graph for value in node.outputs]
    one, many = (profile(model, names, data(values), batch=size) for size in (1, 25))
    for name in names:
        for calibrator in ("minmax", "mse", "percentile"):
            assert calibrators.choose(calibrator, one.tensors[name]) == pytest.approx(
                calibrators.choose(calibrator, many.tensors[name]), rel=1e-5
            )


@pytest.mark.usefixtures("large")
def test_tensors_whose_rows_are_no_samples_are_counted_whole() -> None:
    model = graphs.build(
        "g (float[N,4,6] x) => (float[M,6] y) <int64[2] s = {-1, 6}> { r = Reshape(x, s) y = MatMul(r, w) }",
        {"w": (6, 6)},
    )
    values = np.random.default_rng(0).normal(size=(10, 4, 6)).astype(np.float32)
    for batch in (1, 5):
        collected = profile(model, ["x", "r"], data(values), batch=batch)
        assert collected.tensors["x"].counts.max() > 1  # thinned: one stands for several
        assert collected.tensors["r"].count == 10 * 24


def test_samples_of_different_lengths(tmp_path: Path) -> None:
    model = graphs.build(
        "g (int64[N,S] ids) => (float[N,S,8] y) { e = Gather(t, ids) y = MatMul(e, w) }", {"t": (200, 16), "w": (16, 8)}
    )
    ids = [np.random.default_rng(length).integers(0, 200, (1, length)) for length in (3, 9, 1, 30)]
    forth, back = (Dataset(origin="d", read=lambda o=o: [{"ids": each} for each in o]) for o in (ids, ids[::-1]))
    collected = profile(model, ["e", "y"], forth)
    assert collected.samples == 4 and collected.tensors["e"].count == 43 * 16
    assert bits(collected, tmp_path) == bits(profile(model, ["e", "y"], back), tmp_path)
    values = profiling.named(model, ["e", "y"])
    largest = 2 * 4 * 30 * (16 + 8)
    assert profiling.groups(model, values, forth, budget=largest) == [["e", "y"]]
    assert profiling.groups(model, values, forth, budget=largest - 1) == [["e"], ["y"]]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("op", "bad"), [("Sqrt", -1.0), ("Log", 0.0)])
def test_nan_and_infinity_name_tensor_and_sample(op: str, bad: float, batch: int) -> None:
    model = graphs.build(f"g (float[N,4] x) => (float[N,4] y) {{ s = {op}(x) y = MatMul(s, w) }}", {"w": (4, 4)})
    values = np.ones((19, 4), np.float32)
    values[[6, 11], 2] = bad
    with pytest.raises(DataError, match=r"tensor 's' holds NaN or infinity in sample 6\."):
        profile(model, ["x", "s"], data(values), batch=batch)


def test_a_constant_and_an_empty_tensor_are_no_error() -> None:
    model = graphs.build(
        "g (float[N,4] x) => (float[N,4] y, float[N,0] n) <int64[1] zero = {0}, int64[1] axis = {1}> "
        "{ n = Slice(x, zero, zero, axis) c = Sub(x, x) y = MatMul(c, w) }",
        {"w": (4, 4)},
    )
    collected = profile(model, ["c", "n"], data(np.ones((5, 4), np.float32)), channels={"c": -1})
    assert (collected.tensors["c"].low, collected.tensors["c"].high) == (0, 0)
    assert collected.tensors["n"].count == 0


def test_an_unknown_tensor_is_named() -> None:
    with pytest.raises(UsageError, match="no tensor 'nope'"):
        profile(graphs.residual(), ["x", "nope"], graphs.normal((2, 8, 6, 6)))


def test_only_what_is_asked_for_is_computed() -> None:
    exposed = profiling.exposing(graphs.conv_chain(), ["x", "r"])
    assert [node.op_type for node in exposed.graph] == ["Conv", "Relu"]
    assert [value.name for value in exposed.graph.outputs] == ["r"]
