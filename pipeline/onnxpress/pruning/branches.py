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
    axes_behind: int
    """Axes of the result behind that of the channels."""


def end(reader: ir.Node) -> End | None:
    """Return where a layer's result is added to a shortcut of the same shape; None where something else is done."""
    result, axes_behind = reader.outputs[0], 0
    bias = reader.inputs[2] if reader.op_type in ("Conv", "Gemm") and len(reader.inputs) > 2 else None
    if reader.op_type == "Conv":
        axes_behind = len(result.shape or ()) - 2
    elif reader.op_type == "Gemm" and (bias is None or reader.attributes.get_float("beta", 1.0) == 1):
        pass
    elif reader.op_type == "MatMul":
        adder, bias = _added(result)
        if bias is not None and graph.constant_tensor(bias) is not None and adder is not None:
            result = adder.outputs[0]
        else:
            bias = None
    else:
        return None
    if bias is not None and ((known := graph.constant_tensor(bias)) is None or len(known.shape) != 1):
        return None
    adder, shortcut = _added(result)
    if adder is None or shortcut is None or not _alike(shortcut, result) or not _alike(adder.outputs[0], result):
        return None
    if graph.constant_tensor(shortcut) is not None or _is_branch(shortcut):
        return None
    return End(adder=adder, result=result, shortcut=shortcut, bias=bias, axes_behind=axes_behind)


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


def _added(value: ir.Value) -> tuple[ir.Node | None, ir.Value | None]:
    """Return the Add that alone reads a value, and what else it adds."""
    readers = graph.consumers(value)
    if len(readers) != 1 or readers[0].op_type != "Add" or value.is_graph_output():
        return None, None
    others = [other for other in readers[0].inputs if other is not value]
    return (readers[0], others[0]) if len(others) == 1 else (None, None)


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
