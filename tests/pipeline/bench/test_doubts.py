from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from onnxpress import host
from onnxpress.bench import UNFIT, doubts, nvml
from onnxpress.bench.comparison import Comparison
from onnxpress.bench.doubts import Doubt
from onnxpress.bench.inputs import Inputs
from onnxpress.bench.messages import Block, WarmedUp
from onnxpress.bench.options import BenchOptions
from onnxpress.bench.probing import Layout, Probe
from onnxpress.bench.protocol import Variant
from onnxpress.bench.statistics import Interval

SAMPLES = ({"x": np.ones((1, 3), np.float32)},) * 32
FED = Inputs(kind="real", samples=SAMPLES, sha256="", batch=1, joinable=True)
QUIET = Comparison(
    baseline="float",
    candidate="int8",
    metric="latency.p50",
    ratio=Interval(value=1.0, low=0.99, high=1.01, count=30),
    processes=5,
    disturbed=0,
    dropped=0,
)


def variant(run_ms: float = 1, *, unsteady: int = 0, refused_batch: int | None = None) -> Variant:
    run_ns = round(1e6 * run_ms)
    block = Block(durations_ns=(run_ns,) * 30, speed_ns=1, ticks=1, stolen_ticks=0, throttled=0, preempted=0)
    return Variant(
        probe=Probe(
            start_ms=1,
            batch={"single": 1},
            run_ms={"single": run_ms},
            layout={"single": Layout(threads=1, sessions=1)},
            refused_batch=refused_batch,
        ),
        loaded=(),
        warmed_up=tuple(WarmedUp(run_ms=run_ms, stable=i >= unsteady) for i in range(5)),
        blocks={"single": ((block,) * 6,) * 5},
    )


def codes(found: Iterable[Doubt]) -> list[str]:
    listed = list(found)
    assert all(len(each.message.splitlines()) == 1 for each in listed)
    return [each.code for each in listed]


def test_good_conditions_leave_no_doubt() -> None:
    usable = host.usable_threads()
    assert codes(doubts.about_inputs(FED)) == []
    assert codes(doubts.about_host(usable, 0.1)) == codes(doubts.about_host(usable, None)) == []
    assert codes(doubts.about_pairs([QUIET], replicates=5, certain=False, options=BenchOptions())) == []
    assert codes(doubts.about_aa(QUIET)) == []
    assert codes(doubts.about_variants({"float": variant()})) == []


def test_doubtful_inputs() -> None:
    assert codes(doubts.about_inputs(replace(FED, kind="synthetic"))) == ["synthetic-inputs"]
    assert codes(doubts.about_inputs(replace(FED, samples=SAMPLES[:31]))) == ["few-inputs"]


def test_doubtful_hosts() -> None:
    assert codes(doubts.about_host(1, 1.1 * doubts.BUSY_LOAD * host.describe().cpus)) == ["busy-host"]
    assert codes(doubts.about_host(host.usable_threads() + 1, None)) == ["too-many-threads"]


@pytest.mark.parametrize(
    ("taken", "replicates", "disturbed", "expected", "fit"),
    [
        (19, 5, 0, ["few-pairs"], False),
        (20, 5, 0, ["short-budget"], True),
        (30, 4, 0, ["short-budget"], True),
        (30, 5, 6, [], True),
        (30, 5, 7, ["disturbed-pairs"], True),
    ],
)
def test_doubtful_pairs(taken: int, replicates: int, disturbed: int, expected: list[str], *, fit: bool) -> None:
    ratio = replace(QUIET.ratio, count=taken - disturbed)
    worst = replace(QUIET, ratio=ratio, disturbed=disturbed, dropped=disturbed)
    found = codes(doubts.about_pairs([QUIET, worst], replicates=replicates, certain=False, options=BenchOptions()))
    assert found == expected
    assert set(found).isdisjoint(UNFIT) is fit


@pytest.mark.parametrize(("processes", "expected"), [(1, ["few-processes"]), (2, ["few-processes"]), (3, [])])
def test_one_processs_luck_is_no_model(processes: int, expected: list[str]) -> None:
    few = replace(QUIET, processes=processes)
    found = list(doubts.about_pairs([QUIET, few], replicates=processes, certain=True, options=BenchOptions()))
    assert codes(found) == expected
    assert set(expected).issubset(UNFIT)


@pytest.mark.parametrize(("high", "expected"), [(1.1, "disturbed-pairs"), (1.11, "noisy-host")])
def test_a_noisy_host_is_one_whose_noise_shows_in_the_interval(high: float, expected: str) -> None:
    worst = replace(QUIET, ratio=Interval(value=1.05, low=1.0, high=high, count=30), disturbed=20)
    assert codes(doubts.about_pairs([worst], replicates=5, certain=False, options=BenchOptions())) == [expected]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.995, 1.02, []), (1.005, 1.02, []), (1.011, 1.02, ["aa-differs"]), (0.97, 0.989, ["aa-differs"])],
)
def test_a_host_on_which_a_model_differs_from_itself(low: float, high: float, expected: list[str]) -> None:
    aa = replace(QUIET, ratio=Interval(value=(low + high) / 2, low=low, high=high, count=30))
    assert codes(doubts.about_aa(aa)) == expected


def test_doubtful_variants() -> None:
    variants = {
        "restless": variant(unsteady=3),
        "fine": variant(unsteady=2),
        "tiny": variant(run_ms=0.04),
        "fixed inside": variant(refused_batch=2),
    }
    found = list(doubts.about_variants(variants))
    assert [(each.code, each.message.partition(":")[0]) for each in found] == [
        ("unsteady-warm-up", "restless"),
        ("python-overhead", "tiny"),
        ("batch-refused", "fixed inside"),
    ]


GPU = nvml.Gpu(
    name="fake",
    driver="1",
    sm_clock_mhz=1,
    memory_clock_mhz=1,
    throttle_reasons=1,
    power_limit_w=1.0,
    mig=False,
    memory_bytes=1,
    memory_used_bytes=1,
    other_processes=0,
)


@pytest.mark.parametrize(
    ("gpu", "options", "expected"),
    [
        (None, {}, []),
        (GPU, {"use_tf32": "0"}, []),
        (GPU, {"use_tf32": "1"}, ["tf32"]),
        (replace(GPU, other_processes=2), {}, ["gpu-busy"]),
        (replace(GPU, throttle_reasons=4), {}, ["gpu-throttled"]),
        (replace(GPU, throttle_reasons=None, other_processes=None), {}, []),
    ],
)
def test_doubtful_gpus(gpu: nvml.Gpu | None, options: dict[str, str], expected: list[str]) -> None:
    assert codes(doubts.about_gpu(gpu, options)) == expected


def test_doubtful_models() -> None:
    fine = SimpleNamespace(name="fine", subnormal_weights=0, fallback_nodes=0)
    odd = SimpleNamespace(name="odd", subnormal_weights=3, fallback_nodes=2)
    found = list(doubts.about_models([fine, odd]))  # type: ignore[list-item]
    assert [each.code for each in found] == ["subnormal-weights", "cpu-fallback"]
    assert all(each.message.startswith("odd: ") for each in found)
