from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from onnxpress.errors import DataError, UsageError
from onnxpress.report.report import Report

SAMPLE = Path(__file__).parent / "sample_report.json"


def test_the_json_text_reads_back_as_itself(report: Report) -> None:
    assert report.to_json() == SAMPLE.read_text(encoding="utf-8")
    assert Report.from_json(report.to_json()) == report


def test_access_by_variant(report: Report) -> None:
    assert report.candidates == ("int8-dynamic", "int8", "pruned", "pruned-int8")
    assert report.variant("int8")["size_bytes"] == 294310
    assert report.quality("int8")["value"] == pytest.approx(98.0556)  # type: ignore[index]
    assert report.speed("int8")["latency_ms"]["p50"] == 1.287  # type: ignore[index]
    assert report.quality_change("int8")["samples"] == 360  # type: ignore[index]
    assert report.speed_change("int8")["change_pct"] == -55.8  # type: ignore[index]
    assert report.speed_change("int8", "latency.p99") is None
    assert report.speed_change("float") is None
    assert report.quality_change("float") is None
    assert [price["instance"].split("/")[1] for price in report.prices("int8")] == ["c3-standard-4", "e2-standard-2"]
    assert report.price("int8", "nowhere") is None
    assert {check.variant for check in report.checks_of("int8")} == {"int8"}
    with pytest.raises(KeyError):
        report.variant("int4")


def test_what_was_not_measured_is_none(bare: Report) -> None:
    assert (bare.metric, bare.quality("int8"), bare.speed("int8"), bare.verdict) == (None, None, None, None)
    assert (bare.quality_change("int8"), bare.speed_change("int8")) == (None, None)
    assert list(bare.prices("int8")) == []
    assert Report.from_json(bare.to_json()) == bare


def test_the_verdict_follows_from_the_checks(report: Report) -> None:
    assert report.verdict == "fail"
    passed = [check for check in report.checks if check.outcome == "pass"]
    assert report.with_checks(passed).verdict == "pass"


def test_numbers_that_json_lacks_become_null(report: Report) -> None:
    broken = dataclasses.replace(report, export={"max_abs_error": float("nan"), "shapes_checked": [float("inf"), 1.5]})
    assert json.loads(broken.to_json())["export"] == {"max_abs_error": None, "shapes_checked": [None, 1.5]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "schema None, this version of onnxpress reads 'onnxpress.report/1'"),
        ('{"schema": "onnxpress.report/2"}', "schema 'onnxpress.report/2'"),
        ('{"schema": "onnxpress.bench/1"}', "schema 'onnxpress.bench/1'"),
        ('{"schema": "onnxpress.report/1"}', "recipe: Field required"),
        (
            json.dumps(json.loads(SAMPLE.read_text()) | {"baseline": "fp64"}),
            "'fp64' is not among the variants",
        ),
        (json.dumps(json.loads(SAMPLE.read_text()) | {"checks": [{"rule": "x"}]}), "checks[0].variant: Field required"),
    ],
)
def test_what_is_no_report_of_this_version_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        Report.from_json(text, origin="report r.json")
    assert message in str(error.value)
    assert str(error.value).startswith(("report r.json: ", "report r.json, line 1: "))
    assert error.value.exit_code == 3


def test_load_takes_a_run_folder_or_a_file(tmp_path: Path, report: Report) -> None:
    (tmp_path / "report.json").write_text(report.to_json(), encoding="utf-8")
    assert Report.load(tmp_path) == Report.load(tmp_path / "report.json") == report
    with pytest.raises(UsageError, match="No such file"):
        Report.load(tmp_path / "elsewhere")
    (tmp_path / "report.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        Report.load(tmp_path)


def test_gating_a_finished_report_imports_nothing_heavy(tmp_path: Path) -> None:
    policy = tmp_path / "gate.yaml"
    policy.write_text("schema: onnxpress.policy/1\nrules: {size.total_bytes: [error, {max: 1 MB}]}\n")
    code = f"""
import datetime, pathlib, sys
from onnxpress.gate.gate import gate
from onnxpress.gate import reader
from onnxpress.report.formats import terminal
from onnxpress.report.report import Report
report = Report.load(pathlib.Path({str(SAMPLE)!r}))
checks = gate(report, reader.read(pathlib.Path({str(policy)!r})), datetime.date(2026, 8, 14))
terminal.gate(report.with_checks(checks), "gate.yaml", 0)
print(sorted({{"torch", "onnxruntime", "onnx", "onnx_ir", "numpy", "jinja2"}} & sys.modules.keys()))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
