"""Operators that go element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.pruning.coupling.arguments import output_of, shift
from onnxpress.pruning.layout import Block, Layout, Numbers, obstacle

Sizes = tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """One side of a broadcasting operator."""

    value: ir.Value
    sizes: Sizes
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, layout: Layout, value: ir.Value, summed: int | None = None) -> Operand:
        """Take a value as it is, or as it looks to a matrix product's output: of size 1 along the summed axis."""
        sizes = tuple(1 if axis == summed else size for axis, size in enumerate(graph.shape(value) or ()))
        blocks = tuple(block for block in layout.blocks(value) if summed not in block.axes)
        return cls(value=value, sizes=sizes, blocks=blocks)


def same_axes(layout: Layout, node: ir.Node) -> None:
    """Element by element on the first input."""
    layout.put(output_of(node), layout.blocks(node.inputs[0]))


def elementwise(layout: Layout, node: ir.Node) -> None:
    """Tie what meets under broadcasting."""
    operands = [Operand.of(layout, value) for value in node.inputs if value is not None]
    layout.put(output_of(node), broadcast(layout, node, operands))


def broadcast(layout: Layout, node: ir.Node, operands: Sequence[Operand]) -> list[Block]:
    """Tie the positions of several operands that meet under NumPy's broadcasting; return the output's blocks."""
    rank = max(len(operand.sizes) for operand in operands)
    shifted = [[shift(block, rank - len(operand.sizes)) for block in operand.blocks] for operand in operands]
    blocks = []
    for axes in _overlapping([block.axes for each in shifted for block in each]):
        pieces = [
            _piece(layout, node, operand, own, axes, rank) for operand, own in zip(operands, shifted, strict=True)
        ]
        if any(piece is None for piece in pieces):
            numbers = [block.numbers for each in shifted for block in each if set(block.axes) <= set(axes)]
            for each in numbers:
                layout.channels.fix(each, obstacle(node, "it cannot be proven which channels meet here"))
            continue
        wide = [piece for piece in pieces if piece is not None and piece.size]
        if wide:
            shape = np.broadcast_shapes(*(piece.shape for piece in wide))
            for piece in wide[1:]:
                layout.channels.unite(piece, wide[0])
            blocks.append(layout.reduced(axes, np.broadcast_to(wide[0], shape)))
    return blocks


def _piece(
    layout: Layout, node: ir.Node, operand: Operand, blocks: Sequence[Block], axes: Sequence[int], rank: int
) -> Numbers | None:
    """Return an operand's numbers over some output axes; empty when it has one value for all; None if unprovable."""
    shift = rank - len(operand.sizes)
    sizes = [operand.sizes[axis - shift] if axis >= shift else 1 for axis in axes]
    inside = [block for block in blocks if set(block.axes) <= set(axes)]
    if None in sizes:
        return None
    known = [size for size in sizes if size is not None]
    wide = [axis for axis, size in zip(axes, known, strict=True) if size != 1]
    if not wide:
        for block in inside:
            layout.channels.fix(block.numbers, obstacle(node, "one channel is used for many"))
        return np.empty(0, np.int64)
    if not inside and len(wide) == 1:
        return layout.track(operand.value, wide[0] - shift, node).reshape(known)
    if len(inside) == 1 and set(wide) <= set(inside[0].axes):
        numbers = inside[0].numbers
        if len(inside[0].axes) == 1 and graph.constant_tensor(operand.value) is not None:
            numbers = layout.track(operand.value, inside[0].axes[0] - shift, node)
        return numbers.reshape(known)
    return None


def _overlapping(axes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Join sets of axes that share one: [(1,), (1, 3), (2,)] → [(1, 3), (2,)]."""
    joined: list[set[int]] = []
    for each in axes:
        touching = [other for other in joined if other & set(each)]
        joined = [other for other in joined if not other & set(each)]
        joined.append(set(each).union(*touching))
    return [tuple(sorted(each)) for each in joined]
