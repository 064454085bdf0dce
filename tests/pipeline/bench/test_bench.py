import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxpress.bench import protocol, server
from onnxpress.bench.bench import bench
from onnxpress.bench.options import BenchOptions
from onnxpress.errors import ModelError, UsageError
from onnxpress.results.benchmark import Benchmark
from onnxpress_calibration.dataset import Dataset

SIZE = 192


def chain(layers: int) -> str:
    """Square matrix products, one after the other."""
    steps = " ".join(f"h{i + 1} = MatMul(h{i}, w)" for i in range(layers))
    return (
        f"g (float[N, {SIZE}, {SIZE}] x) => (float[N, {SIZE}, {SIZE}] y) <float[{SIZE}, {SIZE}] w = "
        "{" + ",".join(["0.01"] * SIZE * SIZE) + "}> "
        "{ h0 = Identity(x) " + steps + f" y = Identity(h{layers}) }}"
    )


def data() -> Dataset:
    values = np.random.default_rng(0).standard_normal((32, SIZE, SIZE)).astype(np.float32)
    return Dataset(origin="test", read=lambda: [{"x": values}])


def options(**given: object) -> BenchOptions:
    defaults = {"scenarios": ["single"], "threads": 1, "pairs": 6, "budget": "3m"}
    return BenchOptions.model_validate(defaults | given)


@pytest.fixture(autouse=True)
def _few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REPLICATES", 2)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def change(document: dict[str, Any], candidate: str, metric: str) -> tuple[float, float, float]:
    found = [each for each in document["comparisons"] if each["candidate"] == candidate and each["metric"] == metric]
    (only,) = found
    low, high = only["ci95_pct"]
    return only["change_pct"], low, high


@pytest.mark.slow
def test_more_work_is_slower_and_the_same_work_is_not(write: Callable[..., Path]) -> None:
    models = {
        "float": write(chain(4), "float.onnx"),
        "same": write(chain(4), "same.onnx"),
        "more": write(chain(12), "more.onnx"),
    }
    steps: list[int] = []
    found = bench(models, baseline="float", options=options(aa=True, pairs=12), inputs=data(), advance=steps.append)
    document = found.to_json()
    estimate, low, high = change(document, "more", "latency.p50")
    assert 50 < low <= estimate <= high < 400  # three times the work, on a machine that may be busy
    for low, high in (change(document, "same", "latency.p50")[1:], document["aa"]["ci95_pct"]):
        assert low - 10 < 0 < high + 10
    assert document["aa"]["candidate"] == document["aa"]["baseline"] == "float"
    assert sum(steps) == 100
    assert [variant["id"] for variant in document["variants"]] == ["float", "same", "more"]
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert Benchmark.model_validate_json(json.dumps(document)).document == document


def test_result_has_everything_that_was_promised(write: Callable[..., Path]) -> None:
    models = {"float": write(chain(2), "float.onnx"), "more": write(chain(16), "more.onnx")}
    given = options(scenarios=["single", "offline"])
    document = bench(models, baseline="float", options=given, inputs=None).to_json()
    assert document["schema"] == "onnxpress.bench/1"
    assert set(document["host"]) >= {"fingerprint", "cpu", "cpus", "quota_cpus", "features", "load_average"}
    assert document["runtime"] | {"onnxruntime": ""} == {
        "onnxruntime": "",
        "provider": "cpu",
        "threads": 1,
        "spin": "stop",
        "session_options": {},
        "provider_options": {},
        "page_cache": "warm",
        "cpu_fallback_nodes": 0,
    }
    assert document["inputs"]["kind"] == "synthetic" and document["inputs"]["samples"] == 32
    assert document["baseline"] == "float" and document["aa"] is None
    assert len(document["comparable"]) == 12
    for variant, name in zip(document["variants"], models, strict=True):
        assert variant["model"]["path"] == str(models[name])
        assert variant["model"]["size_bytes"] == models[name].stat().st_size
        latency = variant["latency_ms"]
        assert 0 < latency["min"] <= latency["p50"] <= latency["mean"] * 5
        assert latency["n"] >= 180 and latency["p90"] >= latency["p50"] and latency["p999"] is None
        rate = variant["throughput_per_s"]
        assert rate["scenario"] == "offline" and rate["batch"] >= 1
        assert 0 < rate["low"] <= rate["value"] <= rate["high"]
        assert set(variant["cold_start_ms"]) == {"import", "session", "first_run"}
        assert min(variant["cold_start_ms"].values()) > 0
        assert variant["memory"]["vm_hwm_bytes"] >= variant["memory"]["session_hwm_bytes"] > 10_000_000
        assert variant["memory"]["arena_peak_bytes"] > 4 * SIZE * SIZE
        assert variant["operators"][0]["op"] == "MatMul" and variant["operators"][0]["share_pct"] > 50
        assert sum(variant["assignment"].values()) == sum(row["nodes"] for row in variant["operators"])
        assert variant["energy"]["source"] and variant["second_run_ms"] > 0
    metrics = [(each["metric"], each["pairs"] + each["dropped"]) for each in document["comparisons"]]
    assert metrics == [("latency.p50", 6), ("throughput.offline", 6)]
    slower, fewer = document["comparisons"]  # eight times the work, on a machine that may be busy
    assert slower["change_pct"] > 100 and fewer["change_pct"] < -50
    # one of six pairs that the machine held up for long opens the interval, and the verdict with it
    assert slower["verdict"] == ("fail" if slower["ci95_pct"][0] > 5 else "inconclusive")
    assert fewer["verdict"] == ("fail" if fewer["ci95_pct"][1] < 100 / 1.05 - 100 else "inconclusive")
    codes = {warning["code"] for warning in document["warnings"]}
    assert {"synthetic-inputs", "few-pairs"} <= codes
    assert document["fit_for_gating"] is False


def test_only_offline_leaves_latency_unmeasured(write: Callable[..., Path]) -> None:
    given = options(scenarios=["offline"])
    document = bench({"float": write(chain(1))}, baseline="float", options=given, inputs=None).to_json()
    assert document["variants"][0]["latency_ms"] is None
    assert document["comparisons"] == []


def test_a_sweep_and_a_server_with_an_option_of_onnxruntime(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SHORTEST_S", 0.1)
    given = options(
        scenarios=["batch", "server"],
        batch=[1, 3],
        sla="p90=2000ms",  # a busy machine holds requests up for longer than 200
        session_options={"session.dynamic_block_base": "4"},
        budget="2s",
    )
    found = bench({"float": write(chain(1))}, baseline="float", options=given, inputs=None)
    document = found.to_json()
    (variant,) = document["variants"]
    assert [row["batch"] for row in variant["batches"]] == [1, 3]
    served = variant["server"]
    assert served["sla"] == {"percent": 90.0, "limit_ms": 2000.0} and served["p90_ms"] <= 2000
    assert 0 < served["rate_per_s"] <= served["capacity_per_s"] and served["requests"] >= 46
    assert document["runtime"]["session_options"] == {"session.dynamic_block_base": "4"}
    assert Benchmark.model_validate_json(json.dumps(document)).document == document
    found.save_samples(tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz") as file:
        blocks = [file[name] for name in file.files if name.startswith("float/single/")]
        assert blocks[0].dtype == np.float32 and sum(map(len, blocks)) >= 6


def test_subnormal_weights_are_found_and_said(write: Callable[..., Path]) -> None:
    path = write(chain(1))
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((SIZE, SIZE), 1e-39, np.float32), "w"))
    onnx.save(model, path)
    document = bench({"float": path}, baseline="float", options=options(), inputs=None).to_json()
    assert document["variants"][0]["model"]["subnormal_weights"] == SIZE * SIZE
    assert any(warning["code"] == "subnormal-weights" for warning in document["warnings"])


def test_an_interrupted_benchmark_leaves_no_process(write: Callable[..., Path]) -> None:
    before = children()

    def interrupt(percent: int) -> None:
        assert children() > before or percent
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench({"float": write(chain(1))}, baseline="float", options=options(), inputs=None, advance=interrupt)
    assert children() == before


def test_an_unknown_baseline_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r"baseline 'flaot': .* Did you mean 'float'\?"):
        bench({"float": write(chain(1))}, baseline="flaot", options=options(), inputs=None)


def test_a_model_that_fails_is_named(write: Callable[..., Path]) -> None:
    wrong = "g (float[N, 192, 192] x) => (float[N, 7] y) <int64[2] shape = {-1, 7}> { y = Reshape(x, shape) }"
    models = {"float": write(chain(1), "float.onnx"), "int8": write(wrong, "int8.onnx")}
    before = children()
    with pytest.raises(ModelError, match="variant 'int8': model fails on the input"):
        bench(models, baseline="float", options=options(), inputs=data())
    assert children() == before
