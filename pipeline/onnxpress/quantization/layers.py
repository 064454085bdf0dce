"""The layers of a model file, float or quantized in any way, and the names by which a runtime's graph shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxpress import graph

Stored = Literal["float", "integers", "unfolded"]

EITHER = ("Einsum", "FusedGemm", "FusedMatMul", "Gemm", "MatMul")
FIRST = ("Attention", "Conv", "ConvTranspose", "DeformConv", "FusedConv", "GRU", "LSTM", "NhwcFusedConv", "RNN")
INTEGERS = (
    "ConvInteger",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
)
FOURTH = ("QGemm", "QLinearConv", "QLinearMatMul")
WEIGHTS = {
    **dict.fromkeys(EITHER, (1, 0)),
    **dict.fromkeys((*FIRST, *INTEGERS), (1,)),
    **dict.fromkeys(FOURTH, (3,)),
}
"""Which input of an operator is its weight; of two that may be one, the first that is constant."""
BEHIND = frozenset({"Add", "Cast", "Clip", "Mul", "QuantizeLinear", "Relu"})
"""What a runtime fuses to the layer before it."""
SUFFIX = "_integer"
"""What `onnxpress.quantization.dynamic` adds to a layer's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A node that multiplies by a weight."""

    node: ir.Node
    weight: ir.TensorProtocol
    """As the file stores it."""
    name: str
    op: str
    stored: Stored
    """How the file holds the weight; unfolded integers are float from the moment the model is loaded."""
    results: tuple[str, ...]
    """Tensors that a kernel for it may write, the one with most fused to it first."""
    weights: tuple[str, ...]
    """Initializers that it reads, its own only."""


def layers(model: ir.Model) -> Iterator[Layer]:
    """Yield the layers, those in bodies of If, Loop and Scan too."""
    for node in graph.nodes(model):
        found = next((weight for weight in map(_weight, candidates(node)) if weight is not None), None)
        if found is None:
            continue
        value, weight, stored = found
        tensor = graph.constant_tensor(weight)
        if tensor is None:
            continue
        if node.op_type in INTEGERS or node.op_type in FOURTH:
            stored = "integers"
        alone = len(weight.uses()) == 1 and len(value.uses()) == 1
        yield Layer(
            node=node,
            weight=tensor,
            name=(node.name or "").removesuffix(SUFFIX) if node.op_type == "MatMulInteger" else node.name or "",
            op=node.op_type,
            stored=stored,
            results=tuple(_results(node)),
            weights=(weight.name or "",) if alone else (),
        )


def candidates(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of a node that would be its weight if they are constant, the likeliest first."""
    if node.domain not in (*graph.ONNX_DOMAINS, graph.MICROSOFT):
        return []
    return [
        value
        for index in WEIGHTS.get(node.op_type, ())
        if index < len(node.inputs) and (value := node.inputs[index]) is not None
    ]


def _weight(read: ir.Value) -> tuple[ir.Value, ir.Value, Stored] | None:
    """Return what a node reads, the initializer behind it and how that is stored; None when it is computed."""
    stored: Stored = "float"
    value: ir.Value | None = read
    while value is not None and graph.constant_tensor(value) is None:
        producer = value.producer()
        if producer is None or producer.op_type not in ("Cast", "DequantizeLinear", "Mul", "Reshape", "Transpose"):
            return None
        stored = "integers" if producer.op_type == "DequantizeLinear" else "unfolded"
        value = producer.inputs[0]
    return None if value is None else (read, value, stored)


def _results(node: ir.Node) -> list[str]:
    """Return the names of the node's outputs, and of what is behind the first while each alone reads the one before."""
    names = [value.name or "" for value in node.outputs if value.name]
    value = node.outputs[0]
    while len(value.uses()) == 1:
        (reader,) = graph.consumers(value)
        if reader.op_type not in BEHIND:
            break
        value = reader.outputs[0]
        names.insert(0, value.name or "")
    return names
