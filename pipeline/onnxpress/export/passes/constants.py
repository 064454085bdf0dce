"""Weights where every tool finds them: as initializers of the main graph, and not among its inputs."""

from __future__ import annotations

import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.passes.rewiring import initializer, named, remove


def remove_from_inputs(model: ir.Model) -> list[str]:
    """Take initializers off the list of graph inputs.

    Old exporters list them there, which makes them defaults that a caller may replace; onnxruntime then folds nothing
    into them (a detector of that kind ran three times slower).
    """
    inputs = model.graph.inputs
    listed = [value for value in inputs if value.is_initializer()]
    for value in listed:
        inputs.remove(value)
    return [value.name or "" for value in listed]


def lift(model: ir.Model) -> list[str]:
    """Turn Constant nodes and the initializers of subgraphs into initializers of the main graph.

    A body of If, Loop or Scan sees the values of the graphs around it. What a body (or the model) returns directly must
    stay where it is: a graph cannot return a value of the graph around it.
    """
    main, changed = model.graph, []
    for node in list(main.all_nodes()):
        if node.op_type != "Constant" or node.domain not in graph.ONNX_DOMAINS:
            continue
        output = node.outputs[0]
        stored = node.attributes.get("value")  # read here: constant_tensor() would name the tensor in the given model
        tensor = graph.constant_tensor(output) if stored is None else stored.as_tensor()
        if tensor is None or output.is_graph_output():
            continue
        name, output.name = output.name or "", None
        output.replace_all_uses_with(initializer(main, name, named(tensor, name)))
        remove(node)
        changed.append(node.name or "")
    for body in model.graphs():
        if body is main:
            continue
        for name, value in list(body.initializers.items()):
            if value.const_value is None or value.is_graph_input() or value.is_graph_output():
                continue
            body.initializers.pop(name)
            value.replace_all_uses_with(initializer(main, name, named(value.const_value, name)))
            changed.append(name)
    return changed
