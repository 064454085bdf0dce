"""Range takes scalars. onnxruntime is lenient with one value in an axis of its own until it knows that there is one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.passes.rewiring import initializer


def make_scalars(model: ir.Model) -> list[str]:
    """Take the axis off what a Range reads, where it is known to have one."""
    changed = []
    for node in list(model.graph.all_nodes()):
        if graph.operator(node) != "Range":
            continue
        for index, value in enumerate(node.inputs):
            if value is None or node.graph is None or graph.shape(value) != (1,):
                continue
            shape = initializer(model.graph, f"{node.name}_no_axes", ir.Tensor(np.zeros(0, np.int64)))
            scalar = ir.node("Reshape", [value, shape], name=f"{node.name}_{index}_scalar")
            scalar.outputs[0].name = scalar.name
            node.graph.insert_before(node, scalar)
            node.replace_input_with(index, scalar.outputs[0])
            changed.append(node.name or "")
    return changed
