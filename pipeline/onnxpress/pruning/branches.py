"""Residual branches that can go whole: without any of its channels, a branch adds a constant to its shortcut.

``y = x + Conv₂(Relu(Conv₁(x)))`` is ``x`` plus the bias of ``Conv₂`` when all channels between the two convolutions are
gone. The layers that only lead there then go, too, and with them their whole time, whatever widths the kernels like. So
do the attention and the feed-forward part of a transformer's layer. Dropping whole blocks often loses less than
narrowing all of them when few samples are left to repair with: G.-H. Wang, J. Wu, "Practical network acceleration with
tiny sets", 2023 (arXiv:2202.07861).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress import graph
from onnxpress.pruning.groups import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a branch is added to its shortcut."""

    adder: ir.Node
    result: ir.Value
    """What the branch adds."""
    shortcut: ir.Value
    bias: ir.Value | None
    """What is left of the result when nothing enters the branch's last layer, [channels]; None for zero."""
    axis: int
    """Where the result's channels lie."""


def end(reader: ir.Node) -> End | None:
    """Return where a layer's result is added to a shortcut of the same shape; None where something else is done."""
    if reader.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    result, bias = reader.outputs[0], None
    if reader.op_type == "MatMul":
        if (sums := graph.added_to(result)) is not None and graph.constant_tensor(sums[1]) is not None:
            result, bias = sums[0].outputs[0], sums[1]
    elif len(reader.inputs) > 2:
        bias = reader.inputs[2]
    if bias is not None:
        tensor, factor = graph.constant_tensor(bias), reader.attributes.get_float("beta", 1.0)
        if tensor is None or len(tensor.shape) != 1 or factor != 1:
            return None
    added = graph.added_to(result)
    if added is None or graph.constant_tensor(added[1]) is not None or _is_branch(added[1]):
        return None
    adder, shortcut = added
    if not _alike(shortcut, result) or not _alike(adder.outputs[0], result):
        return None
    axis = 1 if reader.op_type == "Conv" else len(result.shape or ()) - 1
    return End(adder=adder, result=result, shortcut=shortcut, bias=bias, axis=axis)


def constant(place: End) -> str:
    """Return the name of what stands in the result's place when the branch is gone."""
    return f"{place.result.name}_constant"


def gone(group: Group) -> Collection[ir.Node]:
    """Return the nodes that go when all channels of a group do; none where the group must keep at least one.

    It may lose all where every layer that reads it ends a branch, and nothing that touches it serves anything else.
    """
    ends = [end(weight.node) for weight in group.readers]
    results = {each.result for each in ends if each is not None}
    if not ends or None in ends or any((member.channel < 0).any() for member in group.members):
        return ()
    dead = _serving_only(results)
    touching = {node for member in group.members for node in graph.consumers(member.value)}
    touching |= {node for member in group.members if (node := member.value.producer()) is not None}
    return dead if touching <= dead else ()


def _is_branch(shortcut: ir.Value) -> bool:
    """Tell whether a shortcut has layers of its own, more than a projection: one of two branches must stay."""
    if len(graph.consumers(shortcut)) > 1:
        return False
    return sum(graph.weighted(node) is not None for node in _serving_only({shortcut})) > 1


def _alike(one: ir.Value, other: ir.Value) -> bool:
    """Tell whether two values have the same shape; unknown sizes of samples are taken for equal."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    return all(str(a) == str(b) for a, b in zip(one.shape[1:], other.shape[1:], strict=True))


def _serving_only(results: Collection[ir.Value]) -> set[ir.Node]:
    """Return the nodes that nothing needs once these values are not read."""
    dead: set[ir.Node] = set()
    waiting = [node for value in results if (node := value.producer()) is not None]
    while waiting:
        node = waiting.pop()
        if node in dead or any(_needed(value, results, dead) for value in node.outputs):
            continue
        dead.add(node)
        waiting += [maker for value in node.inputs if value is not None and (maker := value.producer()) is not None]
    return dead


def _needed(value: ir.Value, results: Collection[ir.Value], dead: set[ir.Node]) -> bool:
    if value in results:
        return False
    return value.is_graph_output() or any(node not in dead for node in graph.consumers(value))
