"""Weights so small that the CPU computes with them many times slower."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxpress import artifact


def count(model: ir.Model) -> int:
    """Return how many float32 weights are subnormal: not zero, and below 1.2e-38.

    Products with them take some hundred cycles instead of one. A model that is full of them becomes fast when it is
    pruned or quantized for a reason that has nothing to do with compression.
    """
    tiny = np.finfo(np.float32).tiny
    found = 0
    for tensor in artifact.tensors(model):
        if tensor.dtype == ir.DataType.FLOAT:
            values = np.abs(tensor.numpy())
            found += int(np.count_nonzero((values > 0) & (values < tiny)))
    return found
