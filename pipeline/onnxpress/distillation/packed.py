"""Weights packed for onnxruntime's own operators: written with standard ones to be trained, and packed again.

``MatMulNBits`` is DequantizeLinear in blocks → Transpose → MatMul → Add, ``GatherBlockQuantized`` is DequantizeLinear →
Gather (onnxruntime's ContribOperators.md). MatMulNBits may round activations to int8 (``accuracy_level=4``), which
training does not see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import ModelError
from onnxpress.graph import Array

STORED = {"GatherBlockQuantized": 0, "MatMulNBits": 1}
"""Which input the integers are; scales are the third and zero points the fourth."""
KINDS = {4: np.dtype(ml_dtypes.uint4), 8: np.dtype(np.uint8)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A packed node, out of the graph, and what stands for it."""

    op_type: str
    attributes: tuple[ir.Attr, ...]
    inputs: tuple[ir.Value | None, ...]
    weight: ir.Node
    """DequantizeLinear; several nodes may read it."""
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    """Of integers and scales as they were stored."""
    standard: tuple[ir.Node, ...]
    """Behind the DequantizeLinear; the last one gives the output."""


def unpack(model: ir.Model) -> list[Packed]:
    """Write the packed nodes of a model with standard operators, in place.

    Raises:
        ModelError: an operator is used in a way that is not understood; the message names the node.
    """
    found, weights = [], dict[ir.Value, tuple[ir.Node, tuple[tuple[int, ...], tuple[int, ...]]]]()
    for node in list(model.graph):
        if node.domain != graph.MICROSOFT or node.op_type not in STORED:
            continue
        stored, bits = node.inputs[STORED[node.op_type]], _bits(node)
        assert stored is not None  # noqa: S101 - `_bits`
        if stored not in weights:
            weights[stored] = _dequantized(model.graph, node, bits)
        weight, shapes = weights[stored]
        each = Packed(
            op_type=node.op_type,
            attributes=tuple(node.attributes.values()),
            inputs=tuple(node.inputs),
            weight=weight,
            shapes=shapes,
            standard=tuple(_standard(node, weight.outputs[0])),
        )
        _exchange(model.graph, [node], each.standard)
        found.append(each)
    return found


def pack(model: ir.Model, found: Sequence[Packed]) -> None:
    """Put the packed nodes back in place of the standard ones, with the weights that these have now."""
    done: set[ir.Node] = set()
    for each in found:
        stored, scales = each.weight.inputs[:2]
        assert stored is not None and scales is not None  # noqa: S101 - `_dequantized`
        if each.weight not in done:
            done.add(each.weight)
            integers, factors = graph.constant(stored), graph.constant(scales)
            assert integers is not None and factors is not None  # noqa: S101
            bits = next(bits for bits, kind in KINDS.items() if kind == integers.dtype)
            width = math.prod(each.shapes[0][1:])
            _become(stored, _bytes(integers, bits, width).reshape(each.shapes[0]))
            _become(scales, factors.reshape(each.shapes[1]))
        inputs = list(each.inputs)
        inputs[STORED[each.op_type]], inputs[2] = stored, scales
        product = next(node for node in each.standard if node.op_type in ("Gather", "MatMul"))
        other = 1 - STORED[each.op_type]  # what is multiplied or looked up may have got another producer since
        inputs[other] = product.inputs[other]
        node = ir.Node(graph.MICROSOFT, each.op_type, inputs, each.attributes, name=product.name)
        _exchange(model.graph, each.standard, [node])
    for weight in done:
        middle = weight.inputs[2]
        model.graph.remove(weight, safe=True)
        if middle is not None and middle.name is not None:
            del model.graph.initializers[middle.name]


def _exchange(main: ir.Graph, old: Sequence[ir.Node], new: Sequence[ir.Node]) -> None:
    """Put nodes in the place of others; the last one's output becomes that of the others' last."""
    result, output = new[-1].outputs[0], old[-1].outputs[0]
    main.insert_before(old[0], new)
    result.shape, result.type = output.shape, output.type
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    result.name, output.name = output.name, None
    main.remove(old, safe=True)


def _read(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None, ir.Value | None]:
    """Return (integers, scales, zero points) of a node."""
    stored, scales, zero = (node.inputs[i] if i < len(node.inputs) else None for i in (STORED[node.op_type], 2, 3))
    return stored, scales, zero


def _bits(node: ir.Node) -> int:
    """Return the width of the integers of a node that can be trained."""
    bits, table = node.attributes.get_int("bits", 4) or 4, node.op_type == "GatherBlockQuantized"
    stored, scales, zero = _read(node)
    unlike = {
        f"{bits} bits": bits not in KINDS,
        "computed weights": graph.constant_tensor(stored) is None or graph.constant_tensor(scales) is None,
        f"integers stored as {stored and stored.dtype}": stored is None or stored.dtype != ir.DataType.UINT8,
        "zero points that are no bytes": zero is not None
        and ((tensor := graph.constant_tensor(zero)) is None or tensor.dtype != ir.DataType.UINT8),
        "a group index": not table and len(node.inputs) > 4 and node.inputs[4] is not None,
        "other axes than rows and columns": table
        and (graph.attribute_int(node, "gather_axis", 0), graph.attribute_int(node, "quantize_axis", 1)) != (0, 1),
    }
    reason = next((text for text, holds in unlike.items() if holds), None)
    if reason is not None:
        raise ModelError(f"node {node.name!r}: {node.op_type} with {reason} cannot be trained through.")
    return bits


def _dequantized(main: ir.Graph, node: ir.Node, bits: int) -> tuple[ir.Node, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Put a DequantizeLinear before a node; return it, and the shapes its integers and scales had."""
    stored, scales, zero = _read(node)
    integers, factors, zeros = graph.constant(stored), graph.constant(scales), graph.constant(zero)
    assert stored is not None and scales is not None and integers is not None and factors is not None  # noqa: S101
    shapes, rows = (integers.shape, factors.shape), len(integers)
    columns = graph.attribute_int(node, "K", 0) or integers.size // rows * 8 // bits
    factors = factors.reshape(rows, -1)
    blocks = factors.shape[1]
    middle = (
        np.full(factors.shape, 2 ** (bits - 1)) if zeros is None else _integers(zeros.reshape(rows, -1), bits, blocks)
    )
    _become(stored, _integers(integers, bits, columns).astype(KINDS[bits]))
    _become(scales, factors)
    inputs = [stored, scales, graph.add_initializer(main, f"{stored.name}_middle", middle.astype(KINDS[bits]))]
    size = graph.attribute_int(node, "block_size", 32)
    made = ir.node("DequantizeLinear", inputs, {"axis": 1, "block_size": size}, name=f"{node.name}_weight")
    main.insert_before(node, made)
    return made, shapes


def _standard(node: ir.Node, weight: ir.Value) -> list[ir.Node]:
    """Return standard nodes that compute what a node does, the last one its output."""
    if node.op_type == "GatherBlockQuantized":
        return [ir.node("Gather", [weight, node.inputs[1]], {"axis": 0}, name=node.name)]
    turned = ir.node("Transpose", [weight], {"perm": [1, 0]}, name=f"{node.name}_turned")
    product = ir.node("MatMul", [node.inputs[0], turned.outputs[0]], name=node.name)
    bias = node.inputs[5] if len(node.inputs) > 5 else None
    return [turned, product, *([] if bias is None else [ir.node("Add", [product.outputs[0], bias])])]


def _become(value: ir.Value, array: Array) -> None:
    tensor = ir.tensor(array, name=value.name)
    value.const_value, value.shape, value.type = tensor, ir.Shape(array.shape), ir.TensorType(tensor.dtype)


def _integers(packed: Array, bits: int, columns: int) -> Array:
    """Return unsigned integers [rows, columns] of packed bytes: the lower half of a byte first."""
    rows = packed.reshape(len(packed), -1)
    if bits == 4:
        rows = np.stack([rows & 15, rows >> 4], axis=-1).reshape(len(rows), -1)
    return rows[:, :columns]


def _bytes(integers: Array, bits: int, width: int) -> Array:
    """Return packed bytes [rows, width] of unsigned integers, filled up with the middle of the grid."""
    whole = integers.astype(np.uint8)
    filled = np.pad(whole, ((0, 0), (0, width * 8 // bits - whole.shape[1])), constant_values=2 ** (bits - 1))
    return filled if bits == 8 else filled[:, ::2] | filled[:, 1::2] << 4
