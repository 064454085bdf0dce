"""How many parameters a model has: the numbers it has learned, however they are stored.

A weight counts once whether it is float, int8 or packed, so that a model has as many parameters after quantization as
before. Scales, zero points, shapes, axes and indices are none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from onnxpress import graph

GRIDS: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeMatMul": (2, 3),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "MatMulNBits": (2, 3, 4),
    "GatherBlockQuantized": (2, 3),
}
"""Where operators on integers read scales, zero points and the order of groups: ONNX's, and onnxruntime's own."""
NARROW_BITS = 8
"""Integers of up to so many bits are weights; wider ones are shapes and indices, unless they are dequantized."""


def count(model: ir.Model) -> int:
    """Return the number of parameters of a model, those in subgraphs included, by the shapes of its constants."""
    return sum(_parameters(value) for value in _constants(model))


def _constants(model: ir.Model) -> Iterator[ir.Value]:
    for part in model.graphs():
        yield from part.initializers.values()
        for node in part:
            if node.op_type == "Constant" and node.domain in graph.ONNX_DOMAINS:
                yield node.outputs[0]


def _parameters(value: ir.Value) -> int:
    """Return how many parameters a constant holds."""
    tensor = graph.constant_tensor(value)
    dtype = value.dtype or (None if tensor is None else tensor.dtype)
    uses = [(use.node, use.idx) for use in value.uses()]
    if dtype is None or (uses and all(_is_grid(node, index) for node, index in uses)):
        return 0
    stored = graph.shape(value) or (() if tensor is None else tuple(tensor.shape.numpy()))
    elements = math.prod(size or 0 for size in stored)
    for node, index in uses:
        if node.op_type == "MatMulNBits" and index == 1:
            return graph.attribute_int(node, "K", 0) * graph.attribute_int(node, "N", 0)
        if node.op_type == "GatherBlockQuantized" and index == 0:
            return elements * dtype.bitwidth // graph.attribute_int(node, "bits", 4)
    if dtype.is_floating_point() or (dtype.is_integer() and dtype.bitwidth <= NARROW_BITS):
        return elements
    return elements if any(node.op_type in GRIDS for node, _ in uses) else 0


def _is_grid(node: ir.Node, index: int) -> bool:
    """Tell whether a node reads a scale or a zero point here."""
    if node.op_type == "Mul" and node.domain in graph.ONNX_DOMAINS:
        other = node.inputs[1 - index]
        producer = None if other is None else other.producer()
        if producer is None:
            return False
        if producer.op_type == "Cast":  # weights that become float: Cast → Mul
            read = graph.constant_tensor(producer.inputs[0])
            return read is not None and read.dtype.is_integer()
        return producer.op_type == "DynamicQuantizeLinear" and other is producer.outputs[1]
    return index in GRIDS.get(node.op_type, ())
