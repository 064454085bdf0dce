"""What nodes are told by constants: shapes, axes, parts; and small helpers of all rules."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxpress import graph
from onnxpress.pruning.layout import Block, length


def integers(node: ir.Node, position: int, attribute: str) -> list[int] | None:
    """Return a list of integers that is a constant input or, in older opsets, an attribute; None when computed."""
    if attribute in node.attributes:
        return [int(value) for value in node.attributes[attribute].as_ints()]
    array = graph.constant(input_of(node, position))
    return None if array is None else [int(value) for value in array.ravel()]


def target_shape(node: ir.Node) -> list[int] | None:
    """Return the shape that a Reshape asks for, with 0 and -1 for sizes only known at run time; None if unprovable.

    A shape computed at run time is replaced by what shape inference proves about the output: known sizes, 0 where an
    axis has the input axis's symbolic size, and at most one -1.
    """
    constant = integers(node, 1, "shape")
    if constant is not None:
        empty = 0 in constant and graph.attribute_int(node, "allowzero", 0)  # asks for an axis of size 0
        return None if empty else constant
    given, wanted = node.inputs[0].shape, node.outputs[0].shape  # type: ignore[union-attr]
    if given is None or wanted is None:
        return None
    target: list[int] = []
    for axis, size in enumerate(wanted):
        if isinstance(size, int):
            target.append(size)
        elif axis < len(given) and same_size(given[axis], size):
            target.append(0)
        elif -1 not in target:
            target.append(-1)
        else:
            return None
    return target


def same_size(first: object, second: object) -> bool:
    """Tell whether two sizes are proven equal: the same number, or the same symbol."""
    if isinstance(first, ir.SymbolicDim) and isinstance(second, ir.SymbolicDim):
        return first.value is not None and first.value == second.value
    return isinstance(first, int) and first == second


def slices(node: ir.Node) -> dict[int, slice] | None:
    """Return what a Slice takes along each axis it names; None when that is computed at run time."""
    starts, ends = integers(node, 1, "starts"), integers(node, 2, "ends")
    axes, steps = integers(node, 3, "axes"), integers(node, 4, "steps")
    if starts is None or ends is None:
        return None
    if (axes is None and input_of(node, 3) is not None) or (steps is None and input_of(node, 4) is not None):
        return None
    rank = len(graph.shape(node.inputs[0]) or ())
    axes = [axis % rank for axis in axes] if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    taken = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = length(node.inputs[0], axis)
        # ONNX clamps an end below -size to "before the first"; Python has no number for that, only None.
        before_first = step < 0 and size is not None and end < -size
        taken[axis] = slice(start, None if before_first else end, step)
    return taken


def paddings(node: ir.Node) -> dict[int, tuple[int, int]] | None:
    """Return how much a Pad adds before and after each axis; None when that is computed at run time."""
    pads, axes = integers(node, 1, "pads"), integers(node, 3, "axes")
    if pads is None or (axes is None and input_of(node, 3) is not None):
        return None
    rank = len(graph.shape(node.inputs[0]) or ())
    axes = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    return {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}


def output_of(node: ir.Node) -> ir.Value:
    """Return a node's first output."""
    return node.outputs[0]


def input_of(node: ir.Node, position: int) -> ir.Value | None:
    """Return an input of a node; None when it is not given."""
    return node.inputs[position] if position < len(node.inputs) else None


def is_used(value: ir.Value) -> bool:
    """Tell whether anything reads a value."""
    return bool(value.uses()) or value.is_graph_output()


def on_axes(block: Block, axes: dict[int, int]) -> Block:
    """Return a block on other axes."""
    return Block(axes=tuple(axes[axis] for axis in block.axes), numbers=block.numbers)


def shift(block: Block, by: int) -> Block:
    """Return a block so many axes further right."""
    return on_axes(block, {axis: axis + by for axis in block.axes})


def renumbered(blocks: Sequence[Block], kept: dict[int, int]) -> list[Block]:
    """Return the blocks all of whose axes are kept, on their new axes."""
    return [on_axes(block, kept) for block in blocks if set(block.axes) <= kept.keys()]
