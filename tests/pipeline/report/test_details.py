from __future__ import annotations

import dataclasses

from onnxpress.report import details
from onnxpress.report.formats import html
from onnxpress.report.report import Report


def test_a_report_without_details_says_so(bare: Report) -> None:
    assert details.treemap(bare) == details.distribution(bare) == details.drift(bare) == details.operators(bare) == ""
    assert not details.flips(bare).rows and not details.resources(bare).rows
    assert "Not measured." in html.render(bare)


def test_details_are_drawn_from_what_was_measured(report: Report) -> None:
    assert report.bench is not None and report.evaluation is not None
    weights = [{"name": "w", "dtype": "float", "bytes": 4000, "zeros_pct": 12.5}]
    speeds = [
        speed
        | {
            "latency_ms": speed["latency_ms"] | {"quantiles": [1.0, 1.5, 3.0]},
            "operators": [
                {"op": "Conv", "provider": "CPUExecutionProvider", "nodes": 3, "ms": 0.9, "share_pct": 90.0},
                {"op": "Relu", "provider": "CPUExecutionProvider", "nodes": 3, "ms": 0.1, "share_pct": 10.0},
            ],
        }
        for speed in report.bench["variants"]
    ]
    changes = [change | {"ratios": [0.5, 0.51, 0.52]} for change in report.bench["comparisons"]]
    flips = [{"sample": 17, "label": 3, "change": "lost"}]
    classes = [{"label": 3, "samples": 30, "drop": 3.3, "ci95": [-3.0, 12.0], "lost": 1, "won": 0}]
    full = dataclasses.replace(
        report,
        variants=tuple(
            variant | {"weights": weights, "bytes_by_dtype": {"float": 4000}} for variant in report.variants
        ),
        bench={**report.bench, "variants": speeds, "comparisons": changes},
        evaluation={
            **report.evaluation,
            "comparisons": [
                change | {"flips": flips, "classes": classes} for change in report.evaluation["comparisons"]
            ],
        },
    )
    for drawn in (details.treemap(full), details.distribution(full), details.drift(full), details.operators(full)):
        assert drawn.startswith("<svg") and "<desc" in drawn
    assert details.flips(full).rows[0] == ("int8-dynamic", "lost", "17", "3")
    assert details.classes(full).rows[0][3] == "drop 3.30 [−3.00, 12.00] pp"
    assert details.sparsity(full).rows == (("w", "float", "4.00 kB", "12.5%"),)
    assert ("float", "Conv", "CPU", "3", "900 µs", "90.0%") in details.operator_table(full).rows
    assert "infeasible" in html.render(full)


def test_the_bars_of_sensitivity_are_those_of_the_chosen_variant_worst_first(report: Report) -> None:
    assert details.sensitive(report) == ""
    losses = [{"node": f"n{i}", "weights": 0.1 * i, "static": 0.2 * i, "at_outputs": None} for i in (1, 3, 2)]
    name = details.chosen(report)
    other = next(each for each in report.candidates if each != name)
    step = {"step": "quantize", "options": {}, "skipped": [], "cached": False}
    variants = tuple(
        variant | {"steps": [step | {"facts": {"sensitivity": losses if variant["id"] == name else losses[:1]}}]}
        if variant["id"] in (name, other)
        else variant
        for variant in report.variants
    )
    drawn = details.sensitive(dataclasses.replace(report, variants=variants))
    assert [drawn.index(f">{label}<") for label in ("n3", "n2", "n1")] == sorted(
        drawn.index(f">{label}<") for label in ("n1", "n2", "n3")
    )
    assert drawn.count("<rect") == 3 and str(name) in drawn
