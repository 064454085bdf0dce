"""From statistics to ranges: one calibrator, asked for every tensor, with the weights that read it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization.placement import Placement
from onnxpress_calibration import calibrators
from onnxpress_calibration.profile import Profile

Array = graph.Array


def choose_ranges(
    placement: Placement, values: Iterable[ir.Value], collected: Profile, calibrator: str, levels: int
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of each of the values, by name.

    Args:
        placement: Tells which layers read which tensor.
        values: Tensors whose statistics the profile has.
        collected: The profile of the model.
        calibrator: A file in ``onnxpress_calibration/calibrators``.
        levels: Steps of an activation's grid.
    """
    importances: dict[str, Array] = {}
    for node in placement.weighted if calibrator == "auto" else ():
        source = placement.quantized.get(node.inputs[0]) if node.inputs[0] is not None else None
        importance = _importance(node)
        if source is None or source.name is None or importance is None:
            continue
        others = importances.get(source.name)
        alike = others is not None and others.shape == importance.shape
        importances[source.name] = importance + others if alike else importance
    names = [value.name or "" for value in values]
    return {
        name: calibrators.choose(calibrator, collected.tensors[name], levels=levels, importance=importances.get(name))
        for name in names
    }


def _importance(node: ir.Node) -> Array | None:
    """Return the squared norm of the weights that read each input channel, float64 [channels]."""
    facts = graph.weighted(node)
    weight = None if facts is None else graph.constant(node.inputs[facts.weight])
    if facts is None or weight is None:
        return None
    squares = weight.astype(np.float64) ** 2
    group = graph.attribute_int(node, "group", 1)
    if group > 1:  # [M, C/group, k…]: the filters of a group read only its own channels
        by_group = squares.reshape(group, -1, weight.shape[1], squares[0, 0].size)
        return np.asarray(by_group.sum(axis=(1, 3)).reshape(-1))
    inner = facts.in_axis % weight.ndim
    return np.asarray(squares.sum(axis=tuple(axis for axis in range(weight.ndim) if axis != inner)))
