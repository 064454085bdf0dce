"""Which channels lie where: the bookkeeping under the coupling rules.

A *channel* is a set of positions (tensor, axis, index) that can only be removed together. Every position of an axis
that may shrink gets a number; when an operator ties two positions, their numbers are united; what is left in the end
are the channels. Because a number belongs to one position and not to a whole axis, Concat, Split, Slice, Pad, Gather,
Flatten and grouped convolutions need no special index arithmetic: they move numbers as they move values.

A Reshape may split a channel axis in two, for example 384 into 12 heads of 32. The numbers then lie *jointly* on both
axes, and only whole rows or columns can be removed. The operators that follow usually decide which (a sum over the 32
keeps the heads); what is still open at the end is decided in favour of the longer axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Skip

Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Channel numbers over one axis of a value, or jointly over several."""

    axes: tuple[int, ...]
    """Ascending."""
    numbers: Numbers
    """One dimension per axis, of the axis's size."""


class Channels:
    """Disjoint sets of channel numbers, and the obstacles that forbid to remove some of them."""

    def __init__(self) -> None:
        self._parent: Numbers = np.empty(0, np.int64)
        self._fixed: list[tuple[Numbers, Skip]] = []

    @property
    def count(self) -> int:
        """How many numbers were given out."""
        return len(self._parent)

    def new(self, count: int) -> Numbers:
        """Return fresh numbers, each a channel of its own."""
        numbers = np.arange(len(self._parent), len(self._parent) + count)
        self._parent = np.concatenate([self._parent, numbers])
        return numbers

    def roots(self, numbers: Numbers) -> Numbers:
        """Return the number that stands for the channel of each, the smallest of its set."""
        root = self._parent[numbers]
        while not np.array_equal(self._parent[root], root):
            root = self._parent[root]
        self._parent[numbers] = root
        return root

    def unite(self, first: Numbers, second: Numbers) -> None:
        """Make pairs of numbers the same channel; the arrays broadcast."""
        while True:
            one, other = np.broadcast_arrays(self.roots(first), self.roots(second))
            if np.array_equal(one, other):
                return
            np.minimum.at(self._parent, np.maximum(one, other).ravel(), np.minimum(one, other).ravel())

    def fix(self, numbers: Numbers, obstacle: Skip) -> None:
        """Forbid the removal of these channels."""
        self._fixed.append((numbers.ravel(), obstacle))

    def obstacles(self) -> dict[int, Skip]:
        """Return the first obstacle of each channel that must stay, by root."""
        found: dict[int, Skip] = {}
        for numbers, obstacle in self._fixed:
            for root in np.unique(self.roots(numbers)):
                found.setdefault(int(root), obstacle)
        return found


class Layout:
    """The channel numbers on every value of a graph."""

    def __init__(self, model: ir.Model) -> None:
        self.opset = graph.opset(model)
        self.channels = Channels()
        self.skips: list[Skip] = []
        """Nodes that could not even start a group."""
        self._blocks: dict[ir.Value, tuple[Block, ...]] = {}
        self._readers: dict[tuple[ir.Value, ir.Node], set[int]] = {}

    def blocks(self, value: ir.Value | None) -> tuple[Block, ...]:
        """Return the blocks of a value; their axes do not overlap."""
        return () if value is None else self._blocks.get(value, ())

    def put(self, value: ir.Value, blocks: Iterable[Block]) -> None:
        """Set the blocks of a value; where its sizes are not theirs, the channels stay behind and cannot be removed."""
        fitting = []
        for block in blocks:
            if block.numbers.shape == tuple(length(value, axis) for axis in block.axes):
                fitting.append(block)
            else:
                self.channels.fix(block.numbers, source(value))
        self._blocks[value] = tuple(fitting)

    def is_joint(self, value: ir.Value, axis: int) -> bool:
        """Tell whether the numbers on an axis lie on other axes, too."""
        return any(axis in block.axes and len(block.axes) > 1 for block in self.blocks(value))

    def tracked(self) -> dict[ir.Value, tuple[Block, ...]]:
        """Return every value that has blocks, in the order in which they were met."""
        return {value: blocks for value, blocks in self._blocks.items() if blocks}

    def track(self, value: ir.Value, axis: int, node: ir.Node) -> Numbers:
        """Return the numbers along one axis of known size, after giving it numbers if it has none.

        A constant gets fresh ones, ``node`` being noted as a reader that can stand its shrinking. Anything else has
        come from an operator that is not followed along this axis: its numbers are fixed.
        """
        axis %= len(value.shape or ())
        is_constant = graph.constant_tensor(value) is not None
        if is_constant:
            self._readers.setdefault((value, node), set()).add(axis)
        for block in self.blocks(value):
            if axis in block.axes:
                return self._alone(value, block, axis)
        size = length(value, axis)
        assert size is not None  # noqa: S101 - the rules ask for axes of known size only
        numbers = self.channels.new(size)
        if not is_constant:
            self.channels.fix(numbers, source(value))
        self.put(value, [*self.blocks(value), Block(axes=(axis,), numbers=numbers)])
        return numbers

    def couple(self, first: ir.Value, axis: int, second: ir.Value, other: int, node: ir.Node) -> None:
        """Tie two axes index by index; where a size is not known or differs, what has numbers must stay."""
        size = length(first, axis)
        if size is None or size != length(second, other):
            self.refuse(node, f"combines axes of sizes {size} and {length(second, other)}", [first, second])
            return
        self.channels.unite(self.track(first, axis, node), self.track(second, other, node))

    def seal(self, value: ir.Value, axis: int, obstacle: Skip) -> None:
        """Say that an axis must stay whole. Numbers that lie on it jointly with other axes move to those."""
        for block in self.blocks(value):
            if axis not in block.axes:
                continue
            if len(block.axes) == 1:
                self.channels.fix(block.numbers, obstacle)
            else:
                self._replace(value, block, self._without(block, axis))

    def refuse(self, node: ir.Node, reason: str, values: Sequence[ir.Value | None] | None = None) -> None:
        """Forbid to remove any channel of these values (default: of the node's inputs)."""
        for value in node.inputs if values is None else values:
            for block in self.blocks(value):
                self.channels.fix(block.numbers, obstacle(node, reason))

    def settle(self, main: ir.Graph) -> None:
        """Close the books: no channel leaves by a door that no rule has watched, and no joint block stays open."""
        for value, blocks in self.tracked().items():
            if value.is_graph_output():
                self._fix_all(blocks, Skip(where=str(value.name), op="output", reason="is the model's output"))
            for node in graph.consumers(value):
                if node.graph is not main:
                    self._fix_all(
                        blocks, Skip(where=str(value.name), op="subgraph", reason="is read inside a subgraph")
                    )
                elif graph.constant_tensor(value) is not None:
                    known = self._readers.get((value, node), set())
                    unwatched = [block for block in blocks if not known.issuperset(block.axes)]
                    self._fix_all(unwatched, obstacle(node, f"also reads the weight {value.name!r}"))
        for value, blocks in self.tracked().items():
            for block in blocks:
                self._alone(value, block, self._main_axis(block))

    def reduced(self, axes: Sequence[int], numbers: Numbers) -> Block:
        """Return a block without the axes along which nothing changes."""
        roots = self.channels.roots(numbers)
        varying = [i for i in range(roots.ndim) if not (roots == roots.take([0], axis=i)).all()]
        varying = varying or [int(np.argmax(roots.shape))]
        index = tuple(slice(None) if i in varying else 0 for i in range(roots.ndim))
        return Block(axes=tuple(axes[i] for i in varying), numbers=numbers[index])

    def _main_axis(self, block: Block) -> int:
        block = self.reduced(block.axes, block.numbers)
        return block.axes[int(np.argmax(block.numbers.shape))]

    def _alone(self, value: ir.Value, block: Block, axis: int) -> Numbers:
        """Reduce a block to one of its axes and return its numbers."""
        alone = block
        for other in block.axes:
            if other != axis:
                alone = self._without(alone, other)
        if alone is not block:
            self._replace(value, block, alone)
        return alone.numbers

    def _without(self, block: Block, axis: int) -> Block:
        position = block.axes.index(axis)
        first = block.numbers.take([0], axis=position)
        self.channels.unite(block.numbers, first)
        return Block(axes=tuple(a for a in block.axes if a != axis), numbers=first.squeeze(position))

    def _replace(self, value: ir.Value, old: Block, new: Block) -> None:
        self.put(value, [new if block is old else block for block in self.blocks(value)])

    def _fix_all(self, blocks: Iterable[Block], obstacle: Skip) -> None:
        for block in blocks:
            self.channels.fix(block.numbers, obstacle)


def obstacle(node: ir.Node, reason: str) -> Skip:
    """Return why a node stands in the way."""
    return Skip(where=label(node), op=node.op_type, reason=reason)


def source(value: ir.Value) -> Skip:
    """Return where a value comes from whose channels are not followed."""
    producer = value.producer()
    if producer is not None:
        return obstacle(producer, "gives channels that cannot be followed")
    return Skip(where=str(value.name), op="input", reason="is the model's input")


def label(node: ir.Node) -> str:
    """Return a node's name, or that of its first output."""
    return node.name or str(node.outputs[0].name)


def length(value: ir.Value | None, axis: int) -> int | None:
    """Return the size of an axis; None when it is not fixed, or the value has no such axis."""
    dims = graph.shape(value)
    return None if dims is None or not -len(dims) <= axis < len(dims) else dims[axis]
