"""Inputs on a device: with a fake GPU, since what is to be seen is what onnxruntime is asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxpress.bench.messages import Load, Measure, WarmUp
from onnxpress.bench.runner import Runner
from onnxpress.errors import UsageError

GRAPHS = {"enable_cuda_graph": "1"}


def load(model: Path, samples: Sequence[np.ndarray], options: dict[str, str]) -> Runner:
    np.savez(model.with_suffix(".npz"), **{f"{i}.0": value for i, value in enumerate(samples)})  # type: ignore[arg-type]
    request = Load(
        model=str(model),
        size_bytes=1000,
        provider="cuda",
        threads=1,
        spin="stop",
        provider_options=options,
        samples=str(model.with_suffix(".npz")),
        names=("x",),
    )
    return Runner(request, import_ms=5.0)


@pytest.fixture(autouse=True)
def _process(a_process_of_its_own: None) -> None:
    """A runner changes the process it is in."""


@pytest.fixture
def model(write: Callable[..., Path]) -> Path:
    return write("g (float[N, S] x) => (float[N, S] y) { y = Neg(x) }")


def rows(count: int) -> list[np.ndarray]:
    return [np.full((1, 3), i, np.float32) for i in range(count)]


def outputs(one: Runner, runs: int) -> list[float]:
    feeder, found = one._feeders[0], []
    for _ in range(runs):
        bound = next(feeder.bindings(1))
        feeder.run(bound, 1)
        found.append(float(bound.binding.copy_outputs_to_cpu()[0][0, 0]))
    return found


def test_inputs_and_outputs_lie_on_the_device(model: Path, fake_gpu: Callable[..., Any]) -> None:
    gpu = fake_gpu()
    one = load(model, rows(3), {})
    assert outputs(one, 4) == [0, -1, -2, 0]
    assert set(gpu.values) == {"cuda:0"} and len(gpu.values) == 6  # an input and an output of each sample
    assert gpu.graphs == [] and gpu.updates == 0  # nothing is copied in a run
    assert one.loaded.device_bytes is None  # there is no driver to ask here


def test_end_to_end_copies_in_every_run(model: Path, fake_gpu: Callable[..., Any]) -> None:
    gpu = fake_gpu()
    one = load(model, rows(3), {})
    one.measure(Measure(batch=1, runs=10))
    assert gpu.updates == 0
    block = one.measure(Measure(batch=1, runs=10, copies=True))
    assert gpu.updates == 10 and len(block.durations_ns) == 10


def test_recorded_graphs_see_one_address_and_every_sample(model: Path, fake_gpu: Callable[..., Any]) -> None:
    gpu = fake_gpu()
    one = load(model, rows(3), GRAPHS)
    assert gpu.graphs == ["gpu_graph_id=-1"]  # the cold start: options are made once for both runs
    assert outputs(one, 4) == [0, -1, -2, 0]
    assert len(gpu.values) == 2  # one input, one output
    assert set(gpu.graphs[1:]) == {"gpu_graph_id=1"}
    one.measure(Measure(batch=2, runs=3))
    assert "gpu_graph_id=2" in gpu.graphs
    assert one.warm_up(WarmUp(batch=1)).run_ms > 0


def test_recorded_graphs_need_one_shape(model: Path, fake_gpu: Callable[..., Any]) -> None:
    fake_gpu()
    one = load(model, [np.ones((1, 3), np.float32), np.ones((1, 5), np.float32)], GRAPHS)
    with pytest.raises(UsageError, match="all inputs must have one shape, and these have 2"):
        one.measure(Measure(batch=1, runs=1))


def test_the_number_of_the_device_is_kept(model: Path, fake_gpu: Callable[..., Any]) -> None:
    gpu = fake_gpu()
    load(model, rows(1), {"device_id": "3"}).measure(Measure(batch=1, runs=1))
    assert set(gpu.values) == {"cuda:3"}
