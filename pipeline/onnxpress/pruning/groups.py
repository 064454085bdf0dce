"""Groups: which channels of a model can be removed, and every tensor that must be cut when one of them is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Skip
from onnxpress.pruning import coupling
from onnxpress.pruning.layout import Numbers, label
from onnxpress.pruning.weights import RECURRENT, Weight, table_of, weights_of

Axis = tuple[ir.Value, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One axis of one tensor on which channels of a group lie."""

    value: ir.Value
    axis: int
    channel: Numbers
    """For each index along the axis, the channel of the group that lies there; -1 where another group's does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Channels that lie in the same tensors: removing one or another cuts the same axes, so they compete.

    A worked example, the graph ``x[N,3,8,8] → Conv a (4 channels) → Relu → MaxPool 2 → Flatten → Gemm b → y[N,10]``.
    Convolution ``a`` makes one group of size 4, with the members::

        a.weight [4,3,3,3]  axis 0   channel = 0 1 2 3
        a.bias   [4]        axis 0   channel = 0 1 2 3
        conv     [N,4,8,8]  axis 1   channel = 0 1 2 3          and the same for the outputs of Relu and MaxPool
        flat     [N,64]     axis 1   channel = 0 ×16, 1 ×16, 2 ×16, 3 ×16
        b.weight [64,10]    axis 0   channel = 0 ×16, 1 ×16, 2 ×16, 3 ×16

    Removing channel 2 cuts index 2 from the first ones and indices 32 to 47 from the last two. The ten outputs of ``b``
    make a group too, which cannot be pruned: its ``obstacle`` says that they are the model's output.
    """

    name: str
    """The node that makes the channels (the first, where residual connections tie several)."""
    size: int
    """Number of channels."""
    members: tuple[Member, ...]
    makers: tuple[Weight, ...]
    """Weights that make the channels: they lie on its output axis. Never empty."""
    readers: tuple[Weight, ...]
    """Weights that sum over the channels: they lie on its input axis."""
    obstacle: Skip | None
    """Why no channel of the group can be removed; None when they can."""

    @cached_property
    def width(self) -> int:
        """How many outputs of its first maker one channel takes (32 for an attention head of 32)."""
        return int(np.count_nonzero(self.channel(self.makers[0].value, self.makers[0].out_axis) == 0))

    def channel(self, value: ir.Value, axis: int) -> Numbers:
        """Return which channel of the group lies at each index of a member's axis; see `Member.channel`."""
        return next(member.channel for member in self.members if member.value is value and member.axis == axis)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All groups of a model, and what could not be followed."""

    groups: tuple[Group, ...]
    skipped: tuple[Skip, ...]

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups whose channels can be removed."""
        return tuple(group for group in self.groups if group.obstacle is None)


def analyze(model: ir.Model) -> Analysis:
    """Find the groups of a prepared model: constants lifted to initializers, shapes inferred.

    Only weights of the main graph make channels; control flow and its subgraphs stay as they are.
    """
    layout = coupling.follow(model)
    obstacles = layout.channels.obstacles()
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    axes: dict[int, tuple[ir.Value, int, Numbers]] = {}
    for value, blocks in layout.tracked().items():
        for block in blocks:
            roots = layout.channels.roots(block.numbers)
            for root, count in zip(*np.unique(roots, return_counts=True), strict=True):
                places[int(root)].append((len(axes), int(count)))
            axes[len(axes)] = value, block.axes[0], roots
    alike: dict[tuple[tuple[tuple[int, int], ...], Skip | None], list[int]] = defaultdict(list)
    for root in sorted(places):
        alike[tuple(places[root]), obstacles.get(root)].append(root)
    makers, readers = _weights(model)
    groups = []
    for (where, obstacle), channels in alike.items():
        members = tuple(_member(*axes[axis], channels) for axis, _ in where)
        keys = [(member.value, member.axis) for member in members]
        made_by = tuple(makers[key] for key in keys if key in makers)
        if made_by:
            groups.append(
                Group(
                    name=label(made_by[0].node),
                    size=len(channels),
                    members=members,
                    makers=made_by,
                    readers=tuple(readers[key] for key in keys if key in readers),
                    obstacle=obstacle,
                )
            )
    skipped = [
        Skip(where=group.name, op=group.obstacle.op, reason=f"{group.obstacle.where}: {group.obstacle.reason}")
        for group in groups
        if group.obstacle is not None
    ]
    return Analysis(groups=tuple(groups), skipped=(*layout.skips, *skipped, *_inside_subgraphs(model)))


def _member(value: ir.Value, axis: int, numbers: Numbers, roots: Sequence[int]) -> Member:
    channels = np.asarray(roots)
    position = np.searchsorted(channels, numbers)
    found = channels[np.minimum(position, len(channels) - 1)] == numbers
    return Member(value=value, axis=axis, channel=np.where(found, position, -1))


def _weights(model: ir.Model) -> tuple[dict[Axis, Weight], dict[Axis, Weight]]:
    """Return the weights of the main graph, by their output axis and by their input axis."""
    makers: dict[Axis, Weight] = {}
    readers: dict[Axis, Weight] = {}
    for node in model.graph:
        table = table_of(node)
        for weight in [table] if table is not None else weights_of(node):
            makers.setdefault((weight.value, weight.out_axis), weight)
            if table is None:
                readers.setdefault((weight.value, weight.in_axis), weight)
    return makers, readers


def _inside_subgraphs(model: ir.Model) -> list[Skip]:
    skipped = []
    for node in model.graph:
        inner = [each for body in graph.subgraphs(node) for each in body.all_nodes()]
        count = sum(graph.weighted(each) is not None or each.op_type in RECURRENT for each in inner)
        if count:
            reason = f"{count} weighted operators inside its subgraphs are left alone"
            skipped.append(Skip(where=label(node), op=node.op_type, reason=reason))
    return skipped
