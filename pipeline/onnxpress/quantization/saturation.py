"""Saturation on x86 CPUs without VNNI: predicted by emulation, avoided where something would be lost.

One int8 file gives other answers there than on the CPU where it was tested (Intel's table of validated models has
MobileNetV2 lose 7 points); `emulation` says why. A layer that loses anything on calibration data gets coarser weights
in the channels concerned, just so coarse that no pair of them can saturate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit
from onnxpress.quantization import static
from onnxpress.quantization.emulation import HIGH, LOW, PEAK, Saturation, integer_layer, paired, predict
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import Array
from onnxpress.quantization.placement import Placement, place
from onnxpress.quantization.rounding import Reconstruction
from onnxpress.quantization.weights import Weights
from onnxpress_calibration.dataset import Dataset

TOLERANCE = 1e-4
"""Relative squared error at a layer's output, 40 dB: what saturates less is lost in the noise of rounding to 8 bits."""


def safe_scales(model: ir.Model, losses: Iterable[Saturation] | None) -> dict[str, Array]:
    """Return, for each layer of a QDQ model that loses, scales with which it cannot: node name to [M].

    Args:
        model: A QDQ model.
        losses: What `predict` found; a layer loses that has more than `TOLERANCE`. None when nothing is known: then
            each layer does in which some pair of weights could.
    """
    losing = None if losses is None else {loss.node for loss in losses if loss.error > TOLERANCE}
    scales = {}
    for node in model.graph:
        layer = integer_layer(node) if losing is None or node.name in losing else None
        if layer is not None and (factors := safe_factors(layer.weights)).max() > 1:
            scales[node.name or ""] = layer.scales * factors
    return scales


def write_safely(
    model: ir.Model,
    ranges: Mapping[str, tuple[float, float]],
    options: QuantizeOptions,
    data: Dataset | None,
    rounding: Reconstruction | None = None,
) -> Edit:
    """Write a model as `static.write` does, with coarser scales in the channels that would saturate, and only there.

    Args:
        model: A prepared model after `placement.gemms`; it is not changed.
        ranges: (low, high) by tensor name.
        options: How to write.
        data: Samples that tell which layers lose anything; without them every layer that could is made safe.
        rounding: What rounds the weights of layers that lose nothing; nearest rounding without it.

    Returns:
        The edit, with the layers that were made safe as the fact ``saturation_avoided``.
    """
    scales = needed_scales(model, ranges, options, data, rounding)
    edit = _written(model, ranges, options, scales, rounding)
    return replace(edit, facts={**edit.facts, "saturation_avoided": sorted(scales)})


def needed_scales(
    model: ir.Model,
    ranges: Mapping[str, tuple[float, float]],
    options: QuantizeOptions,
    data: Dataset | None,
    rounding: Reconstruction | None = None,
) -> dict[str, Array]:
    """Return the scales with which no layer loses, for those that would: node name to [M]; see `write_safely`."""
    scales: dict[str, Array] = {}
    emulated = options.model_copy(update={"format": "qdq"})
    while True:
        written = _written(model, ranges, emulated, scales, rounding).model
        losing = safe_scales(written, None if data is None else predict(written, data))
        # Scales made for reconstructed integers may still be too fine for the nearest ones that take their place.
        if all(name in scales and (scale <= scales[name]).all() for name, scale in losing.items()):
            return scales
        scales |= losing


def _written(
    model: ir.Model,
    ranges: Mapping[str, tuple[float, float]],
    options: QuantizeOptions,
    scales: Mapping[str, Array],
    rounding: Reconstruction | None,
) -> Edit:
    copy = model.clone()
    placement = place(copy, options.selects)
    return static.write(copy, placement, ranges, options, Weights(floors(placement, scales), rounding))


def floors(placement: Placement, scales: Mapping[str, Array]) -> dict[ir.TensorProtocol, Array]:
    """Return the scales of `needed_scales` by weight, as `Weights` takes them."""
    found: dict[ir.TensorProtocol, Array] = {}
    for node in placement.weighted:
        facts = graph.weighted(node)
        tensor = None if facts is None else graph.constant_tensor(node.inputs[facts.weight])
        needed = scales.get(node.name or "")
        if tensor is not None and needed is not None:
            found[tensor] = np.maximum(found.get(tensor, 0), needed)  # a tied weight has one grid
    return found


def safe_factors(weights: Array) -> Array:
    """Return by how much each column's scale must grow so that no pair of it can saturate; 1 where none can, [M]."""
    first, second = paired(weights)
    highest = (np.maximum(first, 0) + np.maximum(second, 0)).max(axis=0, initial=0)
    lowest = -(np.minimum(first, 0) + np.minimum(second, 0)).min(axis=0, initial=0)
    # Rounding to the coarser grid may add half a step to each of the two.
    limits = np.minimum(HIGH // PEAK / np.maximum(highest + 1, 1), -LOW // PEAK / np.maximum(lowest + 1, 1))
    factors: Array = np.where(PEAK * np.maximum(highest, lowest) > HIGH, 1 / limits, 1.0)
    return factors
