"""The guard: what an int8 model lost is measured before anybody gets it, and a useless one is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import ModelError
from onnxpress.evaluation.fidelity import Fidelity, without_padding
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.session import open_session, run
from onnxpress_calibration.dataset import LABELS, Dataset, samples_in

SAMPLES = 64
"""Enough to see that a model is broken; how much it lost exactly is the business of `compress evaluate`."""
MIN_SQNR_DB = 10.0
"""Noise of a tenth of the signal's power: sentence embeddings below it lost over a point, detectors their boxes."""
MIN_AGREEMENT_PCT = 90.0
NOTED_AGREEMENT_PCT = 99.0


def verify(
    reference: ir.Model,
    quantized: ir.Model,
    options: QuantizeOptions,
    data: Dataset,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> dict[str, Any]:
    """Compare an int8 model with the float model, sample by sample.

    Args:
        reference: The float model.
        quantized: The int8 model.
        options: For ``min_sqnr`` and ``min_agreement``; by default `MIN_SQNR_DB` and `MIN_AGREEMENT_PCT`.
        data: Calibration samples; `SAMPLES` of them are used.
        advance: Called with the number of samples after each batch.

    Returns:
        Facts: ``sqnr_db`` (None: no difference), ``agreement_pct`` (None: no class scores), ``verified_samples``, and
        ``notes``.

    Raises:
        ModelError: the int8 model is below a floor, gives NaN, or does not run.
    """
    fidelity, samples = Fidelity(), 0
    float_session, int8_session = open_session(reference), open_session(quantized)
    specs = graph.input_specs(reference)
    for batch in data.drawn(specs, SAMPLES).batches(specs):
        feeds = {name: value for name, value in batch.items() if name != LABELS}
        expected, given = (without_padding(run(session, feeds), feeds) for session in (float_session, int8_session))
        fidelity.update(expected, given)
        samples += samples_in(feeds)
        advance(samples_in(feeds))
    sqnr, agreement = fidelity.sqnr_db, fidelity.agreement_pct
    broken = [name for name, noise in fidelity.noise.items() if not math.isfinite(noise)]
    if broken:
        raise ModelError(f"quantize: output {broken[0]!r} of the int8 model holds NaN or infinity. {ADVICE}")
    floor = MIN_SQNR_DB if options.min_sqnr is None else options.min_sqnr
    if sqnr is not None and sqnr < floor:
        raise ModelError(
            f"quantize: the int8 model's outputs have {sqnr:.1f} dB SQNR on {samples} calibration samples, "
            f"{floor:g} dB is the least (--min-sqnr). {ADVICE}"
        )
    least = MIN_AGREEMENT_PCT if options.min_agreement is None else options.min_agreement
    if agreement is not None and agreement < least:
        raise ModelError(
            f"quantize: the int8 model gives the float model's class for {agreement:.1f} % of {samples} calibration "
            f"samples, {least:g} % is the least (--min-agreement). {ADVICE}"
        )
    notes = []
    if agreement is not None and agreement < NOTED_AGREEMENT_PCT:
        notes = [f"{100 - agreement:.1f} % of {samples} samples change their class: see `compress evaluate`"]
    return {"sqnr_db": sqnr, "agreement_pct": agreement, "verified_samples": samples, "notes": notes}


ADVICE = "Nothing was written: try mode auto, mode dynamic, or --exclude the layers that lose most."
