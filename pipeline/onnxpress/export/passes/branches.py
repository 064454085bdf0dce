"""An If whose condition is known: the branch that always runs takes its place."""

from __future__ import annotations

import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.passes.rewiring import remove


def inline_branches(model: ir.Model) -> list[str]:
    """Move the nodes of the branch that always runs into the graph around the If; the other branch goes.

    What the branch returns passes through an Identity, which `identities.remove_identities` removes where it can.
    """
    changed = []
    for node in list(model.graph.all_nodes()):
        if node.op_type != "If" or node.domain not in graph.ONNX_DOMAINS or not node.inputs:
            continue  # no inputs: it was in a branch that has just gone
        condition, outer = graph.constant(node.inputs[0]), node.graph
        if condition is None or outer is None:
            continue
        branch = node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()
        if branch.initializers:  # it returns one of them
            continue
        inner, results = list(branch), list(branch.outputs)
        branch.outputs.clear()
        branch.remove(inner)
        outer.insert_before(node, inner)
        for output, result in zip(node.outputs, results, strict=True):
            identity = ir.node("Identity", [result], name=f"{node.name}_{output.name}")
            through = identity.outputs[0]
            through.shape, through.type = output.shape, output.type
            outer.insert_before(node, identity)
            name, output.name = output.name, None
            output.replace_all_uses_with(through, replace_graph_outputs=True)
            through.name = name
        remove(node)
        changed.append(node.name or "")
    return changed
