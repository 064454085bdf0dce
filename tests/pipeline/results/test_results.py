import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxpress.errors import DataError, UsageError
from onnxpress.report.report import Report as Shown
from onnxpress.results.base import Result, read_json
from onnxpress.results.benchmark import Benchmark
from onnxpress.results.report import Baseline, Report

SAMPLE = json.loads((Path(__file__).parents[1] / "report" / "sample_report.json").read_text())
BASELINE = {
    "schema": "onnxpress.baseline/1",
    "baseline": "float",
    "variants": {"float": {"sha256": "0", "metrics": {"accuracy.top1": 98.0}}},
}
Read = Callable[[Any, type[Result]], Result]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a document and read it."""

    def call(document: Any, kind: type[Result]) -> Result:
        file = tmp_path / "r.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_json(file, kind, "report", advice="Write it again.")

    return call


def changed(path: str, value: Any, document: Any = SAMPLE) -> Any:
    """Return a copy of a document with another value at ``variants/0/id``; `...` removes it."""
    made = copy.deepcopy(document)
    holder = made
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in way:
        holder = holder[part]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return made


def test_what_is_written_reads_back_equal(read: Read) -> None:
    assert read(SAMPLE, Report).document == SAMPLE
    assert read(SAMPLE["bench"], Benchmark).document == SAMPLE["bench"]
    assert read(BASELINE, Baseline).document == BASELINE


def test_what_a_newer_version_adds_is_kept(read: Read) -> None:
    newer = changed("variants/0/kernels/int2", 5, changed("planet", "Earth"))
    assert read(newer, Report).document == newer


def test_results_are_frozen(read: Read) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read(SAMPLE, Report).baseline = "int8"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("variants", [], "variants: "),
        ("variants/0/id", "", "variants[0].id: "),
        ("variants/0/id", "int8", "variant 'int8' is there twice"),
        ("variants/0/id", ..., "variants[0].id: Field required"),
        ("variants/0/id", None, "variants[0].id: "),
        ("variants/0/id", "x" * 5000, "variants[0].id: "),
        ("variants/0/size_bytes", 0, "variants[0].size_bytes: "),
        ("variants/0/size_bytes", "12", "variants[0].size_bytes: Input should be a valid integer (given: '12')"),
        ("variants/0/size_bytes", True, "variants[0].size_bytes: "),
        ("variants/0/size_bytes", 2**62, "variants[0].size_bytes: "),
        ("variants/1/steps", {}, "variants[1].steps: "),
        ("baseline", "fp64", "the baseline 'fp64' is not among the variants"),
        ("checks/0/variant", "fp64", "the variant of a check 'fp64' is not among the variants"),
        ("checks/0/verdict", "maybe", "checks[0].verdict: "),
        ("checks/0/line", -1, "checks[0].line: "),
        ("bench/variants/0/latency_ms/p50", -1.0, "bench.variants[0].latency_ms.p50: "),
        ("bench/variants/0/latency_ms/p50", 1e300, "bench.variants[0].latency_ms.p50: "),
        ("bench/variants/0/throughput_per_s/value", 0, "bench.variants[0].throughput_per_s.value: "),
        ("bench/variants/0/throughput_per_s/low", 1e9, "is reversed"),
        ("bench/comparisons/0/ci95_pct", [2.0, 1.0], "the interval [2.0, 1.0] is reversed"),
        ("bench/comparisons/0/ci95_pct", [2.0], "bench.comparisons[0].ci95_pct"),
        ("bench/comparisons/0/change_pct", -101, "bench.comparisons[0].change_pct: "),
        ("bench/comparisons/0/candidate", "fp64", "a comparison's candidate 'fp64' is not among the variants"),
        ("bench/baseline", "int8", "baseline 'int8' of a measurement is not the report's"),
        ("bench/host/fingerprint", {}, "bench.host.fingerprint: "),
        ("evaluation/comparisons/0/ci95", [3.0, -3.0], "the interval [3.0, -3.0] is reversed"),
        ("evaluation/comparisons/0/lost", -2, "evaluation.comparisons[0].lost: "),
        ("evaluation/comparisons/0/lost", 2.5, "evaluation.comparisons[0].lost: "),
        ("evaluation/variants/0/agreement_pct", 101, "evaluation.variants[0].agreement_pct: "),
        ("evaluation/metric/name", 7, "evaluation.metric.name: "),
        ("cost/variants/0/instances/0/as_of", "yesterday", "cost.variants[0].instances[0].as_of: "),
        ("cost/variants/0/instances/0/usd_per_hour", -1, "cost.variants[0].instances[0].usd_per_hour: "),
        ("cost/utilisation", 0, "cost.utilisation: "),
        ("schema", "onnxpress.report/9", "schema 'onnxpress.report/9', this version of onnxpress reads"),
        ("export", [], "export: "),
    ],
)
def test_a_damaged_report_is_refused_with_the_place(read: Read, path: str, value: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(changed(path, value), Report)
    assert message in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("variants", {}, "variants: "),
        ("variants/float/metrics/accuracy.top1", "98", "variants.float.metrics.accuracy.top1: "),
        ("variants/float", [], "variants.float: "),
        ("baseline", "int8", "the baseline 'int8' is not among the variants"),
    ],
)
def test_a_damaged_baseline_is_refused_with_the_place(read: Read, path: str, value: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(changed(path, value, BASELINE), Baseline)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "NaN", '{"a": 1, "a": 2}', "[" * 100_000, "9" * 100_000, '"x"'])
def test_what_is_no_document_is_refused_in_one_line(read: Read, text: str) -> None:
    with pytest.raises(DataError) as caught:
        read(text, Report)
    assert str(caught.value).endswith(" Write it again.") and len(str(caught.value)) < 300


def test_a_file_that_is_not_there_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(No such file or directory\)\. Write it again\.$"):
        read_json(tmp_path / "r.json", Report, "report", advice="Write it again.")


def test_a_report_says_the_same_when_it_is_read_again() -> None:
    report = Shown.from_json(json.dumps(SAMPLE))
    assert Shown.from_json(report.to_json()) == report
