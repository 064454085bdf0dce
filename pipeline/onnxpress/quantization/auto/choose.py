"""`choose`: the quantize step in mode auto."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress import artifact, host, provenance
from onnxpress.artifact import Edit
from onnxpress.bench.bench import bench
from onnxpress.bench.inputs import prepare as prepare_inputs
from onnxpress.bench.options import BenchOptions
from onnxpress.bench.statistics import Interval
from onnxpress.quantization import fp16
from onnxpress.quantization.auto.candidates import Assignment, Candidates, Choice, groups
from onnxpress.quantization.auto.journal import Journal
from onnxpress.quantization.auto.judge import HELD_OUT, Bound, Judge, Quality
from onnxpress.quantization.auto.race import Race
from onnxpress.quantization.auto.search import Search
from onnxpress.quantization.options import MAX_DROP, QuantizeOptions
from onnxpress.quantization.placement import gemms, place
from onnxpress.quantization.ranges import choose_ranges
from onnxpress.quantization.rounding import reconstruction
from onnxpress.quantization.saturation import limited
from onnxpress.quantization.sensitivity import sensitivity
from onnxpress.quantization.techniques.bias_correction import bias_shifts
from onnxpress.quantization.weights import Weights
from onnxpress.scratch import temporary
from onnxpress.session import SessionOptions, onnxruntime
from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.profile import Profile

CONFIRM_SHARE = 0.25
"""Of the budget, for the benchmark that confirms the result."""
CONFIRM_S = (10.0, 60.0)
"""At least and at most, for each finalist."""
DEFAULT_SQNR_DB = 20.0
FP16_ERROR = 2.0**-22
"""Squared relative error of rounding to 11 bits: the most that float16 adds to a value."""


def choose(
    model: ir.Model,
    base: ir.Model,
    options: QuantizeOptions,
    collected: Profile,
    *,
    calibration: Dataset,
    evaluation: Dataset | None,
    metric: str | None,
    journal: Path | None = None,
    advance: Callable[[int], object] = lambda steps: None,  # noqa: ARG005
    clock: Callable[[], float] = time.monotonic,
) -> Edit:
    """Return the fastest model that keeps the bound, or the float model when none is faster.

    Args:
        model: A prepared float model; it is not changed.
        base: What candidates are made of: ``model``, or its equal after equalization.
        options: The bound (``max_drop``, ``min_sqnr``, ``min_agreement``), ``budget``, ``provider``, ``threads``.
        collected: Statistics of every tensor that any choice quantizes (`quantize.tensors`).
        calibration: Samples for ranking layers; they time the models, too, where there are no evaluation samples.
        evaluation: Samples to judge by, labelled where the metric needs it; None to judge fidelity on ``calibration``.
        metric: See `onnxpress.evaluation.evaluate.evaluate`.
        journal: Where measurements are kept, so that a search that was stopped continues.
        advance: Called after each candidate.
        clock: Seconds.

    Raises:
        ModelError: the float model cannot be run.
        DataError: the samples do not fit the model, or have no labels though the metric needs them.
    """
    start = clock()
    fused = base.clone()
    gemms(fused)
    placement = place(fused, options.selects)
    ranges = choose_ranges(placement, placement.candidates, collected, options.calibrator, options.levels)
    rounding = reconstruction(fused, placement, options, calibration) if options.reconstructs else None
    weights = limited(fused, options, rounding)
    candidates = Candidates(
        model=fused,
        ranges=ranges,
        options=options,
        groups=groups(fused, placement, options),
        shifts=bias_shifts(fused, options, calibration, ranges, weights=weights) if options.bias_correction else {},
        peaks=fp16.peaks(collected),
        weights=weights,
    )
    session = SessionOptions(provider=options.provider, threads=options.threads or host.usable_threads())
    data = evaluation or calibration
    bound = bound_of(options, metric)
    with temporary() as folder:
        reference = artifact.save(model, folder / "float.onnx")
        inputs = prepare_inputs({"float": model}, baseline="float", data=data, seed=options.seed)
        with Race(inputs, session, folder) as race:
            search = Search(
                candidates=candidates,
                reference=reference.path,
                race=race,
                judge=Judge(reference.path, data, metric, session),
                bound=bound,
                errors=lambda: _errors(base, options, calibration, ranges, weights),
                journal=Journal(journal, context(reference.sha256, options, collected, data, metric)),
                clock=clock,
                deadline=start + (1 - CONFIRM_SHARE) * options.budget.total_seconds(),
                folder=folder,
                advance=advance,
            )
            finalists = search.run()
        rejected = []
        for finalist in finalists:
            ratio = _confirmed_ratio(search, finalist, options, data)
            quality = search.quality(finalist, HELD_OUT)
            facts = _facts(finalist, ratio, quality, bound, search)
            if ratio.high < 1 and quality.keeps(bound):
                edit = candidates.build(finalist)
                verdict = "confirmed" if quality.proves(bound) else "inconclusive"
                return Edit(
                    model=edit.model, changed=edit.changed, skipped=edit.skipped, facts=facts | {"verdict": verdict}
                )
            rejected.append(facts)
    return Edit(model=model.clone(), facts=_float(rejected, bound, search))


def bound_of(options: QuantizeOptions, metric: str | None) -> Bound:
    """Return the bound that the options set, or the default: 1 point of the metric, without a metric 20 dB."""
    drop = options.max_drop
    if drop is None and options.min_sqnr is None and options.min_agreement is None:
        return Bound(max_drop=MAX_DROP) if metric else Bound(min_sqnr_db=DEFAULT_SQNR_DB)
    return Bound(max_drop=drop, min_sqnr_db=options.min_sqnr, min_agreement_pct=options.min_agreement)


def context(
    model_sha256: str, options: QuantizeOptions, collected: Profile, data: Dataset, metric: str | None
) -> dict[str, Any]:
    """Return what measurements depend on: those made in another context are not used again."""
    return {
        "model": model_sha256,
        "profile": collected.data_sha256,
        "data": data.sha256,
        "metric": metric,
        "options": options.model_dump(mode="json", exclude={"budget", "max_drop", "min_sqnr", "min_agreement"}),
        "onnxruntime": onnxruntime().__version__,
        "code": provenance.code_sha256(),
        "host": host.describe().fingerprint,
    }


def explain(facts: Mapping[str, Any]) -> str:
    """Return what a person should know of a search, from the facts of its edit."""
    if facts["verdict"] == "float":
        return f"auto: float stays. {facts['reason'][0].upper()}{facts['reason'][1:]}."
    low, high = facts["latency_ratio_ci95"]
    held_out = facts["held_out"]
    lost = []
    if held_out["drop"] is not None:
        interval = f" [{held_out['ci95'][0]:.2f}, {held_out['ci95'][1]:.2f}]" if held_out["ci95"] else ""
        lost.append(f"drop {held_out['drop']:.2f}{interval}")
    if held_out["sqnr_db"] is not None:
        lost.append(f"SQNR {held_out['sqnr_db']:.1f} dB")
    if held_out["agreement_pct"] is not None:
        lost.append(f"agreement {held_out['agreement_pct']:.1f} %")
    chosen = ", ".join(f"{count} {choice}" for choice, count in facts["choices"].items())
    proved = "proved" if facts["verdict"] == "confirmed" else "kept, but too few samples to prove it"
    return (
        f"auto: {facts['latency_ratio']:.3f} [{low:.3f}, {high:.3f}] of float's time with {chosen} nodes; on held-out "
        f"samples {', '.join(lost)}; bound ({facts['bound']}) {proved}"
    )


def _errors(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset,
    ranges: Mapping[str, tuple[float, float]],
    weights: Weights,
) -> dict[str, dict[Choice, float]]:
    """Return what each layer alone loses at the model's outputs; of dynamic int8 that is known at the layer only."""
    errors: dict[str, dict[Choice, float]] = {}
    for found in sensitivity(model, options, data, ranges, at_outputs=True, weights=weights):
        lost = found.at_outputs or 0.0
        errors[found.node] = {"static": lost, "fp16": FP16_ERROR}
        if found.dynamic is not None and found.static > 0:
            errors[found.node]["dynamic"] = lost * found.dynamic / found.static
    return errors


def _confirmed_ratio(search: Search, finalist: Assignment, options: QuantizeOptions, data: Dataset) -> Interval:
    least, most = CONFIRM_S
    seconds = min(most, max(least, CONFIRM_SHARE * options.budget.total_seconds()))
    chosen = BenchOptions(
        providers=(options.provider,),
        scenarios=("single",),
        threads=options.threads,
        budget=timedelta(seconds=seconds),
        seed=options.seed,
    )
    models = {"float": search.reference, "auto": search.path(finalist)}
    ratio = bench(models, baseline="float", options=chosen, inputs=data, limits=(0.0,)).comparisons[0].ratio
    if ratio.low < 1 <= ratio.high:  # undecided: a busy host, or nearly no difference; once more, longer
        longer = chosen.model_copy(update={"budget": 2 * chosen.budget, "pairs": 2 * chosen.pairs})
        ratio = bench(models, baseline="float", options=longer, inputs=data, limits=(0.0,)).comparisons[0].ratio
    return ratio


def _facts(finalist: Assignment, ratio: Interval, quality: Quality, bound: Bound, search: Search) -> dict[str, Any]:
    return {
        "choices": dict(sorted(Counter(finalist.values()).items())),
        "latency_ratio": ratio.value,
        "latency_ratio_ci95": [ratio.low, ratio.high],
        "held_out": asdict(quality),
        "bound": str(bound),
        "measurements": len(search.journal),
    }


def _float(rejected: list[dict[str, Any]], bound: Bound, search: Search) -> dict[str, Any]:
    """Say why the answer is float, with the numbers."""
    if not search.candidates.groups:
        reason = "nothing in the model can be quantized"
    elif not rejected:
        reason = f"nothing faster than float keeps the bound ({bound})"
    else:
        best = rejected[0]
        low, high = best["latency_ratio_ci95"]
        reason = f"no candidate is faster than float on this machine and keeps the bound ({bound}); the best takes "
        reason += f"{best['latency_ratio']:.2f} [{low:.2f}, {high:.2f}] of float's time"
    return {"verdict": "float", "reason": reason, "rejected": rejected, "measurements": len(search.journal)}
