"""Dense layers in one form, ``x · W + b``, however they were written, so that all that follows knows them.

* An Einsum of a value and a constant becomes a MatMul where it is one, with a Transpose or Reshape before and behind it
  where the order of its axes asks for that.
* A constant as the left operand goes to the right: ``W · x = (xᵀ · Wᵀ)ᵀ``.
* A Gemm gets the plain form: alpha and beta go into weight and bias, transA becomes a Transpose, and a bias of one row
  or one number becomes one value per channel.

What else multiplies by a constant stays as it is (weights of their own for each head, …).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.passes.rewiring import initializer, remove
from onnxpress.graph import Array

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


def write_products(model: ir.Model) -> list[str]:
    """Rewrite the dense layers of a model, in place; see the module."""
    changed = []
    for node in list(model.graph.all_nodes()):
        if node.domain not in graph.ONNX_DOMAINS or not node.outputs or not node.inputs:
            continue
        rewrite = REWRITES.get(node.op_type)
        if rewrite is not None and rewrite(_Writer(model, node)):
            changed.append(node.name or "")
    return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The axes of an Einsum of two operands, named by letters."""

    left: str
    right: str
    result: str


def terms(node: ir.Node) -> Terms | None:
    """Read the equation of an Einsum; None unless it has two operands, and where an axis appears twice in one.

    The axes that an ellipsis stands for get upper-case Greek letters, which ONNX does not allow.
    """
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    given, arrow, result = equation.partition("->")
    operands = given.split(",")
    if len(operands) != 2 or len(node.inputs) != 2:
        return None
    if not arrow:
        letters = sorted(letter for letter in set(given) - {",", "."} if given.count(letter) == 1)
        result = ("..." if "..." in given else "") + "".join(letters)
    ranks = [graph.shape(value) for value in node.inputs]
    count = 0
    for operand, dims in zip(operands, ranks, strict=True):
        if "..." in operand:
            if dims is None:
                return None
            count = max(count, len(dims) - len(operand.replace("...", "")))
    spelled = "".join(chr(0x391 + index) for index in range(count))
    named = []
    for operand, dims in zip(operands, ranks, strict=True):
        inside = 0 if dims is None else len(dims) - len(operand.replace("...", ""))
        named.append(operand.replace("...", spelled[count - inside :] if "..." in operand else ""))
    whole = result.replace("...", spelled)
    if any(len(set(text)) != len(text) for text in (*named, whole)):
        return None
    return Terms(left=named[0], right=named[1], result=whole)


class _Writer:
    """Writes what takes the place of one node before it."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.main = model.graph
        self.node = node
        self.new: list[ir.Node] = []

    def constant(self, array: Array, word: str) -> ir.Value:
        """Store an array."""
        tensor = ir.Tensor(np.ascontiguousarray(array))
        return initializer(self.main, f"{self.node.name}_{word}", tensor)

    def add(
        self, op: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, float | list[int]] | None = None
    ) -> ir.Value:
        """Add a node and return what it makes."""
        word = f"{self.node.name}_{op.lower()}{len(self.new) or ''}"
        created = ir.node(op, inputs, attributes, name=word)
        created.outputs[0].name = word
        self.new.append(created)
        return created.outputs[0]

    def transpose(self, value: ir.Value, order: Sequence[int]) -> ir.Value:
        """Return a value with its axes in another order."""
        return value if list(order) == sorted(order) else self.add("Transpose", [value], {"perm": list(order)})

    def finish(self, result: ir.Value) -> bool:
        """Let the last value take the place of the node's output; the node that multiplies gets its name."""
        node, output = self.node, self.node.outputs[0]
        assert node.graph is not None  # noqa: S101 - it is in one
        node.graph.insert_before(node, self.new)
        result.shape, result.type = output.shape, output.type
        name, output.name = output.name, None
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        result.name = name
        product = next(each for each in self.new if each.op_type in ("Gemm", "MatMul"))
        remove(node)
        product.name = node.name
        return True


def _einsum(writer: _Writer) -> bool:
    """Write an Einsum of a value and a constant as a MatMul with a matrix."""
    node = writer.node
    axes, tensors = terms(node), [graph.constant_tensor(value) for value in node.inputs]
    if axes is None or sum(tensor is not None for tensor in tensors) != 1:
        return False
    at = 0 if tensors[0] is not None else 1
    value, stored, tensor = node.inputs[1 - at], node.inputs[at], tensors[at]
    own, weight = (axes.right, axes.left) if at == 0 else (axes.left, axes.right)
    dims = graph.shape(value)
    if value is None or stored is None or tensor is None or tensor.dtype not in FLOATS:
        return False
    summed = [axis for axis in weight if axis in own and axis not in axes.result]
    made = [axis for axis in axes.result if axis in weight]
    kept = [axis for axis in axes.result if axis in own]
    lengths = dict(zip(weight, tensor.shape.numpy(), strict=True))
    plain = not set(kept) & set(made) and len(kept) + len(summed) == len(own) and len(made) + len(summed) == len(weight)
    if not plain or not summed or any(lengths[axis] == 1 for axis in summed) or (dims and len(dims) != len(own)):
        return False
    if any(size not in (None, lengths.get(axis, size)) for axis, size in zip(own, dims or (), strict=dims is not None)):
        return False  # onnxruntime broadcasts an axis of one
    matrix = _matrix(writer, stored, [weight.index(axis) for axis in (*summed, *made)], len(summed))
    moved = writer.transpose(value, [own.index(axis) for axis in (*kept, *summed)])
    if len(summed) > 1:
        sizes = [*[0] * len(kept), math.prod(lengths[axis] for axis in summed)]
        moved = writer.add("Reshape", [moved, writer.constant(np.array(sizes, np.int64), "rows")])
    result = writer.add("MatMul", [moved, matrix])
    if len(made) != 1:
        sizes = [*[0] * len(kept), *(lengths[axis] for axis in made)]
        result = writer.add("Reshape", [result, writer.constant(np.array(sizes, np.int64), "axes")])
    order = [*kept, *made]
    return writer.finish(writer.transpose(result, [order.index(axis) for axis in axes.result]))


def _matrix(writer: _Writer, stored: ir.Value, order: list[int], rows: int) -> ir.Value:
    """Return a weight as a matrix, with the first axes of an order as its rows."""
    array = graph.constant(stored)
    assert array is not None  # noqa: S101 - it is a constant
    if order == [0, 1] and rows == 1:
        return stored
    moved = array.transpose(order)
    return writer.constant(moved.reshape(math.prod(moved.shape[:rows]), -1), "matrix")


def _matmul(writer: _Writer) -> bool:
    """Bring a constant matrix from the left of a computed value to the right."""
    left, right = writer.node.inputs
    tensor, dims = graph.constant_tensor(left), graph.shape(right)
    if tensor is None or tensor.dtype not in FLOATS or len(tensor.shape) != 2 or left is None or right is None:
        return False
    if graph.constant_tensor(right) is not None or dims is None or len(dims) < 2:
        return False
    swapped = [*range(len(dims) - 2), len(dims) - 1, len(dims) - 2]
    product = writer.add("MatMul", [writer.transpose(right, swapped), _matrix(writer, left, [1, 0], 1)])
    return writer.finish(writer.transpose(product, swapped))


def _gemm(writer: _Writer) -> bool:
    """Write a Gemm with a constant operand as ``x · W + b``, with one value of b per channel where that is possible."""
    node = writer.node
    constants = [graph.constant(value) for value in node.inputs[:2]]
    at = 0 if constants[0] is not None else 1
    weight, value, array = node.inputs[at], node.inputs[1 - at], constants[at]
    if array is None or constants[1 - at] is not None or weight is None or value is None or weight.dtype not in FLOATS:
        return False
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    turns = [bool(graph.attribute_int(node, name, 0)) for name in ("transA", "transB")]
    if at == 0:  # (A · B)ᵀ = Bᵀ · Aᵀ
        turns = [not turned for turned in reversed(turns)]
    bias = node.inputs[2] if len(node.inputs) > 2 and beta else None
    offset = graph.constant(bias)
    if bias is not None and offset is None and (beta != 1 or at == 0):
        return False
    row = None if offset is None else _row(offset, len(array) if turns[1] else array.shape[1], turned=at == 0)
    same_bias = offset is None or (beta == 1 and at == 1 and row is not None and row.shape == offset.shape)
    if at == 1 and not turns[0] and alpha == 1 and beta == 1 and same_bias:
        return False
    if alpha != 1:
        weight = writer.constant((array * np.float64(alpha)).astype(array.dtype), "weight")
    if row is not None and not same_bias:
        bias = writer.constant((row * np.float64(beta)).astype(row.dtype), "bias")
    inputs = [writer.transpose(value, [1, 0] if turns[0] else [0, 1]), weight, *([] if bias is None else [bias])]
    result = writer.add("Gemm", inputs, {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": int(turns[1])})
    return writer.finish(writer.transpose(result, [1, 0] if at == 0 else [0, 1]))


def _row(offset: Array, channels: int, *, turned: bool) -> Array:
    """Return a bias as one value per channel; where it has more than one row, as it is added to the product."""
    wide = np.atleast_2d(offset).T if turned else np.atleast_2d(offset)
    if len(wide) == 1 and wide.shape[1] in (1, channels):
        return np.array(np.broadcast_to(wide[0], (channels,)))
    return wide if turned else offset


REWRITES = {"Einsum": _einsum, "Gemm": _gemm, "MatMul": _matmul}
