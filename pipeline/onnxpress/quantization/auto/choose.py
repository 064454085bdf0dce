"""`choose`: the quantize step in mode auto."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from onnxpress.quantization.auto.judge import Bound, Judge, Quality
from onnxpress.quantization.auto.race import Race
from onnxpress.quantization.auto.search import Search
from onnxpress.quantization.auto.stopwatch import Stopwatch
from onnxpress.quantization.options import MAX_DROP, QuantizeOptions
from onnxpress.quantization.params import Array
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
CONFIRM_S = (5.0, 60.0)
"""At least and at most, for each finalist. The first is confirmed whatever is left."""
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
    watch: Stopwatch,
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
        watch: Started when the work on this model began; what came before this call counts.

    Raises:
        ModelError: the float model cannot be run.
        DataError: the samples do not fit the model, or have no labels though the metric needs them.
    """
    fused = base.clone()
    gemms(fused)
    placement = place(fused, options.selects)
    ranges = choose_ranges(placement, placement.candidates, collected, options.calibrator, options.levels)
    rounding = None
    if options.reconstructs:
        rounding = watch.attempt(
            "reconstruction", lambda tick: reconstruction(fused, placement, options, calibration, tick), None, advance
        )
    weights = limited(fused, options, rounding)
    shifts: Mapping[str, Array] = {}
    if options.bias_correction:
        shifts = watch.attempt(
            "bias correction",
            lambda tick: bias_shifts(fused, options, calibration, ranges, tick, weights=weights),
            shifts,
            advance,
        )
    candidates = Candidates(
        model=fused,
        ranges=ranges,
        options=options,
        groups=groups(fused, placement, options),
        shifts=shifts,
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
                journal=Journal(journal, context(reference.sha256, options, collected, data, metric, watch.left_out)),
                clock=watch.clock,
                deadline=watch.at(1 - CONFIRM_SHARE),
                folder=folder,
                advance=advance,
            )
            watch.end("preparation")
            finalists = search.run()
            watch.end("search")
        confirmed: list[dict[str, Any]] = []
        edit = Edit(model=model.clone())
        verdict = "float"
        for finalist in finalists:
            if confirmed and watch.left_s() < CONFIRM_S[0]:
                break
            ratio = _confirmed_ratio(search, finalist, options, data, watch)
            quality = search.final_quality(finalist)
            confirmed.append(_numbers(finalist, ratio, quality, bound))
            if ratio.high < 1 and quality.keeps(bound):
                edit = candidates.build(finalist)
                verdict = "confirmed" if quality.proves(bound) else "inconclusive"
                break
        others = [
            _numbers(each, search.ratio({}, each), search.quality(each), bound)
            for each in search.tried
            if each not in finalists[: len(confirmed)]
        ]
        watch.end("confirmation")
    facts: dict[str, Any] = {"verdict": verdict, "bound": str(bound), "measurements": len(search.journal)}
    if verdict == "float":
        facts |= {"reason": _reason(confirmed, bound, search), "alternatives": [*confirmed, *others]}
    else:
        best = {name: value for name, value in confirmed[-1].items() if name != "against"}
        facts |= {**best, "alternatives": [*confirmed[:-1], *others]}
    facts |= {"seconds": watch.spent(), "left_out": watch.left_out}
    return Edit(model=edit.model, changed=edit.changed, skipped=edit.skipped, facts=facts)


def bound_of(options: QuantizeOptions, metric: str | None) -> Bound:
    """Return the bound that the options set, or the default: 1 point of the metric, without a metric 20 dB."""
    drop = options.max_drop
    if drop is None and options.min_sqnr is None and options.min_agreement is None:
        return Bound(max_drop=MAX_DROP) if metric else Bound(min_sqnr_db=DEFAULT_SQNR_DB)
    return Bound(max_drop=drop, min_sqnr_db=options.min_sqnr, min_agreement_pct=options.min_agreement)


def context(
    model_sha256: str,
    options: QuantizeOptions,
    collected: Profile,
    data: Dataset,
    metric: str | None,
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what measurements depend on: those made in another context are not used again."""
    return {
        "model": model_sha256,
        "profile": collected.data_sha256,
        "data": data.sha256,
        "metric": metric,
        "left_out": list(left_out),
        "options": options.model_dump(mode="json", exclude={"budget", "max_drop", "min_sqnr", "min_agreement"}),
        "onnxruntime": onnxruntime().__version__,
        "code": provenance.code_sha256(),
        "host": host.describe().fingerprint,
    }


def explain(facts: Mapping[str, Any]) -> list[str]:
    """Return the lines that a person should read of a search, from the facts of its edit."""
    if facts["verdict"] == "float":
        lines = [f"auto: float stays. {facts['reason'][0].upper()}{facts['reason'][1:]}."]
    else:
        proof = {"confirmed": "proved", "inconclusive": "kept, but not proved: see the interval"}[facts["verdict"]]
        lines = [f"auto: {_described(facts)}; bound ({facts['bound']}) {proof}"]
    lines += [f"  or: {_described(each)}; {', '.join(each['against'])}" for each in facts["alternatives"]]
    if facts["verdict"] == "float" and any("loses too much" in each["against"] for each in facts["alternatives"]):
        lines.append("  A looser bound (--max-drop, --min-sqnr, --min-agreement) accepts one of these.")
    seconds = dict(facts["seconds"])
    total, budget = seconds.pop("total"), seconds.pop("budget")
    phases = ", ".join(f"{phase} {taken:.0f} s" for phase, taken in seconds.items())
    lines.append(f"  took {total:.0f} s of a budget of {budget:.0f} s: {phases}")
    if facts["left_out"]:
        lines.append(f"  no time was left for {', '.join(facts['left_out'])}: a larger --budget continues from here")
    return lines


def _described(found: Mapping[str, Any]) -> str:
    low, high = found["latency_ratio_ci95"]
    chosen = ", ".join(f"{count} {choice}" for choice, count in found["choices"].items())
    loss = Quality(**found["loss"])
    return (
        f"{found['latency_ratio']:.3f} [{low:.3f}, {high:.3f}] of float's time with {chosen} nodes; on {loss.samples} "
        f"samples {loss}"
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


def _confirmed_ratio(
    search: Search, finalist: Assignment, options: QuantizeOptions, data: Dataset, watch: Stopwatch
) -> Interval:
    least, most = CONFIRM_S
    chosen = BenchOptions(
        providers=(options.provider,),
        scenarios=("single",),
        threads=options.threads,
        budget=timedelta(seconds=min(most, max(least, watch.left_s() / 2))),
        seed=options.seed,
    )
    models = {"float": search.reference, "auto": search.path(finalist)}
    ratio = bench(models, baseline="float", options=chosen, inputs=data, limits=(0.0,)).comparisons[0].ratio
    longer = 2 * chosen.budget
    if ratio.low < 1 <= ratio.high and watch.left_s() > longer.total_seconds():  # a busy host, or nearly no difference
        again = chosen.model_copy(update={"budget": longer, "pairs": 2 * chosen.pairs})
        ratio = bench(models, baseline="float", options=again, inputs=data, limits=(0.0,)).comparisons[0].ratio
    return ratio


def _numbers(chosen: Assignment, ratio: Interval, loss: Quality, bound: Bound) -> dict[str, Any]:
    """Return what was measured of a choice, and what speaks against it."""
    against = {
        "is not faster beyond doubt": ratio.high >= 1,
        "loses too much": not loss.keeps(bound),
        "has not been confirmed": ratio.high < 1 and loss.keeps(bound),
    }
    return {
        "choices": dict(sorted(Counter(chosen.values()).items())),
        "latency_ratio": ratio.value,
        "latency_ratio_ci95": [ratio.low, ratio.high],
        "loss": asdict(loss),
        "against": [reason for reason, holds in against.items() if holds],
    }


def _reason(confirmed: list[dict[str, Any]], bound: Bound, search: Search) -> str:
    """Say why the answer is float."""
    if not search.candidates.groups:
        return "nothing in the model can be quantized"
    if not confirmed:
        return f"nothing faster than float keeps the bound ({bound})"
    return f"no candidate that was confirmed is faster than float on this machine and keeps the bound ({bound})"
