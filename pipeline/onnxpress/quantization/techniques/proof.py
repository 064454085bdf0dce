"""The proof that a rewritten float model computes what it did: it is run beside the model on samples."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit, Skip
from onnxpress.errors import ModelError
from onnxpress.evaluation.fidelity import Fidelity
from onnxpress.evaluation.outputs import tensors
from onnxpress.running import over
from onnxpress_calibration.dataset import Dataset

SAMPLES = 4
EQUAL_DB = 80.0
"""Sums in another order differ by about 120 dB; int8 makes 15 to 45 dB of it."""


def proven(model: ir.Model, edit: Edit, data: Dataset, *, op: str, done: str) -> Edit:
    """Return an edit whose model equals the float model on samples, else the model as it was, and the reason.

    Args:
        model: The float model before.
        edit: The same after a technique.
        data: Samples; `SAMPLES` of them are used.
        op: The technique, for the reason.
        done: What it did, as a participle.
    """
    sqnr = _sqnr_db(model, edit.model, data)
    if sqnr >= EQUAL_DB:
        return edit
    reason = f"the {done} float model differs from the model by {sqnr:.0f} dB; it is left out"
    return Edit(model=model.clone(), skipped=(Skip(where="model", op=op, reason=reason),))


def _sqnr_db(model: ir.Model, equal: ir.Model, data: Dataset) -> float:
    fidelity = Fidelity()
    for _, found in over([model, equal], replace(data, limit=SAMPLES).batches(graph.input_specs(model))):
        try:
            fidelity.update(*map(tensors, found))
        except ModelError:  # they have not even the same form
            return -math.inf
    return math.inf if fidelity.sqnr_db is None else fidelity.sqnr_db
