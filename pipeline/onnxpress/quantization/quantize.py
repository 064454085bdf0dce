"""The quantize step: float model in, int8 model out, proven in the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import onnx_ir as ir

from onnxpress.artifact import Edit, Skip
from onnxpress.errors import ModelError, UsageError
from onnxpress.quantization import dynamic, embedding, static
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.placement import gemms, place
from onnxpress.quantization.profiling import profile
from onnxpress_calibration import calibrators
from onnxpress_calibration.dataset import Dataset


def quantize(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset | None = None,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> Edit:
    """Quantize a prepared float model to int8.

    Args:
        model: A prepared float model (`onnxpress.export.prepare`); it is not changed.
        options: What to do.
        data: Calibration samples; needed for mode static.
        advance: Called with the number of calibration samples after each batch.

    Raises:
        UsageError: static mode without data.
        ModelError: nothing in the model can be quantized; the message says why.
        DataError: the calibration data does not fit the model.
    """
    float_model, model = model, model.clone()
    gemms(model)
    if options.mode == "dynamic":
        edit = dynamic.write(model, options)
    else:
        if data is None:
            raise UsageError(
                "quantize: mode static needs calibration data. Give --calibration DATA, or use mode dynamic."
            )
        placement = place(model, options.selects)
        if not placement.weighted and not embedding.tables(model, options):
            raise _nothing(options, placement.skipped)
        names = [value.name or "" for value in placement.measured]
        # The float model is run, not the copy: both have every tensor that needs a range, under the same name.
        chosen = data if options.samples is None else replace(data, limit=options.samples)
        collected = profile(float_model, names, chosen, advance=advance)
        ranges = {name: calibrators.choose(options.calibrator, stats) for name, stats in collected.tensors.items()}
        edit = static.write(model, placement, ranges, options)
    if not edit.changed:
        raise _nothing(options, edit.skipped)
    return edit


def _nothing(options: QuantizeOptions, skipped: Iterable[Skip]) -> ModelError:
    reasons = "; ".join(sorted({f"{skip.op}: {skip.reason}" for skip in skipped})) or "it has no such layers"
    return ModelError(f"quantize: nothing in this model can run as {options.mode} int8 ({reasons}).")
