"""Saturation on x86 CPUs without VNNI: predicted by emulation, avoided where something would be lost.

One int8 file gives other answers there than on the CPU where it was tested (Intel's table of validated models has
MobileNetV2 lose 7 points); `emulation` says why. In a layer that loses anything on calibration data no pair of weights
may saturate any more: `onnxpress.quantization.weights` rounds it within `onnxpress.quantization.pairs.limits`.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization import static
from onnxpress.quantization.emulation import integer_layer, predict
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.pairs import risky
from onnxpress.quantization.placement import place
from onnxpress.quantization.rounding import Reconstruction
from onnxpress.quantization.weights import Weights
from onnxpress_calibration.dataset import Dataset

TOLERANCE = 1e-4
"""Relative squared error at a layer's output, 40 dB: what saturates less is lost in the noise of rounding to 8 bits."""


def limited(
    model: ir.Model,
    ranges: Mapping[str, tuple[float, float]],
    options: QuantizeOptions,
    data: Dataset | None,
    rounding: Reconstruction | None = None,
) -> Weights:
    """Return weights of which those that would lose by saturation, if any can, are rounded so that no pair saturates.

    Args:
        model: A prepared model after `placement.gemms`; it is not changed.
        ranges: (low, high) by tensor name.
        options: How it will be written.
        data: Samples that tell which layers lose anything; without them every layer does that could.
        rounding: What rounds the weights.
    """
    if not options.saturates:
        return Weights(rounding=rounding)
    weights = {node.name: tensor for node in model.graph if (tensor := _weight(node)) is not None}
    found: dict[ir.TensorProtocol, list[ir.Node]] = {}
    while True:
        copy = model.clone()
        placement = place(copy, options.selects)
        emulated = options.model_copy(update={"format": "qdq"})
        made = Weights(found, rounding)
        written = static.write(copy, placement, ranges, emulated, made).model
        new = {weights[name] for name in _losing(written, data)} - found.keys()
        if not new:  # what is limited changes activations, and so may make other layers lose
            return made
        found = found | {tensor: [node for node in model.graph if _weight(node) is tensor] for tensor in new}


def _losing(model: ir.Model, data: Dataset | None) -> set[str]:
    """Return the names of the layers of a QDQ model that lose something."""
    if data is not None:
        return {loss.node for loss in predict(model, data) if loss.error > TOLERANCE}
    layers = [layer for node in model.graph if (layer := integer_layer(node)) is not None]
    return {layer.node.name or "" for layer in layers if len(risky(layer.weights)[0])}


def _weight(node: ir.Node) -> ir.TensorProtocol | None:
    facts = graph.weighted(node)
    return None if facts is None else graph.constant_tensor(node.inputs[facts.weight])
