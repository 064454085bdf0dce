"""What every form of the report must do; a new file in the folder is under test from the day it appears."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable

import pytest

from onnxpress.report import formats
from onnxpress.report.report import Report

Render = Callable[[Report], str]
NAMES = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))


@pytest.fixture(params=NAMES)
def render(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Render:
    monkeypatch.setenv("COLUMNS", "220")
    found: Render = importlib.import_module(f"onnxpress.report.formats.{request.param}").render
    return found


def plain(text: str) -> str:
    """Undo Markdown's and HTML's escapes."""
    return text.replace("\\", "").replace("&lt;", "<").replace("&gt;", ">")


def test_the_numbers_are_there(render: Render, report: Report) -> None:
    text = plain(render(report))
    for expected in (
        "digits_resnet",
        *("float", "int8-dynamic", "int8", "pruned", "pruned-int8"),
        *("1.10 MB", "220 kB", "0.20×", "2.91 ms", "0.347× [0.343, 0.352]", "98.33%"),
        *("31.4 dB", "99.4%", "0.117", "0.35×"),
        *("✗ fail", "? inconclusive", "~ waived", "The gate fails: 1 fail, 4 inconclusive, 6 warn, 1 waived"),
        "360 samples resolve 1.54 pp; about 1700 would decide max_drop 1pp",
        "until 2026-12-31 (platform, max_regression 25%)",
        "below 1× is smaller, faster, cheaper",
        "gcp/c3-standard-4/us-central1",
        "a drop below 1.39 pp (int8-dynamic) to 1.88 pp (pruned-int8) cannot be told from none",
        "Xeon(R) Platinum 8481C",
        "Throughput was measured on the host of the benchmark, not on these machines",
        "compared with PyTorch on 3 input shapes; the largest error was 4.8e-06 absolute, 2.1e-05 relative",
    ):
        assert expected in text, expected


def test_samples_that_were_calibrated_with_are_said(render: Render, report: Report) -> None:
    assert report.evaluation is not None
    said = "of the 360 evaluation samples were calibrated with: models look better than they are"
    for shared in (0, 7):
        data = {**report.evaluation["data"], "shared_with_calibration": shared}
        text = plain(render(dataclasses.replace(report, evaluation={**report.evaluation, "data": data})))
        assert (f"{shared} {said}" in text) == bool(shared)


def test_what_was_not_measured_is_said(render: Render, bare: Report) -> None:
    text = plain(render(bare))
    for expected in (
        "not measured",
        "No gate was set.",
        "Nothing is recommended: accuracy and fidelity were not measured. Add `data: {evaluation: DATA, metric: top1}`",
        "Accuracy and fidelity were not measured.",
        "Latency, memory and cold start were not measured.",
        "Cost was not computed.",
        "was not compared with its source",
    ):
        assert expected in text, expected


def test_equal_reports_give_equal_text(render: Render, report: Report) -> None:
    assert render(report) == render(Report.from_json(report.to_json()))


def test_names_are_shown_not_computed(render: Render, hostile: Report) -> None:
    assert "{{ 7 * 7 }}" in render(hostile).replace("\\", "")


def test_a_gate_that_nothing_passes(render: Render, report: Report) -> None:
    checks = [dataclasses.replace(check, verdict="fail", level="error") for check in report.checks]
    assert "No variant passes it." in render(report.with_checks(checks))


def test_a_baseline_alone(render: Render, bare: Report) -> None:
    assert "There is only the baseline." in render(dataclasses.replace(bare, variants=bare.variants[:1]))


def test_labels_are_not_needed(render: Render, report: Report) -> None:
    assert report.evaluation is not None
    variants = [variant | {"value": None} for variant in report.evaluation["variants"]]
    unlabelled = {**report.evaluation, "metric": None, "variants": variants, "comparisons": []}
    text = plain(render(dataclasses.replace(report, evaluation=unlabelled)))
    assert "fidelity to float on 360 samples stands in for accuracy" in text
    assert "31.4 dB" in text


def test_an_unfit_host_is_said(render: Render, report: Report) -> None:
    assert report.bench is not None
    text = plain(render(dataclasses.replace(report, bench={**report.bench, "fit_for_gating": False})))
    assert "These timings are not fit for a decision" in text


def test_a_benchmark_of_throughput_alone(render: Render, report: Report) -> None:
    assert report.bench is not None
    offline = [variant | {"latency_ms": None} for variant in report.bench["variants"]]
    text = plain(render(dataclasses.replace(report, bench={**report.bench, "variants": offline, "comparisons": []})))
    assert "Smallest variant that passes: pruned-int8" in text


def test_nulls_of_a_result_are_said(render: Render, report: Report) -> None:
    assert report.bench is not None and report.cost is not None
    slow = report.bench["variants"][1]
    absent = slow | {
        "latency_ms": slow["latency_ms"] | {"p90": None, "p99": None},
        "throughput_per_s": {"value": None, "low": None, "high": None},
        "memory": {"vm_hwm_bytes": None},
    }
    priceless = {"id": "int8", "instances": [report.prices("int8")[0] | {"usd_per_million": None, "as_of": None}]}
    changed = dataclasses.replace(
        report,
        bench={**report.bench, "variants": [report.bench["variants"][0], absent, *report.bench["variants"][2:]]},
        cost={**report.cost, "variants": [priceless]},
    )
    text = render(changed)
    assert "not measured" in text
    assert "None" not in text


def test_every_form_is_a_file_with_render() -> None:
    assert {"html", "markdown", "terminal"} <= set(NAMES)
    for name in NAMES:
        assert callable(importlib.import_module(f"onnxpress.report.formats.{name}").render)
