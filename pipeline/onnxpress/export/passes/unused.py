"""What nothing reads: nodes, weights, operator sets."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from onnxpress.export.passes.rewiring import forget_bodies


def remove_unused(model: ir.Model) -> list[str]:
    """Remove nodes and initializers that nothing reads, and operator sets that no node is of. Inputs stay."""
    nodes, weights = list(model.graph.all_nodes()), list(model.graph.initializers.values())
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    gone = [node for node in nodes if node.graph is None]
    for node in gone:
        forget_bodies(node)
    return [node.name or "" for node in gone] + [value.name or "" for value in weights if not value.is_initializer()]
