"""Small edits of a graph that several passes share."""

from __future__ import annotations

import onnx_ir as ir

from onnxpress import graph

NONDETERMINISTIC = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Two nodes of these with equal inputs differ, and none of them is a constant (a Dropout only when it trains)."""


def bypass(node: ir.Node, source: ir.Value) -> bool:
    """Let everything that reads a node's first output read ``source`` instead, and remove the node.

    The names of graph outputs stay: ``source`` takes the name of an output that it replaces.

    Returns:
        False, and nothing is changed, where that is impossible: another output of the node is read, or the node stands
        between two things that a caller sees by name (an input or another output, and an output).
    """
    output, *others = node.outputs
    if any(other.uses() or other.is_graph_output() for other in others):
        return False
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not node.graph or source.is_graph_output():
            return False
    name = output.name if output.is_graph_output() else source.name
    ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
    output.name = None
    source.name = name
    source.type = source.type or output.type
    remove(node)
    return True


def remove(node: ir.Node) -> None:
    """Remove a node that nothing reads any more from its graph."""
    assert node.graph is not None  # noqa: S101 - it is in one
    node.graph.remove(node, safe=True)
    forget_bodies(node)


def forget_bodies(node: ir.Node) -> None:
    """Let the bodies of a removed If, Loop or Scan read nothing, so that what only they have read counts as unused."""
    for body in graph.subgraphs(node):
        for inner in body.all_nodes():
            inner.resize_inputs(0)


def named(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """Return the same data under another name; a tensor may be shared with the model that must not change."""
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(tensor.numpy(), shape=ir.Shape(tensor.shape.numpy()), name=name)
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)


def initializer(main: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Register a tensor that no other model holds as an initializer of the main graph, under a name free there."""
    while name in main.initializers:
        name += "_"
    tensor.name = name
    value = ir.Value(
        name=name, const_value=tensor, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype)
    )
    main.register_initializer(value)
    return value
