"""The quantize step: float model in, int8 model out, proven in the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import onnx_ir as ir

from onnxpress import artifact, graph
from onnxpress.artifact import Edit, Skip
from onnxpress.errors import ModelError, UsageError
from onnxpress.export.prepare import prepare
from onnxpress.quantization import dynamic, fp16, static, weight_only
from onnxpress.quantization.auto.stopwatch import Stopwatch
from onnxpress.quantization.backends import onnxruntime
from onnxpress.quantization.collecting import needed
from onnxpress.quantization.kernels import require
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.placement import gemms, place
from onnxpress.quantization.profiling import profile
from onnxpress.quantization.ranges import choose_ranges
from onnxpress.quantization.rounding import observe, reconstruction
from onnxpress.quantization.saturation import limited
from onnxpress.quantization.sensitivity import sensitivity
from onnxpress.quantization.techniques.bias_correction import correct_biases
from onnxpress.quantization.techniques.equalization import equalize
from onnxpress.quantization.techniques.smoothing import smooth
from onnxpress.quantization.verification import SAMPLES as FEW
from onnxpress.quantization.verification import judged, judges
from onnxpress.session import SessionOptions, open_session
from onnxpress_calibration import calibrators
from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.profile import Profile

OTHER_WEIGHTS = {
    *weight_only.OTHER_FLOATS,
    ir.DataType.INT4,
    ir.DataType.INT8,
    ir.DataType.UINT4,
    ir.DataType.UINT8,
}
INT4 = 21
"""The first operator set with int4."""
NOUNS = {"static": "static int8", "dynamic": "dynamic int8", "weight-only": "weight-only integers", "fp16": "float16"}


def quantize(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset | None = None,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
    *,
    statistics: Profile | None = None,
    evaluation: Dataset | None = None,
    metric: str | None = None,
    journal: Path | None = None,
) -> Edit:
    """Quantize a prepared float model to int8.

    Args:
        model: A prepared float model (`onnxpress.export.prepare`); it is not changed.
        options: What to do.
        data: Calibration samples; needed for the modes static and auto, and of use to fp16 and
            weight-only.
        advance: Called with the number of calibration samples after each batch, and after each candidate of mode auto.
        statistics: What was collected from calibration samples before (`onnxpress.quantization.collecting`); static
            mode then needs no ``data``.
        evaluation: Samples to judge by; the calibration samples where there are none.
        metric: What must be kept, see `onnxpress.evaluation.evaluate.evaluate`; None for fidelity.
        journal: Where mode auto keeps its measurements, so that a search that was stopped continues.

    Raises:
        UsageError: static or auto mode, or a metric, without data.
        ModelError: nothing in the model can be quantized, a layer of ``require_int8`` stays float, or the int8 model is
            lost too much; the message says why.
        DataError: the calibration data does not fit the model.
    """
    if data is not None and options.samples is not None:
        data = replace(data, limit=options.samples)
    few = None if data is None else data.drawn(graph.input_specs(model), FEW)
    samples = judges(data if metric is not None else few, evaluation, metric)
    if options.backend == "neural-compressor":
        raise UsageError("backend neural-compressor quantizes PyTorch models: give a source such as module:factory.")
    if options.backend == "onnxruntime":
        edit = _onnxruntime(model, options, data, advance)
    elif options.mode == "static":
        edit = _static(model, options, data, few, statistics, advance)
    elif options.mode == "auto":
        edit = _auto(model, options, data, few, statistics, evaluation, metric, journal, advance)
    elif options.mode == "dynamic":
        copy = model.clone()
        gemms(copy)
        edit = dynamic.write(copy, options.selects, options)
    elif options.mode == "fp16":
        edit = _fp16(model, options, data, statistics, advance)
    else:
        convert = options.bits == 4 and graph.opset(model) < INT4 and weight_only.needs_int4(model, options.selects)
        copy = prepare(model, opset=INT4).model if convert else model.clone()
        rounding = None
        if few is not None and options.reconstructs:
            nodes = weight_only.products(copy, options.selects)
            budget = options.memory_budget
            rounding = observe(copy, nodes, few, centred=lambda node: False, memory_budget=budget, advance=advance)  # noqa: ARG005
        edit = weight_only.write(copy, options.selects, options, rounding)
    if not edit.changed and options.mode != "auto":
        raise _nothing(model, options, edit.skipped)
    if options.require_int8 is not None:
        require(edit.model, options.require_int8, edit.skipped)
    edit = replace(edit, facts={**edit.facts, "notes": [*options.notes, *edit.facts.get("notes", [])]})
    if options.mode == "auto":  # which has judged it already
        return edit
    if samples is None or not options.verify:
        _load(edit.model, options)
    return judged(edit, model, options, samples, advance, metric)


def _load(model: ir.Model, options: QuantizeOptions) -> None:
    """Make sure that the runtime loads what was made."""
    try:
        open_session(model, SessionOptions(threads=1))
    except ModelError as error:
        reason = str(error).partition("cannot load it: ")[2] or str(error)
        raise ModelError(
            f"quantize: onnxruntime does not load this model as {NOUNS[options.mode]}, nothing was written: {reason} "
            "Try --exclude with the layer that it names."
        ) from error


def _static(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset | None,
    few: Dataset | None,
    statistics: Profile | None,
    advance: Callable[[int], object],
) -> Edit:
    """Rescale the float model, find ranges, correct biases, and write the int8 model."""
    copy = model.clone()
    gemms(copy)
    placement = place(copy, options.selects)
    if not placement.weighted and not placement.tables:  # said before any data is looked at
        raise _nothing(model, options, placement.skipped)
    rescaled = _rescaled(model, options, few, advance)
    skipped, facts = rescaled.skipped, dict(rescaled.facts)
    if rescaled.changed:
        model, statistics = rescaled.model, None  # those were of tensors as they were
        copy = model.clone()
        gemms(copy)
        placement = place(copy, options.selects)
    names = [value.name or "" for value in placement.measured]
    # The float model is run, not the copy: both have every tensor that needs a range, under the same name.
    collected = _collected(model, names, data, statistics, options, advance)
    ranges = choose_ranges(placement, placement.measured, collected, options.calibrator, options.levels)
    rounding = None
    if few is not None and options.reconstructs:
        rounding = reconstruction(copy, placement, options, few, advance)
        facts["reconstructed_weights"] = len(rounding.seen)
    weights = limited(copy, options, rounding)
    if few is not None and options.verify:
        losses = sensitivity(model, options, few, ranges, weights=weights, advance=advance)
        facts["sensitivity"] = [asdict(each) for each in losses]
    if few is not None and options.bias_correction:
        facts["corrected_biases"] = correct_biases(copy, options, few, ranges, advance, weights=weights)
    if data is None and (options.equalize or options.smooth or options.bias_correction or options.reconstructs):
        facts["notes"] = [
            "equalization, smoothing, bias correction and reconstruction need samples: with --profile alone they are "
            "left out"
        ]
    edit = static.write(copy, placement, ranges, options, weights)
    return replace(edit, skipped=(*edit.skipped, *skipped), facts={**edit.facts, **facts})


def _rescaled(
    model: ir.Model, options: QuantizeOptions, data: Dataset | None, advance: Callable[[int], object]
) -> Edit:
    """Return a float model that computes the same and fits int8 better; the model itself without data."""
    edit = Edit(model=model)
    for wanted, name, rescale in (
        (options.equalize, "equalized_tensors", equalize),
        (options.smooth, "smoothed_tensors", smooth),
    ):
        if wanted and data is not None:
            found = rescale(edit.model, options, data, advance)
            edit = Edit(
                model=found.model,
                changed=(*edit.changed, *found.changed),
                skipped=(*edit.skipped, *found.skipped),
                facts={**edit.facts, name: len(found.changed)},
            )
    return edit


def _onnxruntime(
    model: ir.Model, options: QuantizeOptions, data: Dataset | None, advance: Callable[[int], object]
) -> Edit:
    names = onnxruntime.measured(model)
    collected = _collected(model, names, data, None, options, advance)
    ranges = {
        name: calibrators.choose(options.calibrator, collected.tensors[name], levels=options.levels) for name in names
    }
    return onnxruntime.write(model, ranges, options)


def _fp16(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset | None,
    statistics: Profile | None,
    advance: Callable[[int], object],
) -> Edit:
    if data is not None:  # statistics for int8 are of fewer tensors than can overflow
        statistics = _collected(model, fp16.measured(model), data, None, options, advance)
    return fp16.write(model.clone(), options.selects, fp16.peaks(statistics), keep_io=options.keep_io)


def _auto(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset | None,
    few: Dataset | None,
    statistics: Profile | None,
    evaluation: Dataset | None,
    metric: str | None,
    journal: Path | None,
    advance: Callable[[int], object],
) -> Edit:
    from onnxpress.quantization.auto.choose import choose  # with the benchmark: 10 MB of code that no other mode needs

    samples = evaluation or data
    if samples is None and statistics is not None:
        raise UsageError("quantize: mode auto runs candidates. Give --evaluation DATA, or --calibration DATA.")
    watch = Stopwatch(options.budget.total_seconds())
    rescaled = watch.attempt(
        "equalization and smoothing", lambda tick: _rescaled(model, options, few, tick), Edit(model=model), advance
    )
    statistics = None if rescaled.changed else statistics
    names = needed(rescaled.model)[0]
    if options.half and statistics is None:
        names = list(dict.fromkeys([*names, *fp16.measured(rescaled.model)]))
    collected = _collected(rescaled.model, names, data, statistics, options, advance)
    assert samples is not None  # noqa: S101 - without any samples there were no statistics either
    return choose(
        model,
        rescaled.model,
        options,
        collected,
        calibration=data or samples,
        evaluation=evaluation,
        metric=metric,
        journal=journal,
        advance=advance,
        watch=watch,
    )


def _collected(
    model: ir.Model,
    names: list[str],
    data: Dataset | None,
    collected: Profile | None,
    options: QuantizeOptions,
    advance: Callable[[int], object],
) -> Profile:
    """Return the statistics of these tensors; the float model has them all, under the names that its copies use."""
    if collected is None:
        if data is None:
            raise UsageError(
                f"quantize: mode {options.mode} needs calibration data. Give --calibration DATA, or use mode dynamic."
            )
        axes = needed(model)[1] if options.calibrator == "auto" else {}
        channels = {name: axis for name, axis in axes.items() if name in names}
        collected = profile(model, names, data, channels=channels, memory_budget=options.memory_budget, advance=advance)
    missing = [name for name in names if name not in collected.tensors]
    if missing:
        raise UsageError(f"profile: has no tensor {missing[0]!r}. It is of another model: make it again.")
    return collected


def _nothing(model: ir.Model, options: QuantizeOptions, skipped: Iterable[Skip]) -> ModelError:
    kinds = {tensor.dtype for tensor in artifact.tensors(model) if len(tensor.shape) > 1} & OTHER_WEIGHTS
    other = f"its weights are {', '.join(sorted(kind.name.lower() for kind in kinds))}, not float32" if kinds else ""
    reasons = "; ".join(sorted({f"{skip.op}: {skip.reason}" for skip in skipped})) or other or "it has no such layers"
    return ModelError(f"quantize: nothing in this model can run as {NOUNS[options.mode]} ({reasons}).")
