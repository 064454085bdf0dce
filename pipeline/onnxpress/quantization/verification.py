"""The guard: what a quantized model lost is measured before anybody gets it, and one that lost too much is refused.

With a metric the loss is measured on labelled samples. Without, classifiers are judged by the float model's own
probabilities (`onnxpress.evaluation.fidelity.Fidelity.expected_drop`): a changed answer is not a lost point, most of
them are close calls, right as often as wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from onnxpress import cpu, graph
from onnxpress.artifact import Edit
from onnxpress.errors import ModelError, UsageError
from onnxpress.evaluation.evaluate import check_evidence, check_labels, evaluate
from onnxpress.evaluation.paired import wilson
from onnxpress.quantization.options import MAX_DROP, QuantizeOptions
from onnxpress_calibration.dataset import Dataset

SAMPLES = 256
"""Compared where there is no metric. All of them, where there is one."""
MIN_SQNR_DB = 10.0
"""Noise of a tenth of the signal's power: sentence embeddings below it lost over a point, detectors their boxes."""
MIN_AGREEMENT_PCT = 90.0
NOTED_AGREEMENT_PCT = 99.0


def judges(calibration: Dataset | None, evaluation: Dataset | None, metric: str | None) -> Dataset | None:
    """Return the samples to judge by: without a metric those for calibration before others, with one the others first.

    Raises:
        UsageError: there is a metric, and no data.
        DataError: the metric needs labels that the data does not have.
    """
    if metric is None:
        return calibration or evaluation
    samples = evaluation or calibration
    if samples is None:
        raise UsageError(f"quantize: metric {metric} needs samples. Give --evaluation DATA.")
    check_labels(samples, metric)
    return samples


def judged(
    edit: Edit,
    reference: ir.Model,
    options: QuantizeOptions,
    data: Dataset | None,
    advance: Callable[[int], object],
    metric: str | None,
) -> Edit:
    """Return a quantized model with what `verify` finds among its facts, where it is wanted and there is data."""
    if not options.verify or data is None:
        return edit
    found = verify(reference, edit.model, options, data, advance, metric=metric)
    notes = [*edit.facts.get("notes", []), *found["notes"]]
    return replace(edit, facts={**edit.facts, **found, "notes": notes})


def verify(
    reference: ir.Model,
    quantized: ir.Model,
    options: QuantizeOptions,
    data: Dataset,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
    *,
    metric: str | None = None,
) -> dict[str, Any]:
    """Compare a quantized model with the float model, sample by sample.

    Args:
        reference: The float model.
        quantized: What became of it.
        options: The bounds: ``max_drop`` (by default `MAX_DROP`), ``min_sqnr``, ``min_agreement`` (without a metric by
            default `MIN_SQNR_DB` and `MIN_AGREEMENT_PCT`), and ``accept_loss``.
        data: Samples; labelled where the metric needs it.
        advance: Called with the number of samples after each batch.
        metric: See `onnxpress.evaluation.evaluate.evaluate`; None to estimate the drop on `SAMPLES` samples.

    Returns:
        Facts: ``sqnr_db`` (None: no difference), ``agreement_pct`` (None: no class scores), ``drop`` (of ``metric``;
        without one estimated points of top-1) with its interval ``drop_ci95``, ``verified_samples``,
        ``refused`` (the bounds that are broken, with ``accept_loss``), and ``notes``.

    Raises:
        EvidenceError: without a metric, and no output holds anything on any sample.
        ModelError: a bound is broken and ``accept_loss`` is not set, or the model gives NaN or does not run.
        DataError: the data does not fit, or has no labels though the metric needs them.
    """
    samples = data if metric is not None else data.drawn(graph.input_specs(reference), SAMPLES)
    models = {"float": reference, "quantized": quantized}
    document = evaluate(models, baseline="float", data=samples, metric=metric, advance=advance)
    if not options.accept_loss:
        check_evidence(document, "quantized")
    count, (before, after) = document["data"]["samples"], document["variants"]
    broken = after["non_finite"] - before["non_finite"]
    if broken > 0:
        raise ModelError(
            f"quantize: {broken} output values of the quantized model are NaN or infinite. {_advice(options)}"
        )
    drop, interval = _drop(document)
    reasons, notes = _reasons(options, metric, count, after, drop, interval), []
    if reasons and not options.accept_loss:
        raise ModelError(f"quantize: {'; '.join(reasons)}. {_advice(options)}; --accept-loss writes it all the same.")
    agreement = after["agreement_pct"]
    if metric is None and agreement is not None and agreement < NOTED_AGREEMENT_PCT:
        cost = "" if drop is None else f", by the float model's own probabilities {drop:.1f} points of accuracy"
        notes = [f"{100 - agreement:.1f} % of {count} samples change their class{cost}: see `compress evaluate`"]
    return {
        "sqnr_db": after["sqnr_db"],
        "agreement_pct": agreement,
        "metric": metric,
        "drop": drop,
        "drop_ci95": interval,
        "verified_samples": count,
        "refused": reasons,
        "notes": [*(f"accepted: {reason}" for reason in reasons), *notes],
    }


def _drop(document: dict[str, Any]) -> tuple[float | None, list[float] | None]:
    """Return what was lost with its 95 % interval: measured where there is a metric, else estimated."""
    if document["comparisons"]:
        comparison = document["comparisons"][0]
        return comparison["drop"], comparison["ci95"]
    drop, count = document["variants"][1]["expected_drop"], document["data"]["samples"]
    # A loss between 0 and 1 per sample varies at most as much as one that is either.
    return drop, None if drop is None else [100 * end for end in wilson(count * drop / 100, count)]


def _reasons(
    options: QuantizeOptions,
    metric: str | None,
    count: int,
    found: dict[str, Any],
    drop: float | None,
    interval: list[float] | None,
) -> list[str]:
    """Say which bounds are broken."""
    reasons = []
    most = MAX_DROP if options.max_drop is None else options.max_drop
    shown = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    if metric is not None and drop is not None and drop > most:
        reasons.append(f"{metric} drops by {drop:.2f}{shown} on {count} samples, {most:g} is the most (--max-drop)")
    if metric is None and interval is not None and interval[0] > most:
        reasons.append(
            f"{100 - found['agreement_pct']:.1f} % of {count} samples change their class, by the float model's own "
            f"probabilities a drop of {drop:.1f}{shown} points, {most:g} is the most (--max-drop)"
        )
    floor = MIN_SQNR_DB if options.min_sqnr is None and metric is None else options.min_sqnr
    if floor is not None and found["sqnr_db"] is not None and found["sqnr_db"] < floor:
        reasons.append(
            f"the quantized model's outputs have {found['sqnr_db']:.1f} dB SQNR on {count} samples, "
            f"{floor:g} dB is the least (--min-sqnr)"
        )
    least = MIN_AGREEMENT_PCT if options.min_agreement is None and metric is None else options.min_agreement
    if least is not None and found["agreement_pct"] is not None and found["agreement_pct"] < least:
        reasons.append(
            f"the quantized model gives the float model's class for {found['agreement_pct']:.1f} % of {count} samples, "
            f"{least:g} % is the least (--min-agreement)"
        )
    return reasons


def _advice(options: QuantizeOptions) -> str:
    """Say what may help this mode on this CPU."""
    if options.backend == "neural-compressor":
        return "Nothing was written: export the model and use the backend onnxpress"
    helps = {
        "static": "mode auto, mode dynamic, or --exclude the layers that lose most",
        "dynamic": "mode weight-only, mode auto, or --exclude the layers that lose most",
        "weight-only": "--calibration DATA, a smaller --block-size, or --exclude the layers that lose most"
        if options.bits == 8
        else "--bits 8, --calibration DATA or a smaller --block-size",
        "fp16": "--calibration DATA, or --exclude the layers that lose most",
        "auto": "a looser bound",
    }[options.mode]
    integers = options.mode in ("static", "dynamic") and options.weights == "int8" and options.bits == 8
    if integers and options.target_cpu in cpu.EXACT and cpu.saturates():
        why = f"this CPU cuts int8 sums off at 16 bits, {options.target_cpu} CPUs do not"
        helps = f"--target-cpu any or --weights uint8 ({why}), {helps}"
    return f"Nothing was written: try {helps}"
