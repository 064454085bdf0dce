"""The gate on real models: what is measured, what is written, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import artifact
from onnxpress.errors import OutputError
from onnxpress.report import files
from onnxpress.report.report import Report

Compress = Callable[..., Any]
TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,4,4] x) => (float[N,2] y)
<float[2,3,1,1] w = {1, 2, 3, -1, -2, 0.5}> { c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }"""
STATIC = """schema: onnxpress.policy/1
rules:
  size.total_bytes: [error, {max: 1 MB}]
  graph.forbidden_ops: [error, {any: [If, Loop]}]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Compress) -> Path:
    """A folder with a float and an int8 model, data, and a policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    artifact.save(ir.from_proto(onnx.parser.parse_model(TEXT)), tmp_path / "float.onnx")
    x = np.random.default_rng(0).normal(size=(40, 3, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0].mean((1, 2)) > 0).astype(np.int64))
    np.savez(tmp_path / "other.npz", x=x + 1)
    assert compress("quantize", "float.onnx", "-o", "int8.onnx", "--calibration", "other.npz", "-q").code == 0
    (tmp_path / "compress-gate.yaml").write_text(STATIC)
    return tmp_path


def verdicts(ended: Any) -> dict[str, str]:
    return {check["rule"]: check["verdict"] for check in json.loads(ended.out)["checks"]}


def test_models_are_measured_as_far_as_the_rules_need(place: Path, compress: Compress) -> None:
    ended = compress("gate", "float.onnx", "int8.onnx", "--json", "-", "-q")
    assert ended.code == 0, ended.err
    assert verdicts(ended) == {"size.total_bytes": "pass", "graph.forbidden_ops": "pass"}
    (place / "compress-gate.yaml").write_text(
        STATIC
        + "  accuracy.top1: [error, {max_drop: 90pp}]\n"
        + "  fidelity.nan_inf: [error, {max: 0}]\n"
        + "  provenance.lineage_complete: error\n"
        + "  provenance.calibration_disjoint_from_eval: error\n"
        + "  latency.p50: [error, {max: 1 h}]\n"
    )
    words = ("--data", "data.npz", "--metric", "top1", "--calibration", "other.npz", "--static", "--json", "-", "-q")
    ended = compress("gate", "int8.onnx", "--baseline", "float.onnx", *words)
    assert ended.code == 0, ended.err
    found = verdicts(ended)
    assert found.pop("latency.p50") == "skipped"
    assert set(found.values()) == {"pass"}
    same = compress("gate", "float.onnx", "int8.onnx", "--data", "other.npz", "--static", "--json", "-", "-q")
    assert verdicts(same)["provenance.calibration_disjoint_from_eval"] == "fail"
    assert same.code == 1


def test_a_cheap_failure_comes_before_any_timing(place: Path, compress: Compress) -> None:
    (place / "compress-gate.yaml").write_text(STATIC.replace("1 MB", "1 B") + "  latency.p50: [error, {max: 1 h}]\n")
    ended = compress("gate", "float.onnx", "int8.onnx", "--json", "-", "-q")
    assert (ended.code, verdicts(ended)["latency.p50"]) == (1, "skipped")
    assert compress("gate", "float.onnx", "int8.onnx", "--exit-zero", "-q").code == 0


def test_init_gate_baseline_on_a_measured_pair(place: Path, compress: Compress) -> None:
    (place / "compress-gate.yaml").unlink()
    words = ("float.onnx", "int8.onnx", "--data", "data.npz", "--metric", "top1", "--budget", "1s", "-q")
    assert compress("gate", "init", *words, "--headroom", "900%").code == 0
    policy = (place / "compress-gate.yaml").read_text()
    assert "  latency.p50: [error, {max" in policy or "  # latency.p50: " in policy  # as far as a second decides
    assert "accuracy.top1: [error, {max_drop: " in policy
    ended = compress("gate", *words, "--out", "out", "--json", "-")
    document = json.loads(ended.out)
    assert {check["verdict"] for check in document["checks"]} <= {"pass", "inconclusive"}, document["checks"]
    assert sorted(file.name for file in (place / "out").iterdir()) == [
        "benchmark-bigger.json",
        "benchmark.json",
        "gate.html",
        "gate.json",
        "gate.md",
        "gate.sarif",
        "gate.xml",
        "report.json",
    ]
    assert compress("baseline", "write", "out", "-q").code == 0
    stored = json.loads((place / "compress-baseline.json").read_text())
    assert stored["variants"]["int8"]["metrics"]["size.total_bytes"] == (place / "int8.onnx").stat().st_size
    assert compress("baseline", "diff", "out/report.json").code == 0
    refused = compress("gate", "init", *words)
    assert refused.code == 2
    assert "exists already" in refused.err


def test_strict_and_max_warnings(place: Path, compress: Compress) -> None:
    (place / "compress-gate.yaml").write_text(STATIC + "  size.compressed_bytes: [warn, {max: 1 B}]\n")
    words = ("gate", "float.onnx", "int8.onnx", "-q")
    assert compress(*words).code == 0
    assert compress(*words, "--max-warnings", 1).code == 0
    assert compress(*words, "--max-warnings", 0).code == 1
    assert compress(*words, "--strict").code == 1


def test_inside_a_github_action(place: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "compress-gate.yaml").write_text(STATIC.replace("1 MB", "1 B"))
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.setenv(name, str(place / name))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    ended = compress("gate", "float.onnx", "int8.onnx", "-q", "--out", "out")
    assert ended.out.startswith("::error file=compress-gate.yaml,line=3,title=size.total_bytes::int8: fail, measured ")
    outputs = dict(line.split("=", 1) for line in (place / "GITHUB_OUTPUT").read_text().splitlines())
    assert outputs == {"verdict": "fail", "failed": "1", "exit-code": "1", "report": "out/gate.html"}
    assert "✗ fail" in (place / "GITHUB_STEP_SUMMARY").read_text()
    assert compress("gate", "float.onnx", "int8.onnx", "-q", "--annotations", "none").out == ""


JUNIT_ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "disabled", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
    "testcase": {"name", "classname", "time", "assertions", "status"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message", "type"},
    "system-out": set(),
}
"""What the schemas of Jenkins (junit-10.xsd) and of Apache Ant's reader both allow."""


def test_junit_keeps_to_the_schema(place: Path, compress: Compress) -> None:
    (place / "compress-gate.yaml").write_text(
        STATIC.replace("1 MB", "1 B") + "  accuracy.top1: [error, {max_drop: 1pp}]\n"
    )
    compress("gate", "float.onnx", "int8.onnx", "-q", "--keep-going", "--junit", "gate.xml")
    root = ET.parse(place / "gate.xml").getroot()  # noqa: S314 - our own
    for element in root.iter():
        assert set(element.attrib) <= JUNIT_ATTRIBUTES[element.tag]
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.attrib[name]) == len(suite.findall(f"testcase/{tag}"))
        for case in cases:
            assert [part.tag for part in case][-1] == "system-out"
            assert float(case.attrib["time"]) >= 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("float.onnx",), 2, "nothing to compare it with"),
        (("float.onnx", "int8.onnx", "--policy", "no.yaml"), 2, "(No such file or directory). Name one with --policy"),
        (("float.onnx", "nothing.onnx"), 2, "no such file"),
        (("float.onnx", "int8.onnx", "--variant", "int4"), 2, "Did you mean 'int8'?"),
        (("float.onnx", "int8.onnx", "--metric", "top7"), 2, "metric 'top7': unknown"),
        ((), 2, "Missing argument 'TARGETS...'"),
    ],
)
@pytest.mark.usefixtures("place")
def test_mistakes_are_one_line(compress: Compress, words: tuple[str, ...], code: int, message: str) -> None:
    ended = compress("gate", *words, "-q")
    assert ended.code == code
    assert message in ended.err


def test_each_kind_of_policy_error_has_its_message_and_code(place: Path, compress: Compress) -> None:
    found = {}
    for name, rules in {
        "misspelt": "  size.totl_bytes: [error, {max: 1 MB}]\n",
        "no unit": "  size.total_bytes: [error, {max: 25}]\n",
        "missing metric": "  accuracy.top1: [error, {max_drop: 1pp}]\n",
        "expired waiver": "  size.total_bytes: [error, {max: 1 B}]\nwaivers:\n"
        "  - {rule: size.total_bytes, reason: r, owner: alice, expires: 2020-01-31, max: 1 MB}\n",
    }.items():
        (place / "compress-gate.yaml").write_text(f"schema: onnxpress.policy/1\nrules:\n{rules}")
        ended = compress("gate", "float.onnx", "int8.onnx")
        found[name] = (ended.code, ended.out + ended.err)
    assert {name: code for name, (code, _) in found.items()} == {
        "misspelt": 2,
        "no unit": 2,
        "missing metric": 4,
        "expired waiver": 1,
    }
    for name, message in {
        "misspelt": "Did you mean 'size.total_bytes'?",
        "no unit": "'25': has no unit",
        "missing metric": "Measure it with `compress gate MODEL… --data DATA (with labels in y) --metric top1`",
        "expired waiver": "the waiver of alice expired on 2020-01-31",
    }.items():
        assert message in " ".join(found[name][1].split()), found[name]


RECIPE = """schema: onnxpress.recipe/1
model: {source: float.onnx}
data: {calibration: other.npz, evaluation: data.npz, metric: top1}
variants:
  int8: [{quantize: {}}]
gate: compress-gate.yaml
"""


def test_run_and_gate_judge_alike_and_leave_one_verdict(place: Path, compress: Compress) -> None:
    (place / "recipe.yaml").write_text(RECIPE)
    (place / "compress-gate.yaml").write_text(
        "schema: onnxpress.policy/1\nbaseline: {metrics: last.json}\nrules:\n"
        "  size.total_bytes: [error, {max_growth: 0%}]\n  accuracy.top1: [warn, {max_drop: 1pp, max_fall: 50pp}]\n"
    )
    first = compress("run", "recipe.yaml", "-o", "out", "-q")
    assert first.code == 4, first.err  # nothing is stored yet
    assert compress("baseline", "write", "out", "-o", "last.json", "-q").code == 0
    assert compress("run", "recipe.yaml", "-o", "out", "-q").code == 0
    document = json.loads((place / "last.json").read_text())
    for variant in document["variants"].values():
        variant["metrics"]["size.total_bytes"] -= 1
    (place / "last.json").write_text(json.dumps(document))
    assert compress("run", "recipe.yaml", "-o", "out", "-q").code == 1
    written = {name: (place / "out" / name).read_bytes() for name in ("report.json", "report.md", "report.html")}
    for words in (("out",), ("out/report.json",)):
        again = compress("gate", *words, "--json", "-", "-q")
        assert again.code == 1
        assert json.loads(again.out)["checks"] == json.loads(written["report.json"])["checks"]
    assert {name: (place / "out" / name).read_bytes() for name in written} == written


def test_the_report_of_a_run_shows_the_last_verdict(place: Path, compress: Compress) -> None:
    (place / "recipe.yaml").write_text(RECIPE)
    assert compress("run", "recipe.yaml", "-o", "out", "-q").code == 0
    (place / "strict.yaml").write_text(STATIC.replace("1 MB", "1 B"))
    assert compress("gate", "out", "--policy", "strict.yaml", "--static", "-q").code == 1
    assert json.loads((place / "out" / "report.json").read_text())["verdict"] == "pass"  # a part is not the whole
    assert compress("gate", "out", "--policy", "strict.yaml", "-q").code == 1
    assert json.loads((place / "out" / "report.json").read_text())["verdict"] == "fail"
    for name in ("report.md", "report.html"):
        assert "The gate fails" in (place / "out" / name).read_text()
    (place / "warns.yaml").write_text(STATIC.replace("error, {max: 1 MB", "warn, {max: 1 B"))
    assert compress("gate", "out", "--policy", "warns.yaml", "-q", "--max-warnings", 0, "--out", "forms").code == 1
    assert json.loads((place / "out" / "report.json").read_text())["verdict"] == "fail"
    assert json.loads((place / "forms" / "gate.json").read_text())["exit_code"] == 1


def read_only(_report: Report, folder: Path) -> None:
    raise OutputError(f"output {folder / 'report.json'}: Read-only file system. Choose another folder.")


def test_a_run_folder_that_cannot_be_written_is_judged_all_the_same(
    place: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "recipe.yaml").write_text(RECIPE)
    assert compress("run", "recipe.yaml", "-o", "out", "-q").code == 0
    (place / "strict.yaml").write_text(STATIC.replace("1 MB", "1 B"))
    monkeypatch.setattr(files, "write", read_only)
    ended = compress("gate", "out", "--policy", "strict.yaml", "-q")
    assert ended.code == 1
    assert ended.err.startswith("warning: the report in out still has the verdict")
    assert ended.err.count("\n") == 1


def test_the_help_names_init(compress: Compress) -> None:
    text = " ".join(compress("gate", "--help").out.split())
    assert "Commands: init TARGETS Measure TARGETS" in text


def test_a_static_gate_says_what_it_did_not_judge(place: Path, compress: Compress) -> None:
    (place / "compress-gate.yaml").write_text(STATIC + "  latency.p50: [error, {max: 1 h}]\n")
    ended = compress("gate", "float.onnx", "int8.onnx", "--static")
    assert ended.code == 0
    said = " ".join(ended.out.split())
    assert "Not judged, though they may stop a release: latency.p50 (--static times nothing)." in said
