"""Scan as it was in operator set 8, with an axis of batches, in terms of what it has been since."""

from __future__ import annotations

import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.passes.rewiring import remove

BATCHED = 8
"""The only operator set whose Scan goes over axis 1, for each index of axis 0."""
MARK = "num_scan_inputs"


def lay_aside(model: ir.Model) -> None:
    """Let each Scan pass for a Loop while a model is converted, in place: its body is converted, it is not."""
    for node in model.graph.all_nodes():
        if graph.operator(node) == "Scan":
            node.op_type = "Loop"


def take_back(model: ir.Model) -> None:
    """Write what `lay_aside` left as two Scans, in place: one over the batch, and in it one over the sequence.

    Raises:
        RuntimeError: a Scan has sequences of several lengths.
    """
    for node in list(model.graph.all_nodes()):
        if graph.operator(node) != "Loop" or MARK not in node.attributes:
            continue
        lengths, *given = node.inputs
        if lengths is not None:
            raise RuntimeError("No Adapter there is for Scan with lengths of sequences")
        body, count = node.attributes.pop("body").as_graph(), len(node.outputs)
        entering = [
            ir.val(f"{node.name}_{value.name}", type=value.type)  # without the axis of batches
            for value in body.inputs
        ]
        attributes = [ir.AttrGraph("body", body), node.attributes[MARK]]
        if (directions := node.attributes.get_ints("directions")) is not None:
            attributes.append(ir.AttrInt64s("scan_input_directions", directions))
        inner = ir.Node("", "Scan", entering, attributes, num_outputs=count, name=f"{node.name}_sequence")
        for old, new in zip(node.outputs, inner.outputs, strict=True):
            new.name, new.type = f"{node.name}_{old.name}_one", old.type
        one = ir.Graph(entering, inner.outputs, nodes=[inner], name=f"{node.name}_one")
        attributes = [ir.AttrGraph("body", one), ir.AttrInt64(MARK, len(given))]
        outer = ir.Node("", "Scan", given, attributes, num_outputs=count, name=node.name)
        assert node.graph is not None  # noqa: S101 - it is in one
        node.graph.insert_before(node, outer)
        for old, new in zip(node.outputs, outer.outputs, strict=True):
            new.shape, new.type = old.shape, old.type
            name, old.name = old.name, None
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            new.name = name
        remove(node)
