"""The search with times and losses that the tests make up: the file of a candidate says what was chosen for it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import onnx.checker
import onnx_ir as ir
import pytest

from onnxpress import artifact
from onnxpress.bench.inputs import Inputs
from onnxpress.bench.statistics import Interval
from onnxpress.errors import ModelError
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.auto.candidates import Candidates, Choice, groups
from onnxpress.quantization.auto.journal import Journal
from onnxpress.quantization.auto.judge import Bound, Judge, Quality
from onnxpress.quantization.auto.race import Race, Runner
from onnxpress.quantization.auto.search import Search
from onnxpress.quantization.placement import place
from onnxpress.session import SessionOptions, open_session, run

LAYERS = ("a", "b", "c", "d")


def network() -> ir.Model:
    """Four MatMuls of different sizes, each behind a Softmax, which keeps them apart."""
    model = graphs.build(
        "g (float[N,8] x) => (float[N,4] y) { a = MatMul(x, wa) s = Softmax(a) b = MatMul(s, wb) t = Softmax(b) "
        "c = MatMul(t, wc) u = Softmax(c) y = MatMul(u, wd) }",
        {"wa": (8, 32), "wb": (32, 16), "wc": (16, 12), "wd": (12, 4)},
    )
    for node in model.graph:
        if node.op_type == "MatMul":
            weight = node.inputs[1]
            assert weight is not None and weight.name is not None
            node.name = weight.name[1]
    return model


def chosen_in(path: Path) -> dict[str, Choice]:
    """Read back from a candidate's file what was chosen for each layer."""
    found: dict[str, Choice] = dict.fromkeys(LAYERS, "float")
    for node in artifact.load(path).graph:
        name = node.name or ""
        if name.endswith("_integer"):
            found[name.removesuffix("_integer")] = "dynamic"
        producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if name in found and producer is not None and producer.op_type == "DequantizeLinear":
            found[name] = "static"
        if name in found and node.inputs[1] is not None and node.inputs[1].dtype == ir.DataType.FLOAT16:
            found[name] = "fp16"
    return found


class MadeUpRace(Race):
    """Layers take the times they are given, and the rest of the model 1."""

    def __init__(self, times: Mapping[str, Mapping[Choice, float]], broken: tuple[str, Choice] | None = None) -> None:
        self.times, self.broken, self.started = times, broken, 0

    def start(self, model: Path) -> Runner:
        chosen = chosen_in(model)
        if self.broken is not None and chosen[self.broken[0]] == self.broken[1]:
            raise ModelError("onnxruntime cannot run it")
        self.started += 1
        time = 1 + sum(self.times[name][choice] for name, choice in chosen.items())
        return Runner(worker=None, run_ms=time)  # type: ignore[arg-type]

    def stop(self, runner: Runner) -> None:
        pass

    def ratio(self, reference: Runner, candidate: Runner) -> Interval:
        ratio = candidate.run_ms / reference.run_ms
        return Interval(value=ratio, low=0.99 * ratio, high=1.01 * ratio, count=12)


class MadeUpJudge(Judge):
    """Each layer loses what it is given; drops add up."""

    def __init__(self, drops: Mapping[str, Mapping[Choice, float]]) -> None:
        self.drops, self.asked = drops, 0

    def quality(self, candidate: Path, half: int | None) -> Quality:
        assert half == 0  # the other half belongs to the confirmation
        self.asked += 1
        drop = sum(self.drops[name].get(choice, 0.0) for name, choice in chosen_in(candidate).items())
        return Quality(drop=drop, ci95=(drop - 0.1, drop + 0.1), sqnr_db=None, agreement_pct=None)


FAST: Mapping[Choice, float] = {"static": 0.5, "dynamic": 0.7, "float": 1.0}
NO_LOSS: Mapping[str, Mapping[Choice, float]] = {name: {} for name in LAYERS}


def search(
    folder: Path,
    race: MadeUpRace,
    judge: MadeUpJudge,
    *,
    journal: Journal | None = None,
    clock: Iterator[float] | None = None,
    provider: str = "cpu",
) -> Search:
    model = network()
    options = QuantizeOptions(provider=provider)
    placement = place(model, options.selects)
    candidates = Candidates(
        model=model,
        ranges={value.name or "": (-3.0, 3.0) for value in placement.candidates},
        options=options,
        groups=groups(model, placement, options),
    )
    reference = artifact.save(model, folder / "float.onnx", force=True).path
    return Search(
        candidates=candidates,
        reference=reference,
        race=race,
        judge=judge,
        bound=Bound(max_drop=1.0),
        errors=lambda: judge.drops,
        journal=Journal(None, {}) if journal is None else journal,
        clock=(lambda: next(clock)) if clock else lambda: 0.0,
        deadline=100.0,
        folder=folder,
        advance=lambda steps: None,  # noqa: ARG005
    )


def test_each_layer_gets_what_is_fastest(tmp_path: Path) -> None:
    times: dict[str, Mapping[Choice, float]] = {
        "a": FAST,
        "b": {"static": 0.9, "dynamic": 0.4, "float": 1.0},
        "c": {"static": 1.5, "dynamic": 1.2, "float": 1.0},
        "d": FAST,
    }
    found = search(tmp_path, MadeUpRace(times), MadeUpJudge(NO_LOSS))
    best = found.run()[0]
    assert dict(best) == {"a": "static", "b": "dynamic", "c": "float", "d": "static"}
    assert found.ratio({}, best).value == pytest.approx((1 + 0.5 + 0.4 + 1.0 + 0.5) / 5)


def test_a_difference_within_the_noise_changes_nothing(tmp_path: Path) -> None:
    times = dict.fromkeys(LAYERS, FAST) | {"d": {"static": 0.500, "dynamic": 0.495, "float": 0.505}}
    assert search(tmp_path, MadeUpRace(times), MadeUpJudge(NO_LOSS)).run()[0]["d"] == "static"


def test_layers_that_lose_most_for_their_time_pay_for_the_bound(tmp_path: Path) -> None:
    drops: dict[str, Mapping[Choice, float]] = {
        "a": {"static": 0.1, "dynamic": 0.1},
        "b": {"static": 3.0, "dynamic": 0.2},
        "c": {"static": 0.6, "dynamic": 0.5},
        "d": {"static": 0.2, "dynamic": 0.2},
    }
    best = search(tmp_path, MadeUpRace(dict.fromkeys(LAYERS, FAST)), MadeUpJudge(drops)).run()[0]
    assert sum(drops[name].get(choice, 0.0) for name, choice in best.items()) <= 1
    assert best["b"] == "dynamic"
    assert [best[name] for name in "ad"] == ["static", "static"]


def test_a_bound_that_only_float_keeps_leaves_nothing(tmp_path: Path) -> None:
    drops: dict[str, Mapping[Choice, float]] = {name: {"static": 5.0, "dynamic": 5.0} for name in LAYERS}
    assert search(tmp_path, MadeUpRace(dict.fromkeys(LAYERS, FAST)), MadeUpJudge(drops)).run() == []


def test_a_mix_that_the_runtime_refuses_is_no_candidate(tmp_path: Path) -> None:
    times = dict.fromkeys(LAYERS, FAST) | {"c": {"static": 0.9, "dynamic": 0.8, "float": 0.1}}
    race = MadeUpRace(times, broken=("c", "float"))
    found = search(tmp_path, race, MadeUpJudge(NO_LOSS))
    race_float, race.broken = race.broken, None
    found._runner({})  # the float model itself runs
    race.broken = race_float
    assert found.run()[0]["c"] == "dynamic"


def test_a_stopped_search_continues_from_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    first = search(tmp_path, MadeUpRace(dict.fromkeys(LAYERS, FAST)), MadeUpJudge(NO_LOSS), journal=Journal(path, {}))
    expected = first.run()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    half = MadeUpRace(dict.fromkeys(LAYERS, FAST))
    assert search(tmp_path, half, MadeUpJudge(NO_LOSS), journal=Journal(path, {})).run() == expected
    again, judge = MadeUpRace(dict.fromkeys(LAYERS, FAST)), MadeUpJudge(NO_LOSS)
    assert search(tmp_path, again, judge, journal=Journal(path, {})).run() == expected
    assert (again.started, judge.asked) == (0, 0)
    assert half.started > 0


def test_when_time_is_up_the_best_so_far_is_returned(tmp_path: Path) -> None:
    times = dict.fromkeys(LAYERS, FAST) | {"d": {"static": 2.0, "dynamic": 2.0, "float": 1.0}}
    race = MadeUpRace(times)
    clock = iter(np.arange(0, 1e4, 40.0))  # the deadline passes with the third look at the clock
    best = search(tmp_path, race, MadeUpJudge(NO_LOSS), clock=clock).run()[0]
    assert set(best.values()) == {"static"}  # the start; nothing was tried on top
    assert race.started <= 4


def test_without_any_time_one_whole_model_is_timed_and_judged(tmp_path: Path) -> None:
    race, judge = MadeUpRace(dict.fromkeys(LAYERS, FAST)), MadeUpJudge(NO_LOSS)
    found = search(tmp_path, race, judge, clock=iter(np.arange(1e3, 1e6, 1.0)))
    assert [set(best.values()) for best in found.run()] == [{"static"}]
    assert (race.started, judge.asked) == (2, 1)  # float and the one


def test_only_what_was_chosen_by_its_loss_is_judged_by_other_samples_alone(tmp_path: Path) -> None:
    halves: list[int | None] = []

    class AnyHalf(MadeUpJudge):
        def quality(self, candidate: Path, half: int | None) -> Quality:
            halves.append(half)
            return super().quality(candidate, 0)

    drops: dict[str, Mapping[Choice, float]] = {**NO_LOSS, "b": {"static": 3.0, "dynamic": 3.0}}
    for losses, half in ((NO_LOSS, None), (drops, 1)):
        found = search(tmp_path, MadeUpRace(dict.fromkeys(LAYERS, FAST)), AnyHalf(losses))
        best = found.run()[0]
        found.final_quality(best)
        assert halves[-1] == half


def test_equal_shapes_are_one_group_and_the_users_exclusions_none() -> None:
    model = network()
    options = QuantizeOptions(exclude="^c$")
    placement = place(model, options.selects)
    found = groups(model, placement, options)
    assert [group.name for group in found] == ["MatMul 32x16", "MatMul 8x32", "MatMul 12x4"]
    assert {group.choices for group in found} == {("static", "dynamic", "float")}


def test_inputs_reach_the_workers_as_one_file(tmp_path: Path) -> None:
    sample = {"x": np.ones((1, 8), np.float32)}
    inputs = Inputs(kind="real", samples=(sample,), sha256="", batch=1, joinable=True)
    with Race(inputs, SessionOptions(threads=1), tmp_path) as race:
        model = artifact.save(network(), tmp_path / "m.onnx").path
        runner = race.start(model)
        assert runner.run_ms > 0
        ratio = race.ratio(runner, race.start(model))
        assert 0.3 < ratio.value < 3 and ratio.low <= ratio.value <= ratio.high
    assert runner.worker._process.poll() is not None  # no process is left behind


def test_on_a_gpu_layers_are_float16_where_that_is_fastest_and_the_mix_is_valid(tmp_path: Path) -> None:
    times: dict[str, Mapping[Choice, float]] = {
        "a": {"static": 0.9, "dynamic": 0.8, "fp16": 0.3, "float": 1.0},
        "b": {"static": 0.2, "dynamic": 0.8, "fp16": 0.3, "float": 1.0},
        "c": {"static": 0.9, "dynamic": 0.8, "fp16": 0.3, "float": 1.0},
        "d": {"static": 0.9, "dynamic": 0.8, "fp16": 0.7, "float": 0.1},
    }
    found = search(tmp_path, MadeUpRace(times), MadeUpJudge(NO_LOSS), provider="cuda")
    best = found.run()[0]
    assert dict(best) == {"a": "fp16", "b": "static", "c": "fp16", "d": "float"}
    onnx.checker.check_model(found.path(best), full_check=True)
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    expected, mixed = (run(open_session(path), {"x": x})["y"] for path in (found.reference, found.path(best)))
    np.testing.assert_allclose(mixed, expected, atol=0.05)
    assert np.abs(mixed - expected).max() > 0


def test_float16_pays_for_the_bound_before_float_does(tmp_path: Path) -> None:
    fast: Mapping[Choice, float] = {"static": 0.2, "dynamic": 0.4, "fp16": 0.6, "float": 1.0}
    drops: dict[str, Mapping[Choice, float]] = {name: {"static": 0.1, "dynamic": 0.1, "fp16": 0.0} for name in LAYERS}
    drops["b"] = {"static": 5.0, "dynamic": 4.0, "fp16": 0.001}
    best = search(tmp_path, MadeUpRace(dict.fromkeys(LAYERS, fast)), MadeUpJudge(drops), provider="cuda").run()[0]
    assert dict(best) == {"a": "static", "b": "fp16", "c": "static", "d": "static"}


def test_a_layer_that_comes_near_the_end_of_float16_does_not_become_it(tmp_path: Path) -> None:
    candidates = search(tmp_path, MadeUpRace({}), MadeUpJudge(NO_LOSS), provider="cuda").candidates
    large = replace(candidates, peaks={"b": 40000.0})
    edit = large.build(dict.fromkeys(LAYERS, "fp16"))
    weights = {node.name: node.inputs[1].dtype for node in edit.model.graph if node.op_type == "MatMul"}
    expected = dict.fromkeys(LAYERS, ir.DataType.FLOAT16) | {"b": ir.DataType.FLOAT}
    assert weights == expected and "b" not in edit.changed


def test_on_a_cpu_float16_is_no_choice() -> None:
    model = network()
    choices = {each.choices for each in groups(model, place(model, QuantizeOptions().selects), QuantizeOptions())}
    assert choices == {("static", "dynamic", "float")}
