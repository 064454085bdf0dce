"""The weights of a model that pruning may touch, with the meaning of their axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.graph import Array

RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A constant that a node multiplies its input with."""

    node: ir.Node
    """The first node that reads it."""
    value: ir.Value
    out_axis: int
    in_axis: int

    def rows(self) -> Array:
        """Return the weight as [out, in, …]; with groups, ``in`` is the number of input channels per group."""
        assert self.value.const_value is not None  # noqa: S101 - see `weights_of`
        return np.moveaxis(self.value.const_value.numpy(), (self.out_axis, self.in_axis), (0, 1))

    def store(self, rows: Array) -> None:
        """Put a weight in the form [out, in, …] back."""
        array = np.ascontiguousarray(np.moveaxis(rows, (0, 1), (self.out_axis, self.in_axis)))
        self.value.const_value = ir.tensor(array, name=self.value.name)


def weights_of(node: ir.Node) -> list[Weight]:
    """Return the weights of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU or RNN that are initializers, not inputs."""
    found = []
    for position, out_axis, in_axis in _positions(node):
        value = node.inputs[position]
        if value is None or not value.is_initializer() or graph.constant_tensor(value) is None:
            continue
        rank = len(value.shape or ())
        if rank >= 2:
            found.append(Weight(node=node, value=value, out_axis=out_axis % rank, in_axis=in_axis % rank))
    return found


def table_of(node: ir.Node) -> Weight | None:
    """Return the table [rows, columns] that a Gather picks rows or columns from: an embedding."""
    if node.op_type != "Gather" or node.domain not in graph.ONNX_DOMAINS:
        return None
    value = node.inputs[0]
    if (
        graph.constant_tensor(value) is None
        or value is None
        or len(value.shape or ()) != 2
        or value.dtype not in FLOATS
    ):
        return None
    axis = graph.attribute_int(node, "axis", 0) % 2
    return Weight(node=node, value=value, out_axis=1 - axis, in_axis=axis)


FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def _positions(node: ir.Node) -> list[tuple[int, int, int]]:
    facts = graph.weighted(node)
    if facts is not None:
        return [(facts.weight, facts.out_axis, facts.in_axis)]
    if node.domain in graph.ONNX_DOMAINS and node.op_type in RECURRENT:
        return [(1, 1, 2), (2, 1, 2)]  # W and R: [directions, gates × hidden, in]
    return []
