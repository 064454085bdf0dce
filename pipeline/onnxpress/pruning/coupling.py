"""What each operator does to channels: one small rule per kind of operator.

A rule reads the channel numbers on a node's inputs, ties together what the operator ties, and puts numbers on its
output. It never guesses: where it cannot prove what happens along an axis, that axis must stay whole, and the node and
the reason are kept. An operator without a rule stops every channel that reaches it.

==============================  ========================================================================================
Conv, ConvTranspose             input channels = the weight's input axis, output channels = its output axis = the bias;
                                with ``group`` > 1 see `_grouped`
Gemm, MatMul                    the summed axes of both sides are tied; all others go on to the output, broadcasting
Add, Mul, Where, PRelu …        aligned from the right; positions that meet are tied; constants shrink along
BatchNorm, InstanceNorm         one scale and shift per channel
GroupNorm                       whole groups of channels only
LayerNorm, Softmax, Reduce*     average or sum over some axes: those must stay whole
LSTM, GRU, RNN                  a hidden unit lies in every gate, in the state and in what reads the state
Concat, Split, Slice, Pad       move numbers; padding adds channels of its own
Reshape, Flatten, Transpose …   move numbers, also where one axis becomes several (see `layout`)
Gather                          selects numbers; from a table (an embedding) it makes channels of the table's columns
==============================  ========================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.pruning.layout import Block, Layout, Numbers, length, obstacle
from onnxpress.pruning.weights import RECURRENT, table_of

Sizes = tuple[int | None, ...]


def follow(model: ir.Model) -> Layout:
    """Run every node's rule over the main graph, in order, and return where its channels lie."""
    layout = Layout(model)
    walk(layout, model, RULES)
    return layout


def walk(layout: Layout, model: ir.Model, rules: Mapping[str, Rule]) -> None:
    """Run a rule for every node over the main graph, in order; channels that enter any other operator must stay."""
    for node in model.graph:
        rule = rules.get(node.op_type) if node.domain in graph.ONNX_DOMAINS else None
        if rule is None:
            layout.refuse(node, "this operator is not followed")
        elif any(shape is None for shape in map(graph.shape, _given(node))):
            layout.refuse(node, "the rank of its inputs or outputs is not known")
        elif node.op_type not in SEVERAL_OUTPUTS and any(_is_used(value) for value in node.outputs[1:]):
            layout.refuse(node, "its further outputs are used")
        else:
            if rule in FIRST_INPUT_ONLY:
                layout.refuse(node, "takes sizes, positions or limits from it", node.inputs[1:])
            rule(layout, node)
    layout.settle(model.graph)


def integers(node: ir.Node, position: int, attribute: str) -> list[int] | None:
    """Return a list of integers that is a constant input or, in older opsets, an attribute; None when computed."""
    if attribute in node.attributes:
        return [int(value) for value in node.attributes[attribute].as_ints()]
    array = graph.constant(_input(node, position))
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
        elif axis < len(given) and _same(given[axis], size):
            target.append(0)
        elif -1 not in target:
            target.append(-1)
        else:
            return None
    return target


# ----------------------------------------------------------------------------------------------------------------------
# Weighted operators
# ----------------------------------------------------------------------------------------------------------------------


def _conv(layout: Layout, node: ir.Node) -> None:
    x, weight, facts = node.inputs[0], node.inputs[1], graph.weighted(node)
    bias = _input(node, 2)
    assert x is not None and weight is not None and facts is not None  # noqa: S101 - required by the operator
    for axis in range(len(graph.shape(x) or ())):
        if axis != 1:
            layout.seal(x, axis, obstacle(node, "slides over, or batches, this axis"))
    if not _is_weight(layout, node, weight) or length(x, 1) is None:
        layout.refuse(node, "its weight or its input channels are not constant")
        return
    group = graph.attribute_int(node, "group", 1)
    if group == 1:
        layout.couple(x, 1, weight, facts.in_axis, node)
        out = layout.track(weight, facts.out_axis, node)
    else:
        out = _grouped(layout, node, x, weight, group)
    result = _output(node)
    layout.put(result, [Block(axes=(1,), numbers=out)])
    if bias is not None:
        layout.couple(result, 1, bias, 0, node)


def _grouped(layout: Layout, node: ir.Node, x: ir.Value, weight: ir.Value, group: int) -> Numbers:
    """Tie the channels of a grouped convolution, and return those of its output.

    With at least as many groups as input channels per group (depthwise: one), whole groups are removed, inputs and
    outputs together. Otherwise the same places are removed from every group, so that groups stay equally wide.
    """
    given = layout.track(x, 1, node)
    if node.op_type == "Conv":  # [M, C/group, k…]
        inner, outer = 1, 0
        width = len(layout.track(weight, outer, node)) // group
    else:  # ConvTranspose: [C, M/group, k…]
        inner, outer = 0, 1
        width = length(weight, outer) or 0
    grid = given.reshape(group, -1)
    if group >= grid.shape[1]:
        layout.channels.unite(grid, grid[:, :1])
        out = np.repeat(grid[:, 0], width)
        layout.channels.unite(layout.track(weight, 0, node), given if node.op_type == "ConvTranspose" else out)
        return out
    layout.channels.unite(grid, grid[:1])
    if node.op_type == "ConvTranspose":
        layout.channels.unite(layout.track(weight, inner, node), given)
        return np.tile(layout.track(weight, outer, node), group)
    layout.channels.unite(layout.track(weight, inner, node), grid[0])
    out = layout.track(weight, outer, node)
    layout.channels.unite(out.reshape(group, width), out[:width])
    return out


def _gemm(layout: Layout, node: ir.Node) -> None:
    x, weight, facts = node.inputs[0], node.inputs[1], graph.weighted(node)
    bias = _input(node, 2)
    assert x is not None and weight is not None and facts is not None  # noqa: S101 - required by the operator
    if not _is_weight(layout, node, weight):
        layout.refuse(node, "its weight is not constant")
        return
    summed = 0 if graph.attribute_int(node, "transA", 0) else 1
    layout.seal(x, 1 - summed, obstacle(node, "these are its rows"))
    layout.couple(x, summed, weight, facts.in_axis, node)
    out = layout.track(weight, facts.out_axis, node)
    layout.put(_output(node), [Block(axes=(1,), numbers=out)])
    if bias is None:
        return
    sizes = graph.shape(bias) or ()
    if sizes and sizes[-1] == len(out):
        layout.couple(bias, -1, weight, facts.out_axis, node)
    elif math.prod(size or 0 for size in sizes) != 1:
        layout.refuse(node, "its bias has an unusual shape", [*node.inputs, *node.outputs])


def _matmul(layout: Layout, node: ir.Node) -> None:
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None and right is not None  # noqa: S101 - required by the operator
    ranks = [len(graph.shape(value) or ()) for value in (left, right)]
    if min(ranks) < 2:
        layout.refuse(node, "multiplies by a vector")
        return
    for value, axis, kept in ((left, ranks[0] - 1, ranks[0] - 2), (right, ranks[1] - 2, ranks[1] - 1)):
        for block in layout.blocks(value):
            if axis in block.axes and len(block.axes) > 1:
                layout.seal(value, axis, obstacle(node, "sums over this axis"))
        if graph.constant_tensor(value) is not None and len(graph.shape(value) or ()) == 2:
            layout.track(value, kept, node)
    pair = (left, ranks[0] - 1), (right, ranks[1] - 2)
    if any(axis in block.axes for value, axis in pair for block in layout.blocks(value)) or any(
        graph.constant_tensor(value) is not None for value, _ in pair
    ):
        layout.couple(*pair[0], *pair[1], node)
    operands = [_Operand.of(layout, value, summed=axis) for value, axis in pair]
    layout.put(_output(node), _broadcast(layout, node, operands))


def _recurrent(layout: Layout, node: ir.Node) -> None:
    """LSTM, GRU, RNN: a hidden unit lies once in each gate, in the state, and in the weights that read the state.

    Both directions have one hidden size, so their units of the same number go together.
    """
    x, weight, recurrence = node.inputs[:3]
    assert x is not None and weight is not None and recurrence is not None  # noqa: S101 - required by the operator
    for axis in (0, 1):
        layout.seal(x, axis, obstacle(node, "these are its steps and its batch"))
    constant = _is_weight(layout, node, weight) and _is_weight(layout, node, recurrence)
    bias, states = _input(node, 3), [_input(node, 5), _input(node, 6)]
    if not constant or _input(node, 7) is not None or graph.attribute_int(node, "layout", 0):
        layout.refuse(node, "its weights are not constant, or it has peepholes or the batch in front")
        return
    layout.couple(x, 2, weight, 2, node)
    units = layout.track(recurrence, 2, node)
    for value, axis in ((weight, 1), (recurrence, 1), (bias, 1)):
        if value is not None:
            gates = layout.track(value, axis, node)
            layout.channels.unite(gates.reshape(-1, len(units)), units)
    for state in states:
        if state is not None:
            layout.couple(state, 2, recurrence, 2, node)
    for position, value in enumerate(node.outputs):
        if _is_used(value):
            layout.put(value, [Block(axes=(2 if position else 3,), numbers=units)])


def _is_weight(layout: Layout, node: ir.Node, weight: ir.Value) -> bool:
    if graph.constant_tensor(weight) is not None:
        return True
    if weight.is_graph_input():
        reason = f"its weight {weight.name!r} is a graph input, which the caller may replace"
        layout.skips.append(obstacle(node, reason))
    return False


# ----------------------------------------------------------------------------------------------------------------------
# Operators that keep every axis
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operand:
    """One side of a broadcasting operator."""

    value: ir.Value
    sizes: Sizes
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, layout: Layout, value: ir.Value, summed: int | None = None) -> _Operand:
        """Take a value as it is, or as it looks to a matrix product's output: of size 1 along the summed axis."""
        sizes = tuple(1 if axis == summed else size for axis, size in enumerate(graph.shape(value) or ()))
        blocks = tuple(block for block in layout.blocks(value) if summed not in block.axes)
        return cls(value=value, sizes=sizes, blocks=blocks)


def _same_axes(layout: Layout, node: ir.Node) -> None:
    """Element by element on the first input."""
    layout.put(_output(node), layout.blocks(node.inputs[0]))


def _elementwise(layout: Layout, node: ir.Node) -> None:
    operands = [_Operand.of(layout, value) for value in node.inputs if value is not None]
    layout.put(_output(node), _broadcast(layout, node, operands))


def _broadcast(layout: Layout, node: ir.Node, operands: Sequence[_Operand]) -> list[Block]:
    """Tie the positions of several operands that meet under NumPy's broadcasting; return the output's blocks."""
    rank = max(len(operand.sizes) for operand in operands)
    shifted = [[_shift(block, rank - len(operand.sizes)) for block in operand.blocks] for operand in operands]
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
    layout: Layout, node: ir.Node, operand: _Operand, blocks: Sequence[Block], axes: Sequence[int], rank: int
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


def _batch_norm(layout: Layout, node: ir.Node) -> None:
    _per_channel(layout, node, node.inputs[1:5])


def _instance_norm(layout: Layout, node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for axis in range(2, len(graph.shape(x) or ())):
        layout.seal(x, axis, obstacle(node, "averages over this axis"))
    _per_channel(layout, node, node.inputs[1:3])


def _group_norm(layout: Layout, node: ir.Node) -> None:
    """Each group is normalized by itself: only whole groups can go."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for axis in range(2, len(graph.shape(x) or ())):
        layout.seal(x, axis, obstacle(node, "averages over this axis"))
    if not layout.blocks(x) or length(x, 1) is None:
        layout.refuse(node, "its channels are not known")
        return
    grid = layout.track(x, 1, node).reshape(graph.attribute_int(node, "num_groups", 1), -1)
    layout.channels.unite(grid, grid[:, :1])
    for parameter in node.inputs[1:3]:
        assert parameter is not None  # noqa: S101 - required by the operator
        if length(parameter, 0) == grid.size:
            layout.couple(x, 1, parameter, 0, node)
        else:  # before opset 21: one for each group
            layout.channels.unite(layout.track(parameter, 0, node), grid[:, 0])
    layout.put(_output(node), layout.blocks(x))


def _per_channel(layout: Layout, node: ir.Node, parameters: Sequence[ir.Value | None]) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for parameter in parameters:
        if parameter is not None:
            layout.couple(x, 1, parameter, 0, node)
    layout.put(_output(node), layout.blocks(x))


def _softmax(layout: Layout, node: ir.Node) -> None:
    if layout.opset < 13:
        _normalize_from(layout, node, graph.attribute_int(node, "axis", 1), None)
    else:
        axis = graph.attribute_int(node, "axis", -1)
        _normalize_from(layout, node, axis, axis + 1 or None)


def _layer_norm(layout: Layout, node: ir.Node) -> None:
    _normalize_from(layout, node, graph.attribute_int(node, "axis", -1), None)


def _normalize_from(layout: Layout, node: ir.Node, first: int, stop: int | None) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for axis in range(len(graph.shape(x) or ()))[first:stop]:
        layout.seal(x, axis, obstacle(node, "normalizes over these channels"))
    layout.put(_output(node), layout.blocks(x))


def _pool(layout: Layout, node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for axis in range(2, len(graph.shape(x) or ())):
        layout.seal(x, axis, obstacle(node, "pools over this axis"))
    layout.put(_output(node), layout.blocks(x))


def _resize(layout: Layout, node: ir.Node) -> None:
    x, result = node.inputs[0], _output(node)
    assert x is not None  # noqa: S101 - required by the operator
    before, after = graph.shape(x) or (), graph.shape(result) or ()
    scales = graph.constant(_input(node, 1 if node.op_type == "Upsample" or layout.opset < 11 else 2))
    sizes = graph.constant(_input(node, 3))
    resized = list(range(len(before)))
    if "axes" in node.attributes:
        resized = [axis % len(before) for axis in node.attributes["axes"].as_ints()]
    crops = node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    for axis, (size, new) in enumerate(zip(before, after, strict=True)):
        scale = scales[resized.index(axis)] if scales is not None and len(scales) and axis in resized else None
        unchanged = axis not in resized or scale == 1 or (sizes is not None and scale is None and size == new)
        if crops or not unchanged:
            layout.seal(x, axis, obstacle(node, "resizes this axis, or to a size known only at run time"))
    layout.put(result, layout.blocks(x))


# ----------------------------------------------------------------------------------------------------------------------
# Operators that move channels
# ----------------------------------------------------------------------------------------------------------------------


def _transpose(layout: Layout, node: ir.Node) -> None:
    rank = len(graph.shape(node.inputs[0]) or ())
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(reversed(range(rank)))
    blocks = []
    for block in layout.blocks(node.inputs[0]):
        moved = [perm.index(axis) for axis in block.axes]
        blocks.append(Block(axes=tuple(sorted(moved)), numbers=block.numbers.transpose(np.argsort(moved))))
    layout.put(_output(node), blocks)


def _reduce(layout: Layout, node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    rank = len(graph.shape(x) or ())
    single = graph.attribute_int(node, "axis", 0) if node.op_type in ("ArgMax", "ArgMin") else None
    axes = integers(node, 1, "axes") if single is None else [single]
    if axes is None and _input(node, 1) is not None:
        layout.refuse(node, "reduces over axes computed at run time")
        return
    if not axes:
        axes = [] if graph.attribute_int(node, "noop_with_empty_axes", 0) else list(range(rank))
    axes = [axis % rank for axis in axes]
    for axis in axes:
        layout.seal(x, axis, obstacle(node, "reduces over these channels"))
    if graph.attribute_int(node, "keepdims", 1):
        kept = {axis: axis for axis in range(rank) if axis not in axes}
    else:
        kept = {axis: new for new, axis in enumerate(axis for axis in range(rank) if axis not in axes)}
    layout.put(_output(node), _renumbered(layout.blocks(x), kept))


def _reshape(layout: Layout, node: ir.Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: numbers keep their row-major place."""
    x, result = node.inputs[0], _output(node)
    assert x is not None and x.shape is not None and result.shape is not None  # noqa: S101 - checked by `follow`
    if not layout.blocks(x):
        return
    if node.op_type == "Reshape" and target_shape(node) is None:
        layout.refuse(node, "reshapes to sizes known only at run time")
        return
    segments = _segments(list(x.shape), list(result.shape))
    blocks = []
    for block in layout.blocks(x):
        touched = [pair for pair in segments if set(pair[0]) & set(block.axes)]
        before = [axis for pair in touched for axis in pair[0]]
        after = [axis for pair in touched for axis in pair[1]]
        others = [other for other in layout.blocks(x) if other is not block and set(other.axes) & set(before)]
        sizes = [length(x, axis) for axis in before]
        wanted = [length(result, axis) for axis in after]
        known = [size for size in sizes if size is not None]
        new = [size for size in wanted if size is not None]
        unknown = len(known) < len(sizes) or len(new) < len(wanted) or math.prod(known) != math.prod(new)
        if others or unknown or not set(block.axes) <= set(before):
            layout.channels.fix(block.numbers, obstacle(node, "mixes channels with axes that cannot be followed"))
            continue
        spread = block.numbers.reshape(
            [size if axis in block.axes else 1 for axis, size in zip(before, known, strict=True)]
        )
        blocks.append(layout.reduced(after, np.broadcast_to(spread, known).reshape(new)))
    layout.put(result, blocks)


def _segments(before: Sequence[object], after: Sequence[object]) -> list[tuple[list[int], list[int]]]:
    """Cut the axes of a Reshape into the smallest runs of equal size, as pairs (input axes, output axes).

    From the right, while sizes are known or symbols are equal: equal products of the trailing sizes prove that a run's
    row-major index is the same on both sides. What remains on the left is one run, of equal size because the whole is.

    >>> _segments(["N", 64, 7, 7], ["N", 3136])
    [([0], [0]), ([1, 2, 3], [1])]
    """
    segments: list[tuple[list[int], list[int]]] = []
    i, j = len(before), len(after)
    while i and j:
        if _same(before[i - 1], after[j - 1]):
            i, j = i - 1, j - 1
            segments.append(([i], [j]))
            continue
        if before[i - 1] == 1:
            i -= 1
            continue
        if after[j - 1] == 1:
            j -= 1
            continue
        left, right = i - 1, j - 1
        sizes = [before[left], after[right]]
        while isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                left -= 1
                sizes[0] = _times(sizes[0], before[left]) if left >= 0 else None
            else:
                right -= 1
                sizes[1] = _times(sizes[1], after[right]) if right >= 0 else None
        if not isinstance(sizes[0], int) or not isinstance(sizes[1], int):
            break
        segments.append((list(range(left, i)), list(range(right, j))))
        i, j = left, right
    if i or j:
        segments.append((list(range(i)), list(range(j))))
    return segments[::-1]


def _times(product: int, size: object) -> int | None:
    return product * size if isinstance(size, int) else None


def _same(first: object, second: object) -> bool:
    """Tell whether two sizes are proven equal: the same number, or the same symbol."""
    if isinstance(first, ir.SymbolicDim) and isinstance(second, ir.SymbolicDim):
        return first.value is not None and first.value == second.value
    return isinstance(first, int) and first == second


def _concat(layout: Layout, node: ir.Node) -> None:
    values = [value for value in node.inputs if value is not None]
    if not any(layout.blocks(value) for value in values):
        return
    rank = len(graph.shape(values[0]) or ())
    axis = graph.attribute_int(node, "axis", 0) % rank
    joint = any(axis in block.axes and len(block.axes) > 1 for value in values for block in layout.blocks(value))
    unknown = any(length(value, axis) is None for value in values)
    along = any(axis in block.axes for value in values for block in layout.blocks(value))
    if along and (joint or unknown):
        layout.refuse(node, "joins channels along an axis that cannot be followed")
        return
    # Every other axis is the same in all inputs, as for an element by element operator.
    operands = [_Operand.of(layout, value, summed=axis) for value in values]
    blocks = _broadcast(layout, node, operands)
    if along:
        numbers = np.concatenate([layout.track(value, axis, node) for value in values])
        blocks.append(Block(axes=(axis,), numbers=numbers))
    layout.put(_output(node), blocks)


def _split(layout: Layout, node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    axis = graph.attribute_int(node, "axis", 0) % len(graph.shape(x) or ())
    sizes = [length(value, axis) for value in node.outputs]
    if None in sizes:
        layout.seal(x, axis, obstacle(node, "splits into sizes known only at run time"))
    for block in layout.blocks(x):
        if axis in block.axes and len(block.axes) > 1:
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


def slices(node: ir.Node) -> dict[int, slice] | None:
    """Return what a Slice takes along each axis it names; None when that is computed at run time."""
    starts, ends = integers(node, 1, "starts"), integers(node, 2, "ends")
    axes, steps = integers(node, 3, "axes"), integers(node, 4, "steps")
    if starts is None or ends is None:
        return None
    if (axes is None and _input(node, 3) is not None) or (steps is None and _input(node, 4) is not None):
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


def _slice(layout: Layout, node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    taken = slices(node)
    if taken is None:
        layout.refuse(node, "takes a part known only at run time")
        return
    for axis, part in taken.items():
        size = length(x, axis)
        joint = any(axis in block.axes and len(block.axes) > 1 for block in layout.blocks(x))
        if joint or size is None or part.step != 1:
            layout.seal(x, axis, obstacle(node, "takes a part of this axis that cannot be followed"))
    blocks = []
    for block in layout.blocks(x):
        part = taken.get(block.axes[0], slice(None)) if len(block.axes) == 1 else slice(None)
        blocks.append(Block(axes=block.axes, numbers=block.numbers[part]))
    layout.put(_output(node), blocks)


def paddings(node: ir.Node) -> dict[int, tuple[int, int]] | None:
    """Return how much a Pad adds before and after each axis; None when that is computed at run time."""
    pads, axes = integers(node, 1, "pads"), integers(node, 3, "axes")
    if pads is None or (axes is None and _input(node, 3) is not None):
        return None
    rank = len(graph.shape(node.inputs[0]) or ())
    axes = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    return {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}


def _pad(layout: Layout, node: ir.Node) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    added = paddings(node)
    if added is None:
        layout.refuse(node, "pads by amounts known only at run time")
        return
    constant = node.attributes.get_string("mode", "constant") == "constant"
    for axis, (before, after) in added.items():
        joint = any(axis in block.axes and len(block.axes) > 1 for block in layout.blocks(x))
        if (before or after) and (joint or not constant or min(before, after) < 0):
            layout.seal(x, axis, obstacle(node, "pads this axis with other than a constant"))
    blocks = []
    for block in layout.blocks(x):
        before, after = added.get(block.axes[0], (0, 0)) if len(block.axes) == 1 else (0, 0)
        numbers = block.numbers
        if constant and min(before, after) >= 0:
            numbers = np.concatenate([layout.channels.new(before), numbers, layout.channels.new(after)])
        blocks.append(Block(axes=block.axes, numbers=numbers))
    layout.put(_output(node), blocks)


def _gather(layout: Layout, node: ir.Node) -> None:
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
            blocks.append(_moved(block, {a: a if a < axis else a + width - 1 for a in block.axes}))
    layout.put(_output(node), blocks)


def _expand(layout: Layout, node: ir.Node) -> None:
    x, result = node.inputs[0], _output(node)
    assert x is not None  # noqa: S101 - required by the operator
    before, after = graph.shape(x) or (), graph.shape(result) or ()
    shift = len(after) - len(before)
    for axis, size in enumerate(before):
        if graph.constant(node.inputs[1]) is None or size is None or after[axis + shift] != size:
            layout.seal(x, axis, obstacle(node, "is repeated, or to a size known only at run time"))
    layout.put(result, [_shift(block, shift) for block in layout.blocks(x)])


def _depth_to_space(layout: Layout, node: ir.Node) -> None:
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
    layout.put(_output(node), [Block(axes=(1,), numbers=out)])


def _shape(layout: Layout, node: ir.Node) -> None:
    """A size that is read at run time must not change; reading other sizes does no harm."""
    x, result = node.inputs[0], _output(node)
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


def _source(layout: Layout, node: ir.Node) -> None:
    """Operators that make values from sizes and scalars: nothing to follow."""
    layout.refuse(node, "computes with channels as numbers")


# ----------------------------------------------------------------------------------------------------------------------
# Small helpers and the table
# ----------------------------------------------------------------------------------------------------------------------


def _output(node: ir.Node) -> ir.Value:
    return node.outputs[0]


def _input(node: ir.Node, position: int) -> ir.Value | None:
    return node.inputs[position] if position < len(node.inputs) else None


def _given(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None] + [value for value in node.outputs if _is_used(value)]


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _moved(block: Block, axes: dict[int, int]) -> Block:
    return Block(axes=tuple(axes[axis] for axis in block.axes), numbers=block.numbers)


def _shift(block: Block, by: int) -> Block:
    return _moved(block, {axis: axis + by for axis in block.axes})


def _renumbered(blocks: Sequence[Block], kept: dict[int, int]) -> list[Block]:
    return [_moved(block, kept) for block in blocks if set(block.axes) <= kept.keys()]


SEVERAL_OUTPUTS = ("Split", *RECURRENT)

# fmt: off
UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Dropout",
    "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log",
    "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)
ELEMENTWISE = (
    "Add", "And", "BitShift", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min",
    "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)
REDUCTIONS = (
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)
# fmt: on
Rule = Callable[[Layout, ir.Node], None]
RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "Resize": _resize,
    "Upsample": _resize,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Expand": _expand,
    "Shape": _shape,
    **dict.fromkeys(RECURRENT, _recurrent),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth_to_space),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _pool),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(UNARY, _same_axes),
    **dict.fromkeys(("ConstantOfShape", "Range", "Constant"), _source),
}
FIRST_INPUT_ONLY = (_same_axes, _reshape, _slice, _pad, _resize, _expand, _split, _reduce)
