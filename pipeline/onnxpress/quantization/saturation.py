"""Saturation on x86 CPUs without VNNI, avoided: weights of which no pair can saturate, whatever they are multiplied by.

One int8 file gives other answers there than on the CPU where it was tested (Intel's table of validated models has
MobileNetV2 lose 7 points); `onnxpress.quantization.pairs` says why. `onnxpress.quantization.weights` rounds what this
module names.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.rounding import Reconstruction
from onnxpress.quantization.weights import Weights


def limited(model: ir.Model, options: QuantizeOptions, rounding: Reconstruction | None = None) -> Weights:
    """Return weights that are rounded so that no pair saturates on any CPU that may serve.

    Args:
        model: A prepared model after `placement.gemms`, bodies of If and Loop included; it is not changed.
        options: How it will be written.
        rounding: What rounds the weights that it knows.
    """
    found: dict[ir.TensorProtocol, list[ir.Node]] = {}
    for node in graph.nodes(model) if options.saturates else ():
        for tensor in map(graph.constant_tensor, _weights(node)):
            if tensor is not None and tensor.dtype == ir.DataType.FLOAT and not _depthwise(node, tensor):
                found.setdefault(tensor, []).append(node)
    return Weights(found, rounding)


def _weights(node: ir.Node) -> list[ir.Value | None]:
    """Return what a node multiplies activations with in int8."""
    if node.op_type == "LSTM" and node.domain in graph.ONNX_DOMAINS:
        return list(node.inputs[1:3])
    facts = graph.weighted(node)
    return [node.inputs[facts.weight]] if facts is not None and node.op_type in ("Conv", "Gemm", "MatMul") else []


def _depthwise(node: ir.Node, weight: ir.TensorProtocol) -> bool:
    """Tell whether a convolution has one filter per channel: those kernels add in 32 bits."""
    groups = graph.attribute_int(node, "group", 1)
    return node.op_type == "Conv" and groups > 1 and weight.shape.numpy()[:2] == (groups, 1)
