"""Measures what a policy's rules need, for ``compress gate MODEL…``: cheap and deterministic things first."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxpress import description, provenance
from onnxpress.bench.options import BenchOptions
from onnxpress.cost.options import CostOptions
from onnxpress.data import shared_samples
from onnxpress.gate.rules import Need
from onnxpress.progress import Progress
from onnxpress.report.report import Report
from onnxpress_calibration.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured, and with what."""

    models: Mapping[str, Path]
    baseline: str
    needs: Collection[Need]
    data: Dataset | None = None
    """Evaluation samples; the benchmark runs on them, too."""
    metric: str | None = None
    calibration: Dataset | None = None
    """What the models were calibrated with, where the evaluation must not share samples with it."""
    bench: BenchOptions
    cost: CostOptions
    regressions: Collection[float]
    """See `policy.Policy.regressions`."""


def measure_files(plan: Plan, progress: Progress) -> Report:
    """Return a report of what does not depend on the machine of the day: files, kernels, accuracy."""
    variants = []
    for name, path in plan.models.items():
        with progress.task(f"read {name}"):
            facts = (description.describe if "session" in plan.needs else description.file_facts)(path)
        steps = [
            {"step": entry.get("step"), "options": entry.get("options") or {}, "facts": {}, "skipped": []}
            for entry in facts["lineage"]
            if entry.get("step") != "export"
        ]
        variants.append(facts | {"id": name, "path": str(path), "steps": steps})
    return Report(
        recipe={"name": plan.baseline},
        versions=provenance.versions(),
        created=None,
        baseline=plan.baseline,
        variants=tuple(variants),
        evaluation=_evaluation(plan, progress) if plan.data is not None and "evaluation" in plan.needs else None,
    )


def measure_times(plan: Plan, report: Report, progress: Progress) -> Report:
    """Return the report with the benchmark, and the cost where a rule needs it."""
    from onnxpress.bench.bench import bench
    from onnxpress.cost.cost import cost

    if not {"bench", "cost"} & set(plan.needs):
        return report
    with progress.task("bench", 100) as advance:
        timings = bench(
            plan.models,
            baseline=plan.baseline,
            options=plan.bench,
            inputs=plan.data,
            limits=plan.regressions,
            advance=advance,
        ).to_json()
    costs = cost(timings, plan.cost) if "cost" in plan.needs else None
    return dataclasses.replace(report, bench=timings, cost=costs)


def _evaluation(plan: Plan, progress: Progress) -> dict[str, Any]:
    from onnxpress.evaluation.evaluate import evaluate

    assert plan.data is not None  # noqa: S101 - the caller looked
    with progress.task("evaluate", plan.data.count) as advance:
        document = evaluate(plan.models, baseline=plan.baseline, data=plan.data, metric=plan.metric, advance=advance)
    if plan.calibration is not None:
        document["data"]["shared_with_calibration"] = shared_samples(plan.calibration, plan.data)
    return {name: value for name, value in document.items() if name != "per_sample"}
