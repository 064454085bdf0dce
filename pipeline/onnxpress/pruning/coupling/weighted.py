"""Weighted operators: Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU, RNN."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.pruning.coupling.arguments import input_of, is_used, output_of
from onnxpress.pruning.coupling.broadcasting import Operand, broadcast
from onnxpress.pruning.layout import Block, Layout, Numbers, length, obstacle


def conv(layout: Layout, node: ir.Node) -> None:
    """Conv, ConvTranspose: tie input channels to the weight's input axis; its output axis makes new ones."""
    x, weight, facts = node.inputs[0], node.inputs[1], graph.weighted(node)
    bias = input_of(node, 2)
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
    result = output_of(node)
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


def gemm(layout: Layout, node: ir.Node) -> None:
    """Tie the summed axes; the weight's output axis makes new channels."""
    x, weight, facts = node.inputs[0], node.inputs[1], graph.weighted(node)
    bias = input_of(node, 2)
    assert x is not None and weight is not None and facts is not None  # noqa: S101 - required by the operator
    if not _is_weight(layout, node, weight):
        layout.refuse(node, "its weight is not constant")
        return
    summed = 0 if graph.attribute_int(node, "transA", 0) else 1
    layout.seal(x, 1 - summed, obstacle(node, "these are its rows"))
    layout.couple(x, summed, weight, facts.in_axis, node)
    out = layout.track(weight, facts.out_axis, node)
    layout.put(output_of(node), [Block(axes=(1,), numbers=out)])
    if bias is None:
        return
    sizes = graph.shape(bias) or ()
    if sizes and sizes[-1] == len(out):
        layout.couple(bias, -1, weight, facts.out_axis, node)
    elif math.prod(size or 0 for size in sizes) != 1:
        layout.refuse(node, "its bias has an unusual shape", [*node.inputs, *node.outputs])


def matmul(layout: Layout, node: ir.Node) -> None:
    """Tie the summed axes of both sides; all others go on to the output."""
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None and right is not None  # noqa: S101 - required by the operator
    ranks = [len(graph.shape(value) or ()) for value in (left, right)]
    if min(ranks) < 2:
        layout.refuse(node, "multiplies by a vector")
        return
    for value, axis, kept in ((left, ranks[0] - 1, ranks[0] - 2), (right, ranks[1] - 2, ranks[1] - 1)):
        if layout.is_joint(value, axis):
            layout.seal(value, axis, obstacle(node, "sums over this axis"))
        if graph.constant_tensor(value) is not None and len(graph.shape(value) or ()) == 2:
            layout.track(value, kept, node)
    pair = (left, ranks[0] - 1), (right, ranks[1] - 2)
    if any(axis in block.axes for value, axis in pair for block in layout.blocks(value)) or any(
        graph.constant_tensor(value) is not None for value, _ in pair
    ):
        layout.couple(*pair[0], *pair[1], node)
    operands = [Operand.of(layout, value, summed=axis) for value, axis in pair]
    layout.put(output_of(node), broadcast(layout, node, operands))


def recurrent(layout: Layout, node: ir.Node) -> None:
    """LSTM, GRU, RNN: a hidden unit lies once in each gate, in the state, and in the weights that read the state.

    Both directions have one hidden size, so their units of the same number go together.
    """
    x, weight, recurrence = node.inputs[:3]
    assert x is not None and weight is not None and recurrence is not None  # noqa: S101 - required by the operator
    for axis in (0, 1):
        layout.seal(x, axis, obstacle(node, "these are its steps and its batch"))
    constant = _is_weight(layout, node, weight) and _is_weight(layout, node, recurrence)
    bias, states = input_of(node, 3), [input_of(node, 5), input_of(node, 6)]
    if not constant or input_of(node, 7) is not None or graph.attribute_int(node, "layout", 0):
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
        if is_used(value):
            layout.put(value, [Block(axes=(2 if position else 3,), numbers=units)])


def _is_weight(layout: Layout, node: ir.Node, weight: ir.Value) -> bool:
    if graph.constant_tensor(weight) is not None:
        return True
    if weight.is_graph_input():
        reason = f"its weight {weight.name!r} is a graph input, which the caller may replace"
        layout.skips.append(obstacle(node, reason))
    return False
