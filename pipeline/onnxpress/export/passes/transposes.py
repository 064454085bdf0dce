"""Two Transposes that undo each other go, also where functions of single values stand between them."""

from __future__ import annotations

import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.passes.rewiring import bypass

POINTWISE = frozenset(
    {
        "Abs",
        "Cast",
        "Elu",
        "Erf",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "Neg",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Sqrt",
        "Tanh",
    }
)


def cancel_transposes(model: ir.Model) -> list[str]:
    """Remove pairs of Transposes; what stands between them works on the order of axes that was before."""
    changed = []
    for node in list(model.graph.all_nodes()):
        if graph.operator(node) != "Transpose" or node.graph is None or node.inputs[0] is None:
            continue
        between, value = [], node.inputs[0]
        while (producer := value.producer()) is not None and _alone(value, node):
            if graph.operator(producer) not in POINTWISE or producer.inputs[0] is None:
                break
            between.append(producer)
            value = producer.inputs[0]
        first = value.producer()
        source = None if first is None else first.inputs[0]
        if first is None or source is None or graph.operator(first) != "Transpose" or first.graph is not node.graph:
            continue
        if (between and not _alone(value, node)) or not _undoes(first, node):
            continue
        if not between:
            if bypass(node, source):
                changed.append(node.name or "")
            continue
        if not bypass(node, between[0].outputs[0]):
            continue
        between[-1].replace_input_with(0, source)
        for each in between:
            each.outputs[0].shape = None  # inferred anew
        changed.append(node.name or "")
    return changed


def _alone(value: ir.Value, node: ir.Node) -> bool:
    """Tell whether one node of the same graph reads a value, and no caller."""
    readers = graph.consumers(value)
    return len(readers) == 1 and readers[0].graph is node.graph and not value.is_graph_output()


def _undoes(first: ir.Node, second: ir.Node) -> bool:
    orders = [node.attributes.get_ints("perm") for node in (first, second)]
    if orders[0] is None or orders[1] is None:
        return orders[0] is None and orders[1] is None  # both reverse all axes
    return [orders[0][axis] for axis in orders[1]] == list(range(len(orders[0])))
