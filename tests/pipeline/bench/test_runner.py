import gc
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from onnxpress.bench import runner
from onnxpress.bench.messages import Load, Measure, WarmUp
from onnxpress.bench.runner import Runner, agree
from onnxpress.errors import ModelError

STEADY = [1.0, 1.01, 0.99, 1.02, 0.98] * 4


@pytest.fixture(autouse=True)
def _this_process_stays_as_it_was() -> Iterator[None]:
    """A runner has its process for itself; here it is the one that runs the tests."""
    cpus = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cpus)
    gc.enable()
    gc.unfreeze()


def load(model: Path, **samples: Sequence[np.ndarray]) -> Runner:
    arrays = {f"{i}.{j}": value for j, values in enumerate(samples.values()) for i, value in enumerate(values)}
    np.savez(model.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    request = Load(
        model=str(model),
        provider="cpu",
        threads=1,
        spin="stop",
        samples=str(model.with_suffix(".npz")),
        names=tuple(samples),
    )
    return Runner(request, import_ms=5.0)


def rows(count: int, size: int = 3) -> list[np.ndarray]:
    return [np.full((1, size), i, np.float32) for i in range(count)]


def outputs(one: Runner, batch: int) -> list[np.ndarray]:
    """Run each bound input once, as the timing loop does, and return the first output of each."""
    found = []
    for _, binding in zip(range(4), one._bindings(batch), strict=False):
        one._session.run_with_iobinding(binding)
        found.append(binding.copy_outputs_to_cpu()[0].copy())
    return found


def test_loading_tells_what_a_cold_start_costs(write: Callable[..., Path]) -> None:
    found = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(2)).loaded
    assert found.import_ms == 5.0
    assert found.session_ms > 0 and found.first_run_ms > 0
    assert found.vm_hwm_bytes is None or found.vm_hwm_bytes > 10_000_000
    assert found.onnxruntime.count(".") >= 1


def test_samples_are_cycled_through_bound_inputs(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(3))
    assert [output[0, 0] for output in outputs(one, 1)] == [0, -1, -2, 0]


def test_larger_batches_join_samples_and_repeat_them(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(3))
    assert [output[:, 0].tolist() for output in outputs(one, 2)[:1]] == [[0, -1]]
    assert outputs(one, 5)[0][:, 0].tolist() == [0, -1, -2, 0, -1]


def test_samples_may_have_different_shapes(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, S] x) => (float[N, S] y) { y = Neg(x) }"), x=[rows(1, 3)[0], rows(1, 5)[0]])
    assert [output.shape for output in outputs(one, 1)[:2]] == [(1, 3), (1, 5)]


def test_outputs_whose_size_depends_on_the_data(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, 3] x) => (int64[2, K] y) { y = NonZero(x) }"), x=[*rows(2)])
    assert [output.shape for output in outputs(one, 1)[:2]] == [(2, 0), (2, 3)]


def test_scalar_inputs_are_not_joined(write: Callable[..., Path]) -> None:
    model = write("g (float[N, 3] x, float s) => (float[N, 3] y) { y = Mul(x, s) }")
    one = load(model, x=rows(2), s=[np.array(2, np.float32)] * 2)
    assert outputs(one, 2)[0].tolist() == [[0, 0, 0], [2, 2, 2]]


def test_a_block_has_as_many_runs_as_were_asked_for(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(3))
    block = one.measure(Measure(batch=1, runs=40))
    assert len(block.durations_ns) == 40 and min(block.durations_ns) > 0
    assert block.speed_ns > 0 and block.ticks >= 0
    assert not gc.isenabled()


def test_warm_up_runs_for_a_while_and_tells_how_long_a_run_takes(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(3))
    calls = []
    timed = one._time
    one._time = lambda binding: calls.append(timed(binding)) or calls[-1]  # type: ignore[assignment, func-returns-value]
    found = one.warm_up(WarmUp(batch=1))
    assert sum(calls) >= runner.WARM_UP_MS[0]
    assert 0 < found.run_ms < 10


def test_warm_up_of_a_slow_model_ends_in_time(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(3))
    calls = []
    monkeypatch.setattr(one, "_time", lambda binding: calls.append(binding) or 900.0)
    found = one.warm_up(WarmUp(batch=1))
    assert (len(calls), found.run_ms, found.stable) == (3, 900.0, None)


def test_warm_up_that_never_gets_steady_says_so(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(3))
    slower_and_slower = (1.01**i for i in count())
    monkeypatch.setattr(one, "_time", lambda _: next(slower_and_slower))
    assert one.warm_up(WarmUp(batch=1)).stable is False


def test_a_model_that_fails_on_its_input_is_refused(write: Callable[..., Path]) -> None:
    model = write("g (float[N, M] x) => (float[N, 2] y) <int64[2] shape = {-1, 2}> { y = Reshape(x, shape) }")
    with pytest.raises(ModelError, match="model fails on the input"):
        load(model, x=rows(1))


def test_a_batch_that_the_model_cannot_take_is_refused(write: Callable[..., Path]) -> None:
    model = write("g (float[N, 3] x) => (float[1, 3] y) <int64[2] shape = {1, 3}> { y = Reshape(x, shape) }")
    one = load(model, x=rows(4))
    with pytest.raises(ModelError, match="model fails on the input"):
        one.measure(Measure(batch=2, runs=1))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (STEADY, True),
        ([1.03 * value for value in STEADY], True),
        ([1.1 * value for value in STEADY], False),  # quartiles differ by more than 5%
        ([0.85 * value for value in STEADY], False),  # still getting faster
        ([*STEADY[:18], 9.0, 9.0], True),  # two slow runs: the mean may rise by half
        ([1.0, 1.3, 0.7, 1.3, 0.7] * 4, False),  # restless
    ],
)
def test_when_two_samples_agree(second: list[float], *, expected: bool) -> None:
    assert agree(STEADY, second) is expected
