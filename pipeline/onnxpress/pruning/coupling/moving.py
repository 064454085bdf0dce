"""Operators that move channels: Transpose, Concat, Split, Slice, Pad, Gather, Expand, DepthToSpace; and Shape."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.pruning.coupling.arguments import on_axes, output_of, paddings, shift, slices
from onnxpress.pruning.coupling.broadcasting import Operand, broadcast
from onnxpress.pruning.layout import Block, Layout, length, obstacle
from onnxpress.pruning.weights import table_of


def transpose(layout: Layout, node: ir.Node) -> None:
    """Move blocks as the axes move."""
    rank = len(graph.shape(node.inputs[0]) or ())
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(reversed(range(rank)))
    blocks = []
    for block in layout.blocks(node.inputs[0]):
        moved = [perm.index(axis) for axis in block.axes]
        blocks.append(Block(axes=tuple(sorted(moved)), numbers=block.numbers.transpose(np.argsort(moved))))
    layout.put(output_of(node), blocks)


def concat(layout: Layout, node: ir.Node) -> None:
    """Put numbers one behind the other along the axis; tie them along all others."""
    values = [value for value in node.inputs if value is not None]
    if not any(layout.blocks(value) for value in values):
        return
    rank = len(graph.shape(values[0]) or ())
    axis = graph.attribute_int(node, "axis", 0) % rank
    joint = any(layout.is_joint(value, axis) for value in values)
    unknown = any(length(value, axis) is None for value in values)
    along = any(axis in block.axes for value in values for block in layout.blocks(value))
    if along and (joint or unknown):
        layout.refuse(node, "joins channels along an axis that cannot be followed")
        return
    # Every other axis is the same in all inputs, as for an element by element operator.
    operands = [Operand.of(layout, value, summed=axis) for value in values]
    blocks = broadcast(layout, node, operands)
    if along:
        numbers = np.concatenate([layout.track(value, axis, node) for value in values])
        blocks.append(Block(axes=(axis,), numbers=numbers))
    layout.put(output_of(node), blocks)


def split(layout: Layout, node: ir.Node) -> None:
    """Hand each output its part of the numbers."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    axis = graph.attribute_int(node, "axis", 0) % len(graph.shape(x) or ())
    sizes = [length(value, axis) for value in node.outputs]
    if None in sizes:
        layout.seal(x, axis, obstacle(node, "splits into sizes known only at run time"))
    if layout.is_joint(x, axis):
        layout.seal(x, axis, obstacle(node, "splits this axis"))
    start = 0
    for value, size in zip(node.outputs, sizes, strict=True):
        blocks = []
        for block in layout.blocks(x):
            if axis not in block.axes:
                blocks.append(block)
            elif size is not None:
                blocks.append(Block(axes=block.axes, numbers=block.numbers[start : start + size]))
        layout.put(value, blocks)
        start += size or 0


def slice_(layout: Layout, node: ir.Node) -> None:
    """Hand on a part of the numbers."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    taken = slices(node)
    if taken is None:
        layout.refuse(node, "takes a part known only at run time")
        return
    for axis, part in taken.items():
        size = length(x, axis)
        if layout.is_joint(x, axis) or size is None or part.step != 1:
            layout.seal(x, axis, obstacle(node, "takes a part of this axis that cannot be followed"))
    blocks = []
    for block in layout.blocks(x):
        part = taken.get(block.axes[0], slice(None)) if len(block.axes) == 1 else slice(None)
        blocks.append(Block(axes=block.axes, numbers=block.numbers[part]))
    layout.put(output_of(node), blocks)


def pad(layout: Layout, node: ir.Node) -> None:
    """Add channels of their own, where constants are padded."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    added = paddings(node)
    if added is None:
        layout.refuse(node, "pads by amounts known only at run time")
        return
    constant = node.attributes.get_string("mode", "constant") == "constant"
    for axis, (before, after) in added.items():
        if (before or after) and (layout.is_joint(x, axis) or not constant or min(before, after) < 0):
            layout.seal(x, axis, obstacle(node, "pads this axis with other than a constant"))
    blocks = []
    for block in layout.blocks(x):
        before, after = added.get(block.axes[0], (0, 0)) if len(block.axes) == 1 else (0, 0)
        numbers = block.numbers
        if constant and min(before, after) >= 0:
            numbers = np.concatenate([layout.channels.new(before), numbers, layout.channels.new(after)])
        blocks.append(Block(axes=block.axes, numbers=numbers))
    layout.put(output_of(node), blocks)


def gather(layout: Layout, node: ir.Node) -> None:
    """Select numbers; a table makes channels of its columns."""
    data, indices = node.inputs[0], node.inputs[1]
    assert data is not None and indices is not None  # noqa: S101 - required by the operator
    rank, width = len(graph.shape(data) or ()), len(graph.shape(indices) or ())
    axis = graph.attribute_int(node, "axis", 0) % rank
    layout.refuse(node, "is used as an index", [indices])
    if table_of(node) is not None:
        layout.track(data, 1 - axis, node)
    chosen = graph.constant(indices)
    for block in layout.blocks(data):
        if axis in block.axes and (chosen is None or width != 1 or len(block.axes) > 1):
            layout.seal(data, axis, obstacle(node, "picks from this axis what is known only at run time, or one place"))
    blocks = []
    for block in layout.blocks(data):
        if block.axes == (axis,) and chosen is not None and width == 1:
            blocks.append(Block(axes=(axis,), numbers=block.numbers[chosen]))
        elif axis not in block.axes:
            blocks.append(on_axes(block, {a: a if a < axis else a + width - 1 for a in block.axes}))
    layout.put(output_of(node), blocks)


def expand(layout: Layout, node: ir.Node) -> None:
    """Keep the numbers of axes that are not repeated."""
    x, result = node.inputs[0], output_of(node)
    assert x is not None  # noqa: S101 - required by the operator
    before, after = graph.shape(x) or (), graph.shape(result) or ()
    missing = len(after) - len(before)
    for axis, size in enumerate(before):
        if graph.constant(node.inputs[1]) is None or size is None or after[axis + missing] != size:
            layout.seal(x, axis, obstacle(node, "is repeated, or to a size known only at run time"))
    layout.put(result, [shift(block, missing) for block in layout.blocks(x)])


def depth_to_space(layout: Layout, node: ir.Node) -> None:
    """Tie the channels that become one, or repeat one that becomes several."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    size = graph.attribute_int(node, "blocksize", 1)
    for axis in (2, 3):
        layout.seal(x, axis, obstacle(node, "interleaves this axis"))
    if not layout.blocks(x) or length(x, 1) is None:
        layout.refuse(node, "its channels are not known")
        return
    numbers = layout.track(x, 1, node)
    if node.op_type == "SpaceToDepth":
        out = np.tile(numbers, size * size)
    else:
        depth_first = node.attributes.get_string("mode", "DCR") == "DCR"
        grid = numbers.reshape(size * size, -1) if depth_first else numbers.reshape(-1, size * size).T
        layout.channels.unite(grid, grid[:1])
        out = grid[0]
    layout.put(output_of(node), [Block(axes=(1,), numbers=out)])


def shape_of(layout: Layout, node: ir.Node) -> None:
    """A size that is read at run time must not change; reading other sizes does no harm."""
    x, result = node.inputs[0], output_of(node)
    assert x is not None  # noqa: S101 - required by the operator
    axes = list(range(len(graph.shape(x) or ())))
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    axes = axes[graph.attribute_int(node, "start", 0) : end]
    read: set[int] = set(axes) if result.is_graph_output() else set()
    for reader in graph.consumers(result):
        chosen = graph.constant(reader.inputs[1]) if reader.op_type == "Gather" else None
        taken = slices(reader) if reader.op_type == "Slice" else None
        if chosen is not None:
            read.update(np.asarray(axes)[chosen].ravel().tolist())
        elif taken is not None and 0 in taken:
            read.update(axes[taken[0]])
        else:
            read.update(axes)
    for axis in read:
        layout.seal(x, axis, obstacle(node, "reads their number at run time"))


def source_of_sizes(layout: Layout, node: ir.Node) -> None:
    """Operators that make values from sizes and scalars: nothing to follow."""
    layout.refuse(node, "computes with channels as numbers")
