from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from onnxpress.bench import protocol
from onnxpress.bench.messages import Block, Loaded, WarmedUp
from onnxpress.bench.probing import Layout, Probe, layouts
from onnxpress.bench.protocol import Decided, Variant, measure, plan
from onnxpress.bench.runner import LEAD_IN_RUNS
from onnxpress.bench.scenarios import PAIRED
from onnxpress.errors import ModelError

START_MS = 400
SINGLE = {"single": PAIRED["single"]}


@dataclass
class Lab:
    """A machine with a clock of its own, on which models take exactly as long as they are said to."""

    run_ms: Mapping[str, float]
    batch_cost: float = 1.0
    """What one more sample in a batch costs, in runs."""
    largest_batch: int = 1_000_000
    fails: str = ""
    slowdown: float = 1.0
    """Of blocks, against what the warm-up said."""
    now_ms: float = 0
    threads: int = 1
    """CPUs; a session with half of them takes ``half`` times as long."""
    half: float = 2.0
    events: list[tuple[str, str]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_ms / 1000

    def launch(self, name: str, layout: Layout) -> "FakeWorker":
        self.open.append(name)
        self.events.append(("launch", name))
        return FakeWorker(self, name, layout)

    def names(self, event: str) -> list[str]:
        return [name for kind, name in self.events if kind == event]


@dataclass
class FakeWorker:
    lab: Lab
    name: str
    layout: Layout

    def _run_ms(self, batch: int) -> float:
        slower = self.lab.half ** (self.layout.sessions.bit_length() - 1)
        return slower * self.lab.run_ms[self.name] * (1 + self.lab.batch_cost * (batch - 1))

    def load(self) -> Loaded:
        self.lab.events.append(("load", self.name))
        if self.name == self.lab.fails:
            raise ModelError(f"variant {self.name!r}: broken")
        self.lab.now_ms += START_MS / 2
        return Loaded(
            onnxruntime="1",
            import_ms=1,
            session_ms=2,
            first_run_ms=3,
            second_run_ms=2,
            session_hwm_bytes=3,
            vm_hwm_bytes=4,
            device_bytes=None,
        )

    def warm_up(self, batch: int) -> WarmedUp:
        self.lab.now_ms += START_MS / 2
        return WarmedUp(run_ms=self._run_ms(batch), stable=True)

    def measure(self, batch: int, runs: int, *, copies: bool = False) -> Block:
        if batch > self.lab.largest_batch:
            raise ModelError("cannot reshape")
        self.lab.events.append(("copies" if copies else "block", self.name))
        run_ms = self.lab.slowdown * self._run_ms(batch)
        self.lab.now_ms += (runs + LEAD_IN_RUNS) * run_ms + protocol.BLOCK_OVERHEAD_MS
        sessions = self.layout.sessions
        durations = (round(1e6 * run_ms / sessions),) * (runs * sessions)
        return Block(durations_ns=durations, speed_ns=1, ticks=1, stolen_ticks=0, throttled=0, preempted=0)

    def close(self) -> None:
        self.lab.open.remove(self.name)


def run(
    lab: Lab,
    *,
    scenarios: tuple[str, ...] = ("single",),
    sweep: tuple[int, ...] | None = None,
    budget_s: float = 60,
    pairs: int = 30,
    decided: Decided | None = None,
) -> dict[str, Variant]:
    outcome = measure(
        tuple(lab.run_ms),
        lab.launch,
        scenarios={name: PAIRED[name] for name in scenarios},
        sweep=sweep,
        batches=(1, 2, 4, 8, 16),
        ways=layouts(lab.threads),
        pairs=pairs,
        budget_ms=1000 * budget_s,
        seed=1,
        clock=lab.clock,
        decided=decided,
        advance=lambda _percent: None,
    )
    assert all(variant.blocks.keys() == outcome.scenarios.keys() for variant in outcome.variants.values())
    return outcome.variants


def blocks(variant: Variant, scenario: str = "single") -> list[Block]:
    return [block for group in variant.blocks[scenario] for block in group]


def test_every_variant_gets_fresh_processes_and_all_pairs() -> None:
    lab = Lab(run_ms={"float": 2, "int8": 1})
    found = run(lab)
    assert {name: len(variant.loaded) for name, variant in found.items()} == {"float": 5, "int8": 5}
    assert [len(group) for group in found["int8"].blocks["single"]] == [6] * 5
    assert sorted(lab.names("launch")) == ["float"] * 6 + ["int8"] * 6  # one of each was the probe
    assert lab.open == []


def test_a_block_is_thirty_runs_or_fifty_milliseconds() -> None:
    found = run(Lab(run_ms={"slow": 5, "fast": 0.1}))
    assert {len(block.durations_ns) for block in blocks(found["slow"])} == {30}
    assert {len(block.durations_ns) for block in blocks(found["fast"])} == {500}


def test_variants_take_turns_in_a_shuffled_order() -> None:
    lab = Lab(run_ms={"a": 1, "b": 1, "c": 1})
    run(lab)
    order = lab.names("block")
    rounds = [tuple(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert len(rounds) == 30
    assert {tuple(sorted(each)) for each in rounds} == {("a", "b", "c")}
    assert len(set(rounds)) == 6  # all permutations appear
    assert lab.names("block") == _again(lab).names("block")  # and the seed decides


def _again(lab: Lab) -> Lab:
    other = Lab(run_ms=lab.run_ms)
    run(other)
    return other


@pytest.mark.parametrize(
    ("batch_cost", "best"),
    [(1.0, 1), (0.97, 1), (0.7, 8), (0.1, 16)],
)
def test_offline_takes_the_batch_after_which_throughput_stops_to_grow(batch_cost: float, best: int) -> None:
    found = run(Lab(run_ms={"float": 1}, batch_cost=batch_cost), scenarios=("single", "offline"))["float"]
    assert found.probe.batch == {"single": 1, "offline": best}
    assert found.probe.run_ms["offline"] == pytest.approx(1 + batch_cost * (best - 1))


def test_a_batch_that_a_model_cannot_take_is_noted_and_not_used() -> None:
    found = run(Lab(run_ms={"float": 1}, batch_cost=0.1, largest_batch=4), scenarios=("offline",))["float"]
    assert (found.probe.batch["offline"], found.probe.refused_batch) == (4, 8)


def test_batches_that_take_too_long_are_not_tried() -> None:
    found = run(Lab(run_ms={"float": 60}, batch_cost=0.5), scenarios=("offline",))["float"]
    assert found.probe.batch["offline"] == 4  # 150 ms; eight would be expected to take 300


def test_the_budget_holds_for_slow_models_too() -> None:
    for run_ms in (0.1, 3, 30, 300):
        lab = Lab(run_ms={"a": run_ms, "b": run_ms, "c": run_ms, "d": run_ms})
        run(lab, scenarios=("single", "offline"), budget_s=60)
        assert lab.now_ms < 66_000, run_ms


def test_the_budget_holds_when_the_host_becomes_slow() -> None:
    lab = Lab(run_ms={"float": 10, "int8": 10}, slowdown=3)
    found = run(lab, budget_s=30)
    assert lab.now_ms < 33_000
    counts = {name: [len(group) for group in variant.blocks["single"]] for name, variant in found.items()}
    assert counts["float"] == counts["int8"]
    assert min(counts["float"]) >= 2 and 6 <= sum(counts["float"]) < 30


def test_layouts_share_the_threads() -> None:
    assert [(each.threads, each.sessions) for each in layouts(1)] == [(1, 1)]
    assert [(each.threads, each.sessions) for each in layouts(8)] == [(8, 1), (4, 2), (2, 4), (1, 8)]
    assert [(each.threads, each.sessions) for each in layouts(6)] == [(6, 1), (3, 2), (1, 4)]


@pytest.mark.parametrize(("half", "sessions"), [(2.0, 1), (1.96, 1), (1.2, 4)])
def test_offline_shares_the_threads_among_sessions_where_that_pays(half: float, sessions: int) -> None:
    lab = Lab(run_ms={"float": 1}, threads=4, half=half)
    found = run(lab, scenarios=("single", "offline"))["float"]
    assert found.probe.layout["single"] == Layout(threads=4, sessions=1)
    assert found.probe.layout["offline"].sessions == sessions
    assert len(found.loaded) == 5  # cold starts are those of a single session
    assert {len(block.durations_ns) for block in blocks(found, "offline")} == {50 if sessions == 1 else 35 * 4}
    assert lab.open == []


def test_a_sweep_ends_where_throughput_no_longer_grows() -> None:
    lab = Lab(run_ms={"float": 1, "int8": 1}, batch_cost=0.9)
    found = run(lab, sweep=())
    assert list(found["int8"].blocks) == ["single", "batch-1", "batch-2", "batch-4", "batch-8"]
    assert found["int8"].probe.batch["batch-8"] == 8


def test_a_sweep_over_given_sizes() -> None:
    found = run(Lab(run_ms={"float": 1}), scenarios=("single",), sweep=(3, 5))["float"]
    assert list(found.blocks) == ["single", "batch-3", "batch-5"]
    assert found.probe.run_ms["batch-5"] == pytest.approx(5)
    with pytest.raises(ModelError, match="cannot reshape"):
        run(Lab(run_ms={"float": 1}, largest_batch=4), sweep=(8,))


def test_a_sweep_stops_before_a_batch_that_one_variant_cannot_take() -> None:
    found = run(Lab(run_ms={"float": 1}, batch_cost=0.1, largest_batch=4), sweep=())["float"]
    assert list(found.blocks) == ["single", "batch-1", "batch-2", "batch-4"]


def test_copies_are_timed_where_the_scenario_wants_it() -> None:
    lab = Lab(run_ms={"float": 1})
    run(lab, scenarios=("single", "end_to_end"))
    assert len(lab.names("copies")) == len(lab.names("block")) == 30


def test_a_heavy_model_gets_fewer_pairs_but_never_too_few_for_an_interval() -> None:
    lab = Lab(run_ms={"float": 20_000, "int8": 10_000})
    found = run(lab)
    assert [len(blocks(variant)) for variant in found.values()] == [6, 6]
    assert {len(block.durations_ns) for block in blocks(found["float"])} == {1}


def test_progress_adds_up_to_a_hundred() -> None:
    steps: list[int] = []
    lab = Lab(run_ms={"float": 1, "int8": 1})
    measure(
        ("float", "int8"),
        lab.launch,
        scenarios=SINGLE,
        sweep=None,
        batches=(1,),
        ways=layouts(1),
        pairs=30,
        budget_ms=60_000,
        seed=0,
        clock=lab.clock,
        decided=None,
        advance=steps.append,
    )
    assert sum(steps) == 100 and min(steps) >= 0


def test_no_process_is_left_behind_when_one_fails() -> None:
    lab = Lab(run_ms={"float": 1, "int8": 1}, fails="int8")
    with pytest.raises(ModelError, match="variant 'int8': broken"):
        run(lab)
    assert lab.open == []


def probes(start_ms: float, run_ms: float, count: int = 2) -> dict[str, Probe]:
    one = Probe(
        start_ms=start_ms,
        batch={"single": 1},
        run_ms={"single": run_ms},
        layout={"single": Layout(threads=1, sessions=1)},
        refused_batch=None,
    )
    return {str(number): one for number in range(count)}


def test_plan_without_hurry() -> None:
    found = plan(probes(400, 2), SINGLE, pairs=30, budget_ms=60_000)
    assert found.rounds == (6, 6, 6, 6, 6)
    assert set(found.runs.values()) == {30}


def test_plan_gives_up_pairs_first_then_runs_of_a_block_then_more_pairs() -> None:
    # A round of two variants with 30 (+2) runs of 20 ms takes 1.29 s.
    assert sum(plan(probes(400, 20), SINGLE, pairs=30, budget_ms=36_000).rounds) == 24
    shorter = plan(probes(400, 20), SINGLE, pairs=30, budget_ms=20_000)
    assert sum(shorter.rounds) == 20 and set(shorter.runs.values()) == {17}
    least = plan(probes(400, 2000), SINGLE, pairs=30, budget_ms=20_000)
    assert sum(least.rounds) == 6 and set(least.runs.values()) == {1}


def test_plan_spends_at_most_half_of_the_budget_on_starts_unless_for_three() -> None:
    assert len(plan(probes(4000, 2), SINGLE, pairs=30, budget_ms=60_000).rounds) == 3
    assert len(plan(probes(7500, 2), SINGLE, pairs=30, budget_ms=60_000).rounds) == 3  # with fewer, nothing is decided
    assert len(plan(probes(40_000, 2), SINGLE, pairs=30, budget_ms=60_000).rounds) == 1


def test_it_ends_when_every_verdict_is_certain_and_not_before_there_are_enough_pairs() -> None:
    looks: list[int] = []

    def decided(found: dict[str, Variant], _scenarios: object) -> bool:
        looks.append(len(blocks(found["int8"])))
        return True

    found = run(Lab(run_ms={"float": 1, "int8": 1}), decided=decided)
    assert looks == [24] and len(found["int8"].loaded) == 4


@pytest.mark.parametrize(("budget_s", "replicates"), [(60, 10), (19, 6), (16, 5)])
def test_an_open_verdict_gets_up_to_twice_the_pairs_as_long_as_the_budget_lasts(
    budget_s: float, replicates: int
) -> None:
    lab = Lab(run_ms={"float": 5, "int8": 5})
    found = run(lab, budget_s=budget_s, decided=lambda _found, _scenarios: False)
    assert [len(group) for group in found["int8"].blocks["single"]] == [6] * replicates
    assert lab.now_ms <= 1000 * budget_s and lab.open == []


def test_without_a_verdict_to_reach_nothing_is_added() -> None:
    assert len(run(Lab(run_ms={"float": 5}))["float"].loaded) == 5
