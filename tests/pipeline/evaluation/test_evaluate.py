"""Evaluate: models on the same samples, paired, with every kind of metric."""

import json
from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import artifact, cpu
from onnxpress.errors import DataError, UsageError
from onnxpress.evaluation.evaluate import evaluate
from onnxpress.evaluation.paired import tango
from onnxpress.files import dumps
from onnxpress.results.evaluation import Evaluation
from onnxpress_calibration.dataset import Dataset

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x) => (float[N,3] y)
<float[3] s = {%s}> { y = Mul(x, s) }"""
X = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]] + 0.1
Y = np.array([0, 1, 2, 0, 1, 0])


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    made = {}
    for name, factors in (("float", "1, 1, 1"), ("int8", "1, 1, 0.01")):
        model = ir.from_proto(onnx.parser.parse_model(TEXT % factors))
        made[name] = artifact.save(model, tmp_path / f"{name}.onnx").path
    return made


def data(labels: bool = True) -> Dataset:
    return Dataset(origin="d", read=lambda: [{"x": X} | ({"y": Y} if labels else {})])


def test_top1_in_pairs(models: dict[str, Path]) -> None:
    document = evaluate(models, baseline="float", data=data(), metric="top1")
    values = {variant["id"]: variant["value"] for variant in document["variants"]}
    # Float gets all but the last; int8 never says class 2, which loses one and, as it says 0 for it, wins one.
    assert values == {"float": pytest.approx(500 / 6), "int8": pytest.approx(500 / 6)}
    (comparison,) = document["comparisons"]
    assert (comparison["lost"], comparison["won"], comparison["drop"]) == (1, 1, 0)
    assert comparison["ci95"][0] < 0 < comparison["ci95"][1] and comparison["method"] == "paired/tango"
    assert document["per_sample"]["float"] == [1, 1, 1, 1, 1, 0]
    assert document["variants"][1]["agreement_pct"] == pytest.approx(400 / 6)


def test_fidelity_needs_no_labels(models: dict[str, Path]) -> None:
    document = evaluate(models, baseline="float", data=data(labels=False))
    assert document["metric"] is None and document["comparisons"] == []
    assert document["variants"][0]["cosine"] == pytest.approx(1)
    assert document["variants"][1]["sqnr_db"] < 10


def test_a_model_for_another_kind_of_cpu_is_named(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(models, baseline="float", data=data())["warnings"] == []
    made_for = "vnni" if cpu.kind() != "vnni" else "avx2"
    step = {"step": "quantize", "options": {"mode": "static", "target_cpu": made_for}}
    model = artifact.load(models["float"])
    path = artifact.save(model, models["float"].with_name("other.onnx"), step=step).path
    (warning,) = evaluate(models | {"other": path}, baseline="float", data=data())["warnings"]
    assert warning.startswith(f"other: was quantized for {made_for} CPUs")
    monkeypatch.setattr(cpu, "kind", lambda: made_for)
    assert evaluate(models | {"other": path}, baseline="float", data=data())["warnings"] == []


def test_missing_labels_are_named(models: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="has no labels"):
        evaluate(models, baseline="float", data=data(labels=False), metric="top1")


def test_an_unknown_metric_is_named(models: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="Did you mean 'top1'"):
        evaluate(models, baseline="float", data=data(), metric="topp1")


METRICS = """
import numpy as np
X = np.ones((4, 3), np.float32)
def number(session): return float(session.run(None, {"x": X})[0].sum())
N = np.arange(40.0)
def each(session): return session.run(None, {"x": X})[0][0].sum() * (1 + N % 7)
def right(session): return session.run(None, {"x": X})[0][0, 2] * (N % 10 + 1) > 0.05
def percent(session): return 100.0 * right(session)
def ranked(session):
    output = session.run(None, {"x": X})[0][0, 2]
    return {"metric": "spearman", "output": N + (1 - output) * 30 * np.sin(N), "labels": N}
def uneven(session): return np.ones(3 + int(session.run(None, {"x": X})[0][0, 2]))
def broken(session): return 1 / 0
def two(session, more): return 0
"""


@pytest.mark.parametrize(
    ("name", "value", "method"),
    [
        ("number", 12, "point"),
        ("each", 11.625, "paired/bootstrap-t"),
        ("ranked", 100, "paired/bootstrap-t"),
        ("right", 1, "paired/tango"),
        ("percent", 100, "paired/tango"),
    ],
)
def test_a_users_metric(models: dict[str, Path], tmp_path: Path, name: str, value: float, method: str) -> None:
    (tmp_path / "metrics.py").write_text(METRICS)
    document = evaluate(models, baseline="float", data=data(), metric=f"{tmp_path}/metrics.py:{name}")
    assert document["variants"][0]["value"] == pytest.approx(value)
    assert document["metric"]["name"] == name
    (comparison,) = document["comparisons"]
    assert comparison["method"] == method and (comparison["ci95"] is None) == (method == "point")
    assert bool(comparison["why"]) == (method == "point")
    if method == "paired/tango":
        unit = 100 if name == "percent" else 1
        assert (comparison["lost"], comparison["won"], comparison["drop"]) == (20, 0, pytest.approx(0.5 * unit))
        assert comparison["ci95"] == [unit * float(end) for end in tango(20, 0, 40)]
        assert comparison["classes"] == [] and comparison["worst_class"] is None  # it has no labels


def test_equal_samples_of_a_users_proportion_prove_little(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "metrics.py").write_text("import numpy as np\ndef right(session): return np.ones(20)\n")
    document = evaluate(models, baseline="float", data=data(), metric=f"{tmp_path}/metrics.py:right")
    (comparison,) = document["comparisons"]
    assert comparison["ci95"] == pytest.approx([-0.161, 0.161], abs=1e-3)
    assert document["variants"][1]["ci95"]["value"] == pytest.approx([0.8316, 1], abs=1e-4)


def test_a_users_metric_that_fails(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "metrics.py").write_text(METRICS)
    with pytest.raises(DataError, match="fails on 'float': ZeroDivisionError"):
        evaluate(models, baseline="float", data=data(), metric=f"{tmp_path}/metrics.py:broken")
    with pytest.raises(DataError, match="gives 3 values for 'int8', 4 were expected"):
        evaluate(models, baseline="float", data=data(), metric=f"{tmp_path}/metrics.py:uneven")
    with pytest.raises(UsageError, match="must take one argument"):
        evaluate(models, baseline="float", data=data(), metric=f"{tmp_path}/metrics.py:two")


@pytest.mark.parametrize(
    "returned",
    [
        "None",
        "'98%'",
        "1j",
        "10**400",
        "[]",
        "['a', 'b']",
        "[[1.0], [2.0]]",
        "{'metric': 'top9', 'output': [1], 'labels': [1]}",
        "{'output': [1], 'labels': [1]}",
        "{'metric': 'spearman', 'output': [1, 2], 'labels': [1]}",
        "{'metric': 'top1', 'output': 'x', 'labels': None}",
    ],
)
def test_what_a_users_metric_must_return(models: dict[str, Path], tmp_path: Path, returned: str) -> None:
    (tmp_path / "metrics.py").write_text(f"def wrong(session): return {returned}\n")
    with pytest.raises(DataError, match=r"returns .* for 'float'\. Return a number, an array"):
        evaluate(models, baseline="float", data=data(), metric=f"{tmp_path}/metrics.py:wrong")


@pytest.mark.parametrize("returned", ["float('nan')", "float('inf')", "[1.0, float('nan')] * 20"])
def test_a_metric_that_is_no_number_is_not_measured(models: dict[str, Path], tmp_path: Path, returned: str) -> None:
    (tmp_path / "metrics.py").write_text(f"def wrong(session): return {returned}\n")
    document = evaluate(models, baseline="float", data=data(), metric=f"{tmp_path}/metrics.py:wrong")
    assert [variant["value"] for variant in document["variants"]] == [None, None]
    assert document["comparisons"] == []
    assert Evaluation.model_validate_json(dumps(document)).document == json.loads(dumps(document))
