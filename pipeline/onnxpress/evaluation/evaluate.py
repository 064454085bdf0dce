"""The evaluate command: metric and fidelity of several models on the same samples, compared in pairs.

Samples go through one at a time (or in the batch a model is fixed to), as a service would see them: a dynamically
quantized model computes its ranges over a whole batch, so larger batches would show another accuracy.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import artifact, cpu, graph
from onnxpress.errors import DataError, EvidenceError, ModelError, UsageError, did_you_mean
from onnxpress.evaluation import metrics
from onnxpress.evaluation.fidelity import Fidelity, without_padding
from onnxpress.evaluation.flips import by_class, flips, worst_class
from onnxpress.evaluation.outputs import detections
from onnxpress.evaluation.paired import drop_interval, either_interval, tango, two_values, value_interval
from onnxpress.running import over
from onnxpress.session import SessionOptions, open_session
from onnxpress_calibration.dataset import LABELS, Dataset, samples_in
from onnxpress_calibration.documents import shortened
from onnxpress_calibration.sources.function import accepts, load_function

SCHEMA = "onnxpress.evaluation/1"
Array = np.ndarray[Any, np.dtype[Any]]


def evaluate(
    models: Mapping[str, Path | ir.Model],
    *,
    baseline: str,
    data: Dataset,
    metric: str | None = None,
    half: int | None = None,
    must_compare: bool = True,
    options: SessionOptions | None = None,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> dict[str, Any]:
    """Evaluate models against their baseline.

    Args:
        models: Files, or models in memory, by name, the baseline among them.
        baseline: Name of the float model.
        data: Samples, labelled where the metric needs it.
        metric: A file in ``evaluation/metrics``, or a user's ``module:fn`` or ``file.py:fn`` (`user_results`); None
            for fidelity only.
        half: 0 or 1 for every second batch only, so that what one half decided is confirmed on the other; None for all.
        must_compare: Whether outputs that cannot be compared are an error, where there is no metric.
        options: Provider and threads.
        advance: Called with the number of samples after each batch.

    Returns:
        The document ``onnxpress.evaluation/1``. Drops are positive where the candidate is worse.

    Raises:
        UsageError: the metric is unknown.
        DataError: the data does not fit the models, or has no labels though the metric needs them.
        ModelError: outputs cannot be compared, and there is no metric that says what counts.
    """
    check_metric(metric)
    built_in = metrics.metric(metric) if metric in metrics.names() else None
    model = _loaded(models[baseline])
    specs, boxes = graph.input_specs(model), detections(model)
    fidelity = {name: Fidelity() for name in models}
    incomparable: dict[str, str] = {}
    scores: dict[str, list[Array]] = {name: [] for name in models}
    labels: list[Array] = []
    samples = 0
    batches = (batch for position, batch in enumerate(data.batches(specs)) if half is None or position % 2 == half)
    for feeds, found in over(list(models.values()), batches, options):
        outputs, size = dict(zip(models, found, strict=True)), samples_in(feeds)
        if built_in is not None:
            if LABELS not in feeds:
                raise _unlabelled(data, metric)
            labels.append(feeds[LABELS])
        reference = without_padding(outputs[baseline], feeds)
        for name in models:
            given = without_padding(outputs[name], feeds)
            try:
                fidelity[name].update(reference, given, samples=size, found=boxes, variant=name)
            except ModelError as error:
                if metric is None and must_compare:
                    raise
                incomparable[name], fidelity[name] = str(error), Fidelity()
            if built_in is not None:
                scores[name].append(built_in.score(given.get(next(iter(reference), "")), feeds[LABELS]))
        samples += size
        advance(size)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "data": {"origin": data.origin, "samples": samples, "sha256": data.sha256},
        "metric": None,
        "baseline": baseline,
        "variants": [
            {
                "id": name,
                "value": None,
                "agreement_pct": fidelity[name].agreement_pct,
                "expected_drop": fidelity[name].expected_drop,
                "cosine": fidelity[name].cosine,
                "compared": fidelity[name].is_evidence,
                "cosine_p01": fidelity[name].cosine_p01,
                "non_finite": fidelity[name].non_finite,
                "sqnr_db": None if name == baseline else fidelity[name].sqnr_db,
                "ci95": fidelity[name].intervals(),
            }
            for name in models
        ],
        "comparisons": [],
        "warnings": [
            *(f"{name}: {message}" for name, message in incomparable.items()),
            *(
                f"{name}: {message}"
                for name, model in models.items()
                for message in cpu.made_for_others(artifact.lineage(_loaded(model)))
            ),
        ],
    }
    if built_in is not None:
        truth = np.concatenate(labels)
        truth = truth.astype(str) if truth.dtype == object else truth
        per_sample = {name: np.concatenate(parts) for name, parts in scores.items()}
        values = {name: built_in.aggregate(each, truth) for name, each in per_sample.items()}
        _add_metric(document, metric or "", built_in, values, per_sample, truth, classes=truth)
    elif metric is not None:
        sessions = {name: open_session(model, options) for name, model in models.items()}
        add_user_metric(document, metric, user_results(metric, sessions), half)
    return document


def _loaded(model: Path | ir.Model) -> ir.Model:
    return model if isinstance(model, ir.Model) else artifact.load(model)


def check_metric(metric: str | None) -> None:
    """Raise UsageError for a metric that does not exist, before anything runs."""
    if metric is not None and metric not in metrics.names():
        if not accepts(metric):
            raise UsageError(
                f"metric {metric!r}: unknown.{did_you_mean(metric, metrics.names())} "
                "Or give file.py:function or module:function."
            )
        load_function(metric)


def check_labels(data: Dataset, metric: str | None) -> None:
    """Raise DataError for data without the labels that a metric needs, before anything runs."""
    if metric in metrics.names() and LABELS not in next(data.samples(), {LABELS: None}):
        raise _unlabelled(data, metric)


def check_evidence(document: Mapping[str, Any], variant: str) -> None:
    """Raise EvidenceError where nothing says what a variant lost: no metric, and no output with anything in it."""
    found = next(each for each in document["variants"] if each["id"] == variant)
    if document["metric"] is None and not found["compared"]:
        data = document["data"]
        raise EvidenceError(
            f"data {data['origin']}: the outputs hold nothing on any of its {data['samples']} samples, so nothing can "
            "be compared. Give samples on which the model finds something, or --metric module:fn."
        )


def _unlabelled(data: Dataset, metric: str | None) -> DataError:
    return DataError(
        f"data {data.origin}: has no labels. Metric {metric} needs them in an array named 'y'; "
        "for a folder of images, name a CSV file in its preprocessing (labels: labels.csv)."
    )


def _add_metric(
    document: dict[str, Any],
    name: str,
    metric: metrics.Metric,
    values: Mapping[str, float],
    per_sample: Mapping[str, Array],
    labels: Array,
    *,
    classes: Array | None,
) -> None:
    document["metric"] = {"name": name, "unit": metric.UNIT, "higher_is_better": True}
    document["per_sample"] = {variant: each.tolist() for variant, each in per_sample.items()}
    baseline = document["baseline"]
    reference = per_sample[baseline]
    for variant in document["variants"]:
        identifier = variant["id"]
        variant["value"] = values[identifier]
        candidate = per_sample[identifier]
        pair = None if metric.SCALE is None else two_values(reference, candidate)
        variant["ci95"]["value"] = (
            value_interval(candidate, labels, metric).ci95
            if pair is None
            else [(metric.SCALE or 1) * end for end in either_interval(candidate, *pair)]
        )
        if identifier == baseline:
            continue
        comparison: dict[str, Any] = {
            "baseline": baseline,
            "candidate": identifier,
            "metric": f"accuracy.{name}",
            "samples": len(candidate),
            "drop": values[baseline] - values[identifier],
        }
        if pair is None:
            ends = drop_interval(reference, candidate, labels, metric)
            comparison |= {"ci95": ends.ci95, "why": ends.why, "method": "paired/bootstrap-t"}
            comparison |= {"lost": None, "won": None}
        else:
            right, still = reference == pair[1], candidate == pair[1]
            lost, won = int((right & ~still).sum()), int((~right & still).sum())
            scale = (metric.SCALE or 1) * (pair[1] - pair[0])
            comparison |= {
                "ci95": [scale * float(end) for end in tango(lost, won, len(right))],
                "why": "",
                "method": "paired/tango",
                "lost": lost,
                "won": won,
                "classes": by_class(right, still, classes),
                "worst_class": worst_class(right, still, classes),
                "flips": flips(right, still, classes),
            }
        document["comparisons"].append(comparison)
    _without_unknown(document)


def _without_unknown(document: dict[str, Any]) -> None:
    """Take out what is no number: a metric that is not finite, as of outputs that are not, has no value and no drop."""
    for variant in document["variants"]:
        if not math.isfinite(variant["value"]):
            variant["value"] = variant["ci95"]["value"] = None
    document["comparisons"] = [each for each in document["comparisons"] if math.isfinite(each["drop"])]
    for variant, scores in document.get("per_sample", {}).items():
        document["per_sample"][variant] = [score if math.isfinite(score) else None for score in scores]


def user_results(text: str, sessions: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a user's ``fn(session)`` says of each model.

    The function runs the session on data of its own and returns, higher being better,

    * a number,
    * an array with one number per sample: their mean is the value, and the drop gets a paired interval, or
    * ``{"metric": "spearman", "output": scores, "labels": labels}``: per-sample scores for a built-in metric.
    """
    function = load_function(text)
    if len(inspect.signature(function).parameters) != 1:
        raise UsageError(
            f"metric {text}: must take one argument, the onnxruntime session, and return a number or array."
        )
    results = {}
    for variant, session in sessions.items():
        try:
            result = function(session)
        except Exception as error:
            raise DataError(f"metric {text}: fails on {variant!r}: {type(error).__name__}: {error}") from error
        try:
            results[variant] = _returned(result)
        except (DataError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"metric {text}: returns {shortened(result)} for {variant!r}. Return a number, an array with one "
                "number per sample, or a mapping of metric, output and labels."
            ) from error
    return results


def _returned(result: Any) -> float | Array | dict[str, Any]:  # noqa: ANN401 - a user's
    """Return what a user's metric said in one of the forms that `user_results` names; raise what does not fit."""
    if isinstance(result, Mapping):
        name, output, labels = result["metric"], np.asarray(result["output"]), np.asarray(result["labels"])
        if (
            name not in metrics.names()
            or not len(labels)
            or len(metrics.metric(name).score(output, labels)) != len(labels)
        ):
            raise ValueError(name)
        return {"metric": name, "output": output, "labels": labels}
    values: Array = np.asarray(result, np.float64)
    if result is None or values.ndim > 1 or not values.size:
        raise ValueError(result)
    return values if values.ndim else float(values)


def add_user_metric(document: dict[str, Any], text: str, results: Mapping[str, Any], half: int | None = None) -> None:
    """Add `user_results` to an evaluation, of every second sample only where ``half`` says so (numbers have none)."""
    name, part = text.rpartition(":")[2], slice(half, None, None if half is None else 2)
    first, classes = results[document["baseline"]], None
    if any(type(each) is not type(first) for each in results.values()):
        raise DataError(f"metric {text}: returns another kind of result for some models than for others.")
    if isinstance(first, Mapping):
        metric, labels = metrics.metric(first["metric"]), np.asarray(first["labels"])[part]
        classes = labels
        given = {variant: np.asarray(result["output"])[part] for variant, result in results.items()}
    elif np.ndim(first) == 1:
        metric, labels = metrics.metric("mean"), np.asarray(first)[part]
        given = {variant: np.asarray(result)[part] for variant, result in results.items()}
    else:
        _add_point_metric(document, name, {variant: float(result) for variant, result in results.items()})
        return
    for variant, each in given.items():
        if len(each) != len(labels):
            raise DataError(f"metric {text}: gives {len(each)} values for {variant!r}, {len(labels)} were expected.")
    scores = {variant: metric.score(each, labels) for variant, each in given.items()}
    values = {variant: metric.aggregate(each, labels) for variant, each in scores.items()}
    _add_metric(document, name, metric, values, scores, labels, classes=classes)


def _add_point_metric(document: dict[str, Any], name: str, values: Mapping[str, float]) -> None:
    """Add a metric that has one number per model and so no interval."""
    document["metric"] = {"name": name, "unit": "", "higher_is_better": True}
    baseline = document["baseline"]
    for variant in document["variants"]:
        identifier = variant["id"]
        variant["value"] = values[identifier]
        if identifier != baseline:
            comparison = {"baseline": baseline, "candidate": identifier, "metric": f"accuracy.{name}", "samples": None}
            comparison |= {"drop": values[baseline] - values[identifier], "ci95": None, "method": "point"}
            comparison["why"] = "the metric gives one number for all samples: return one for each, to get an interval"
            document["comparisons"].append(comparison | {"lost": None, "won": None})
    _without_unknown(document)
