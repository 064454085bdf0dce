"""Unique names for all nodes and values, across subgraphs too, so that a name says which one is meant."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxpress.export.passes.rewiring import named


def name_uniquely(model: ir.Model) -> list[str]:
    """Name what has no name and rename what shares one; inputs and outputs of the model keep theirs.

    Names depend on nothing but the graph. An output that a node leaves out (an empty name) stays left out.
    """
    changed = []
    values, nodes = list(dict.fromkeys(_values(model))), list(model.graph.all_nodes())
    existing = {value.name for value in values}
    taken: set[str] = set()
    for value in values:
        wanted = value.name or f"{_origin(value)}_value"
        name = _free(wanted, taken, existing)
        if name != value.name:
            changed.append(name)
            if value.const_value is not None:
                value.const_value = named(value.const_value, name)
            value.name = name
    existing = {node.name for node in nodes}
    taken = set()
    for node in nodes:
        name = _free(node.name or node.op_type, taken, existing)
        if name != node.name:
            changed.append(name)
            node.name = name
    return changed


def _values(model: ir.Model) -> Iterator[ir.Value]:
    main = model.graph
    yield from main.inputs
    yield from main.outputs
    for graph in model.graphs():
        yield from graph.inputs
        yield from tuple(graph.initializers.values())
        for node in graph:
            yield from (value for value in node.outputs if value.name or value.uses() or value.is_graph_output())


def _origin(value: ir.Value) -> str:
    producer = value.producer()
    return "input" if producer is None else producer.op_type


def _free(wanted: str, taken: set[str], existing: set[str | None]) -> str:
    """Return the wanted name for the first who asks, a numbered one that nothing has for the others."""
    name, count = wanted, 0
    while name in taken or (count and name in existing):
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name
