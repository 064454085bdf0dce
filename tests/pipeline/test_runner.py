"""The loop: steps shared and kept, runs that continue after being killed, and files equal bit by bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import artifact, runner, session
from onnxpress.errors import DataError, ModelError, OutputError
from onnxpress.progress import Progress
from onnxpress.quantization import collecting
from onnxpress.recipe import Recipe
from onnxpress.report.report import Report
from onnxpress.results import report as results
from onnxpress.results.base import Result, read_json
from onnxpress.results.evaluation import Evaluation

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,8,8] x) => (float[N,4] y)
{ a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) c = Conv <pads=[1,1,1,1]> (r, w2, b2) d = Relu(c)
p = GlobalAveragePool(d) f = Flatten(p) y = Gemm <transB=1> (f, w3, b3) }"""
SHAPES = {"w1": (32, 3, 3, 3), "b1": (32,), "w2": (32, 32, 3, 3), "b2": (32,), "w3": (4, 32), "b3": (4,)}
RECIPE = """schema: onnxpress.recipe/1
model: {source: net.onnx}
data: {calibration: data.npz, evaluation: data.npz, metric: top1}
variants:
  dynamic: [{quantize: {mode: dynamic}}]
  int8: [{quantize: {}}]
  pruned: [{prune: {method: l2, granularity: channel, amount: 50%}}]
  pruned-int8: [{prune: {method: l2, granularity: channel, amount: 50%}}, {quantize: {}}]
gate: gate.yaml
"""
GATE = """schema: onnxpress.policy/1
rules: {size.total_bytes: [error, {max_ratio: 2x}]}
"""
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a model, data, a policy and a recipe."""
    values = np.random.default_rng(0)
    weights = {name: values.normal(size=shape, scale=0.3).astype(np.float32) for name, shape in SHAPES.items()}
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    for name, array in weights.items():
        value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == name)
        value.const_value, value.shape, value.dtype = (
            ir.tensor(array, name=name),
            ir.Shape(array.shape),
            ir.DataType.FLOAT,
        )
        model.graph.register_initializer(value)
    artifact.save(model, tmp_path / "net.onnx")
    x = values.normal(size=(24, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=values.integers(0, 4, 24))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "gate.yaml").write_text(GATE)
    return tmp_path


def run(place: Path, folder: str = "out") -> Report:
    return runner.run(Recipe.load(place / "recipe.yaml"), place / folder, Progress(quiet=True), now=lambda: NOW)


def hashes(report: Report) -> dict[str, str]:
    return {variant["id"]: variant["sha256"] for variant in report.variants}


def cached(report: Report) -> dict[str, list[bool]]:
    return {variant["id"]: [step["cached"] for step in variant["steps"]] for variant in report.variants}


def stored(place: Path) -> list[Path]:
    return sorted(path for path in (place / "out" / "steps").iterdir() if not path.name.startswith("."))


def test_a_run_leaves_artifacts_measurements_and_reports(place: Path) -> None:
    report = run(place)
    assert list(hashes(report)) == ["float", "dynamic", "int8", "pruned", "pruned-int8"]
    for variant in report.variants:
        made = artifact.read(place / "out" / variant["path"])
        assert (made.sha256, made.size_bytes) == (variant["sha256"], variant["size_bytes"])
        assert len(made.lineage) == 1 + len(variant["steps"])
    assert report.variant("int8")["kernels"]["float"] == 0
    assert report.variant("pruned")["macs"] < 0.6 * report.variant("float")["macs"]
    assert report.variant("pruned-int8")["macs"] == report.variant("pruned")["macs"]
    assert {check.verdict for check in report.checks} == {"pass"}
    assert Report.load(place / "out").to_json() == report.to_json()
    kinds: dict[str, type[Result]] = {"report.json": results.Report, "evaluation.json": Evaluation}
    kinds |= {str(path.relative_to(place / "out") / "step.json"): results.Record for path in stored(place)}
    for name, kind in kinds.items():
        file = place / "out" / name
        assert read_json(file, kind, "result", advice="").document == json.loads(file.read_text())
    for name in ("report.md", "report.html", "evaluation.json"):
        assert (place / "out" / name).stat().st_size > 0


def test_steps_that_variants_share_run_once(place: Path) -> None:
    run(place)
    steps = [json.loads((path / "step.json").read_text())["step"] for path in stored(place)]
    assert sorted(steps) == ["export", "prune", "quantize", "quantize", "quantize"]


def test_a_second_run_repeats_only_the_measurements(place: Path) -> None:
    first = run(place)
    before = {path: path.stat().st_mtime_ns for path in (place / "out" / "steps").rglob("model.onnx")}
    second = run(place)
    assert {path: path.stat().st_mtime_ns for path in (place / "out" / "steps").rglob("model.onnx")} == before
    assert hashes(first) == hashes(second)
    assert all(all(steps) for steps in cached(second).values()) and not all(cached(first)["int8"])


def test_a_changed_option_runs_only_what_depends_on_it(place: Path) -> None:
    run(place)
    (place / "recipe.yaml").write_text(
        RECIPE.replace("int8: [{quantize: {}}]\n  pruned:", "int8: [{quantize: {calibrator: minmax}}]\n  pruned:")
    )
    assert cached(run(place)) == {
        "float": [],
        "dynamic": [True],
        "int8": [False],
        "pruned": [True],
        "pruned-int8": [True, True],
    }


def test_all_variants_of_a_model_share_one_profile(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = place / "recipe.yaml"
    recipe.write_text(
        RECIPE.replace(
            "  int8: [{quantize: {}}]", "  int8: [{quantize: {}}]\n  kl: [{quantize: {calibrator: entropy}}]"
        )
    )
    report = run(place)
    profiles = list((place / "out" / "profiles").iterdir())
    assert len(profiles) == 2  # of the float model and of the pruned one
    assert hashes(report)["int8"] != hashes(report)["kl"]

    monkeypatch.setattr(collecting, "profile", None)  # a second pass would fail
    recipe.write_text(recipe.read_text().replace("entropy", "minmax"))
    assert not cached(run(place))["kl"][0]


def test_a_damaged_profile_is_collected_again(place: Path) -> None:
    before = hashes(run(place))
    files = {path: path.read_bytes() for path in (place / "out" / "profiles").iterdir()}
    for path in files:
        path.write_bytes(b"damaged")
    shutil.rmtree(place / "out" / "steps")
    assert hashes(run(place)) == before
    assert all(path.read_bytes() == content for path, content in files.items())


def test_other_data_is_noticed(place: Path) -> None:
    run(place)
    data = dict(np.load(place / "data.npz"))
    np.savez(place / "data.npz", x=data["x"] * 2, y=data["y"])
    assert cached(run(place))["pruned-int8"] == [True, False]


def test_two_runs_give_equal_files(place: Path) -> None:
    assert hashes(run(place)) == hashes(run(place, "other"))


def test_a_damaged_artifact_is_made_again(place: Path) -> None:
    first = run(place)
    damaged = next(path for path in stored(place) if json.loads((path / "step.json").read_text())["step"] == "prune")
    (damaged / "model.onnx").write_bytes(b"damaged")
    second = run(place)
    assert hashes(first) == hashes(second) and cached(second)["pruned"] == [False]


def test_a_second_run_at_the_same_time_is_refused(place: Path) -> None:
    run(place)
    with runner._locked(place / "out"), pytest.raises(OutputError, match="another run is using it"):
        run(place)


def test_a_step_that_cannot_be_done_names_its_variant_and_keeps_the_rest(place: Path) -> None:
    text = RECIPE.replace("dynamic: [{quantize: {mode: dynamic}}]", "none: [{quantize: {include: nothing}}]")
    (place / "recipe.yaml").write_text(text)
    with pytest.raises(ModelError, match="variant 'none', step quantize: quantize: nothing in this model"):
        run(place)
    assert len(stored(place)) == 1


def test_a_step_with_max_drop_is_judged_by_the_evaluation_data(place: Path) -> None:
    x = np.random.default_rng(1).normal(size=(200, 3, 1, 1), scale=3).repeat(8, 2).repeat(8, 3).astype(np.float32)
    labels = session.run(session.open_session(place / "net.onnx"), {"x": x})["y"].argmax(1)
    np.savez(place / "data.npz", x=x, y=labels)
    strict = "strict: [{quantize: {bits: 2, rounding: nearest, bias_correction: false, max_drop: 1%}}]"
    (place / "recipe.yaml").write_text(RECIPE.replace("dynamic: [{quantize: {mode: dynamic}}]", strict))
    with pytest.raises(ModelError, match="variant 'strict', step quantize: quantize: top1 drops by"):
        run(place)


def test_a_broken_policy_is_found_before_any_work(place: Path) -> None:
    (place / "gate.yaml").write_text("schema: onnxpress.policy/1\nrules: {size.totl_bytes: [error, {max: 1 MB}]}\n")
    with pytest.raises(Exception, match="totl_bytes"):
        run(place)
    assert not (place / "out").exists()


@pytest.mark.parametrize("labels", [True, False])
def test_data_that_is_not_as_it_must_be_is_found_before_any_work(place: Path, *, labels: bool) -> None:
    text = (place / "recipe.yaml").read_text()
    with np.load(place / "data.npz") as found:
        np.savez(place / "unlabelled.npz", x=found["x"])
    given = "unlabelled.npz" if labels else "none.npz"
    (place / "recipe.yaml").write_text(text.replace("evaluation: data.npz", f"evaluation: {given}"))
    with pytest.raises(DataError, match="has no labels" if labels else "no such file"):
        run(place)
    assert not (place / "out").exists()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_a_run_leaves_nothing_partial_and_then_completes(place: Path) -> None:
    command = [sys.executable, "-m", "onnxpress", "run", str(place / "recipe.yaml"), "-o", str(place / "out"), "-q"]
    start = time.monotonic()
    subprocess.run([*command[:-2], str(place / "whole"), "-q"], check=True)
    lasts = time.monotonic() - start
    moments = random.Random(0)  # noqa: S311
    killed = 0
    for _ in range(20):
        process, start = subprocess.Popen(command, start_new_session=True), time.monotonic()
        try:
            process.wait(moments.uniform(0.2, 1.0) * lasts)
            lasts = time.monotonic() - start  # later runs find finished steps and are over sooner
        except subprocess.TimeoutExpired:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for step in stored(place) if (place / "out" / "steps").is_dir() else []:
            record = json.loads((step / "step.json").read_text())
            assert artifact.read(step / "model.onnx").sha256 == record["artifact_sha256"]
        for model in (place / "out").glob("*/model.onnx"):
            artifact.read(model)
        if (place / "out" / "report.json").exists():
            Report.load(place / "out")
    assert killed >= 10
    subprocess.run(command, check=True)
    assert hashes(Report.load(place / "out")) == hashes(Report.load(place / "whole"))
    assert not list((place / "out").rglob(".tmp-*"))
