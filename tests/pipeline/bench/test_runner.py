import gc
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from onnxpress.bench import operators, runner
from onnxpress.bench.messages import Dissect, Load, Measure, Serve, WarmUp
from onnxpress.bench.runner import Runner, agree
from onnxpress.errors import ModelError

STEADY = [1.0, 1.01, 0.99, 1.02, 0.98] * 4


@pytest.fixture(autouse=True)
def _process(a_process_of_its_own: None) -> None:
    """A runner changes the process it is in."""


def load(model: Path, *, sessions: int = 1, profile: str | None = None, **samples: Sequence[np.ndarray]) -> Runner:
    arrays = {f"{i}.{j}": value for j, values in enumerate(samples.values()) for i, value in enumerate(values)}
    np.savez(model.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    request = Load(
        model=str(model),
        size_bytes=1000,
        provider="cpu",
        threads=1,
        sessions=sessions,
        spin="stop",
        profile=profile,
        samples=str(model.with_suffix(".npz")),
        names=tuple(samples),
    )
    return Runner(request, import_ms=5.0)


def rows(count: int, size: int = 3) -> list[np.ndarray]:
    return [np.full((1, size), i, np.float32) for i in range(count)]


def outputs(one: Runner, batch: int) -> list[np.ndarray]:
    """Run each bound input once, as the timing loop does, and return the first output of each."""
    found = []
    feeder = one._feeders[0]
    for _, bound in zip(range(4), feeder.bindings(batch), strict=False):
        feeder.run(bound, batch)
        found.append(bound.binding.copy_outputs_to_cpu()[0].copy())
    return found


def test_loading_tells_what_a_cold_start_costs(write: Callable[..., Path]) -> None:
    found = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(2)).loaded
    assert found.import_ms == 5.0
    assert found.session_ms > 0 and found.first_run_ms > 0 and found.second_run_ms > 0
    assert found.vm_hwm_bytes is None or found.vm_hwm_bytes >= (found.session_hwm_bytes or 0) > 10_000_000
    assert found.device_bytes is None
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


def test_several_sessions_run_side_by_side(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), sessions=3, x=rows(3))
    start = time.perf_counter_ns()
    block = one.measure(Measure(batch=2, runs=50))
    taken = time.perf_counter_ns() - start
    assert len(block.durations_ns) == 150 and min(block.durations_ns) >= 0
    assert 0 < sum(block.durations_ns) < taken


def test_an_error_in_one_of_several_sessions_is_raised(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), sessions=2, x=rows(3))
    one.measure(Measure(batch=1, runs=1))

    def fail(*_: object) -> None:
        raise ModelError("out of memory")

    loops = [one._finished(feeder, Measure(batch=1, runs=1)) for feeder in one._feeders]
    monkeypatch.setattr(one._feeders[1], "run", fail)
    with pytest.raises(ModelError, match="out of memory"):
        runner._side_by_side(loops)


def test_copies_take_time_too(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, 300000] x) => (float[N, 300000] y) { y = Neg(x) }"), x=rows(3, 300_000))
    bound = [one.measure(Measure(batch=1, runs=20)) for _ in range(5)]
    copied = [one.measure(Measure(batch=1, runs=20, copies=True)) for _ in range(5)]
    assert min(min(block.durations_ns) for block in copied) > min(min(block.durations_ns) for block in bound)


@pytest.mark.parametrize("sessions", [1, 2])
def test_requests_are_served_when_they_are_due(write: Callable[..., Path], sessions: int) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), sessions=sessions, x=rows(3))
    start = time.perf_counter()
    latencies = one.serve(Serve(rate_per_s=200, requests=40, seed=1)).latencies_ns
    assert len(latencies) == 40 and min(latencies) > 0
    assert time.perf_counter() - start > 0.1  # 40 requests at 200 a second; a closed loop needs a millisecond


def test_a_profile_tells_nodes_and_arena(write: Callable[..., Path], tmp_path: Path) -> None:
    model = write("g (float[N, 3] x) => (float[N, 3] y) { a = Neg(x) b = Exp(a) y = Mul(b, x) }")
    one = load(model, profile=str(tmp_path / "profile"), x=rows(3))
    found = operators.read(Path(one.dissect(Dissect(runs=4)).file), skipped_runs=2)
    assert sorted(node.op for node in found.nodes) == ["Exp", "Mul", "Neg"]
    assert found.assignment() == {"CPUExecutionProvider": 3}
    assert found.arena_peak_bytes is not None and found.arena_peak_bytes > 0


def test_warm_up_runs_for_a_while_and_tells_how_long_a_run_takes(write: Callable[..., Path]) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(3))
    calls = []
    timed = one._time
    one._time = lambda batch: calls.append(timed(batch)) or calls[-1]  # type: ignore[assignment, func-returns-value]
    found = one.warm_up(WarmUp(batch=1))
    assert sum(calls) >= runner.WARM_UP_MS[0]
    assert 0 < found.run_ms < 10


def test_warm_up_of_a_slow_model_ends_in_time(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    one = load(write("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), x=rows(3))
    calls = []
    monkeypatch.setattr(one, "_time", lambda batch: calls.append(batch) or 900.0)
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
