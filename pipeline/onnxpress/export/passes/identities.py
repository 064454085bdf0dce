"""Nodes that return what they are given, such as Identity, Dropout, or a Reshape to the shape that is there already."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.passes.rewiring import bypass

END = 2**31 - 1
"""Exporters write at least this for "up to the end"."""


def remove_identities(model: ir.Model) -> list[str]:
    """Remove the nodes that change nothing."""
    changed = []
    for node in list(model.graph.all_nodes()):
        source = node.inputs[0] if node.inputs and node.domain in graph.ONNX_DOMAINS else None
        if source is not None and _is_identity(node, source) and bypass(node, source):
            changed.append(node.name or "")
    return changed


def _is_identity(node: ir.Node, source: ir.Value) -> bool:
    """Tell whether a node's first output always equals its first input, the source."""
    match node.op_type:
        case "Identity":
            return True
        case "Dropout":  # in inference, unless it is told to train
            mode = node.inputs[2] if len(node.inputs) > 2 else None
            return mode is None or (graph.constant_tensor(mode) is not None and not np.any(graph.constant(mode)))
        case "Cast":
            return source.dtype is not None and graph.attribute_int(node, "to", 0) == source.dtype
        case "Concat" | "Max" | "Mean" | "Min" | "Sum":
            return len(node.inputs) == 1
        case "Transpose":
            axes = node.attributes.get_ints("perm")
            return axes is not None and list(axes) == sorted(axes)
        case "Flatten" | "Reshape":
            return _same_shape(source, node.outputs[0], open_axes=1)
        case "Expand" | "Tile":
            return _same_shape(source, node.outputs[0], open_axes=0)
        case "Pad":
            pads = graph.constant(node.inputs[1])
            return pads is not None and not pads.any()
        case "Slice":
            return _takes_all(node)
        case "Add" | "Sub":
            return _neutral(node, 0)
        case "Mul" | "Div":
            return _neutral(node, 1)
        case _:
            return False


def _same_shape(before: ir.Value, after: ir.Value, *, open_axes: int) -> bool:
    """Tell whether two shapes are equal, given that at most so many axes follow from the number of elements."""
    if before.shape is None or after.shape is None or len(before.shape) != len(after.shape):
        return False
    names = [axis.value for axis in before.shape if isinstance(axis, ir.SymbolicDim)]
    distinct = len(set(names)) == len(names)  # some exporters call every unknown axis the same
    unequal = [
        (left, right)
        for left, right in zip(before.shape, after.shape, strict=True)
        if not (isinstance(left, int) and left == right)
        and not (isinstance(left, ir.SymbolicDim) and left.value is not None and left == right and distinct)
    ]
    return len(unequal) <= open_axes and not any(
        isinstance(left, int) and isinstance(right, int) for left, right in unequal
    )


def _takes_all(node: ir.Node) -> bool:
    """Tell whether a Slice starts at 0 in steps of 1 and goes to the end of each of its axes."""
    starts, ends = (graph.constant(value) for value in node.inputs[1:3])
    steps = node.inputs[4] if len(node.inputs) > 4 else None
    if starts is None or ends is None or starts.any() or (ends < END).any():
        return False
    return steps is None or (graph.constant_tensor(steps) is not None and bool(np.all(graph.constant(steps) == 1)))


def _neutral(node: ir.Node, element: int) -> bool:
    """Tell whether the second operand is this number everywhere and does not widen the first by broadcasting."""
    source, operand = node.inputs
    array, dims = graph.constant(operand), graph.shape(source)
    if array is None or dims is None or array.ndim > len(dims) or array.size == 0 or not np.all(array == element):
        return False
    return all(size in (1, dims[axis - array.ndim]) for axis, size in enumerate(array.shape))
