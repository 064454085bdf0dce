"""The statistics of a model, collected once: what to measure, and where a finished profile is found again.

A profile depends on the model, the data and the code alone, not on a calibrator, a bit width or any other option of
quantization. So whatever those may need is collected together, and every variant and later command reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from onnxpress.errors import DataError
from onnxpress.files import writing
from onnxpress.quantization.options import MEMORY_BUDGET_BYTES, QuantizeOptions
from onnxpress.quantization.placement import gemms, place
from onnxpress.quantization.profiling import profile
from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.profile import Profile


def collect(
    model: ir.Model,
    data: Dataset,
    *,
    batch: int = 1,
    memory_budget: float = MEMORY_BUDGET_BYTES,
    model_sha256: str = "",
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> Profile:
    """Collect all the statistics that quantizing a prepared model may need; see `profile` for the arguments."""
    names, axes = needed(model)
    return profile(
        model,
        names,
        data,
        channels=axes,
        batch=batch,
        memory_budget=memory_budget,
        model_sha256=model_sha256,
        advance=advance,
    )


def needed(model: ir.Model) -> tuple[list[str], dict[str, int]]:
    """Return the tensors that static int8 may need statistics of, and which of them by channel, on which axis.

    By channel are the inputs of all layers, those that inherit their range too: a mean does not pass a MaxPool.
    """
    fused = model.clone()
    gemms(fused)
    placement = place(fused, QuantizeOptions().selects)
    inputs = [(node.inputs[0], 1 if node.op_type == "Conv" else -1) for node in placement.weighted]
    axes = {value.name or "": axis for value, axis in inputs if value is not None}
    return list(dict.fromkeys([*(value.name or "" for value in placement.candidates), *axes])), axes


def reuse(path: Path, model_sha256: str, make: Callable[[], Profile]) -> Profile:
    """Return the profile stored at ``path``; make and store it where there is none of this model and version."""
    try:
        found = Profile.read(path)
        if found.model_sha256 == model_sha256:
            return found
    except DataError:  # none yet, or not readable any more
        pass
    made = make()
    with writing(path, force=True) as scratch:
        made.write(scratch / path.name)
    return made
