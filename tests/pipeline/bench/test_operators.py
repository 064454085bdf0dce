import pytest

from onnxpress.bench.operators import parse

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def run(start: int) -> dict[str, object]:
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": 100, "args": {}}


def node(start: int, name: str, op: str, duration: int, provider: str = CPU, peak: int = 0) -> dict[str, object]:
    facts = {"op_name": op, "provider": provider, "mem_in_use_peak": str(peak)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": facts}


EVENTS = [
    {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9, "args": {}},
    run(10),
    node(11, "conv1", "Conv", 9000, peak=999),  # the first run makes room, and counts nowhere
    *[
        event
        for start in (1000, 2000)
        for event in (
            run(start),
            node(start + 1, "conv1", "Conv", 300, peak=100),
            node(start + 2, "conv2", "Conv", 500, peak=120),
            node(start + 3, "relu", "Relu", 200, CUDA, peak=80),
        )
    ],
]


def test_times_are_means_of_the_counted_runs() -> None:
    found = parse(EVENTS, skipped_runs=1)
    assert [(each.name, each.mean_ms) for each in found.nodes] == [("conv1", 0.3), ("conv2", 0.5), ("relu", 0.2)]
    assert found.arena_peak_bytes == 120


def test_operators_are_summed_and_sorted() -> None:
    document = parse(EVENTS, skipped_runs=1).to_json()
    conv, relu = document["operators"]
    assert conv == {"op": "Conv", "provider": CPU, "nodes": 2, "ms": pytest.approx(0.8), "share_pct": pytest.approx(80)}
    assert (relu["op"], relu["provider"], relu["share_pct"]) == ("Relu", CUDA, pytest.approx(20))
    assert [row["name"] for row in document["slowest_nodes"]] == ["conv2", "conv1", "relu"]


def test_nodes_that_fell_back_are_those_of_the_cpu() -> None:
    found = parse(EVENTS, skipped_runs=1)
    assert found.assignment() == {CPU: 2, CUDA: 1}
    assert found.fallback_nodes(CUDA) == 2
    assert found.fallback_nodes(CPU) == 0


def test_a_profile_without_nodes_is_empty() -> None:
    found = parse([run(0)], skipped_runs=2)
    assert found.nodes == () and found.arena_peak_bytes is None
    assert found.to_json()["operators"] == []
