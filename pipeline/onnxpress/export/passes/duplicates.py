"""Everything once: equal nodes with equal inputs, and weights stored twice."""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Hashable

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Skip
from onnxpress.export.passes.rewiring import NONDETERMINISTIC, remove
from onnxpress.export.protos import INLINE_BYTES
from onnxpress.graph import Array

KEPT = NONDETERMINISTIC | {"DequantizeLinear", "QuantizeLinear"}
FINGERPRINT_ELEMENTS = 1024
CORNER = 16
LARGE_BYTES = 1_000_000
"""A smaller weight that is stored twice is not worth a word."""
PLAIN = (
    ir.AttributeType.FLOAT,
    ir.AttributeType.FLOATS,
    ir.AttributeType.INT,
    ir.AttributeType.INTS,
    ir.AttributeType.STRING,
    ir.AttributeType.STRINGS,
)


def merge_nodes(model: ir.Model) -> list[str]:
    """Let nodes that compute the same thing from the same inputs be one (common subexpressions).

    A node in a body of If, Loop or Scan may give way to one in a graph around it, never the other way round. Left
    alone are nodes with bodies, random ones, those of other domains, those whose result is returned, and QuantizeLinear
    and DequantizeLinear: runtimes look for one of them at each end of an edge.
    """
    return _merge(model.graph, ChainMap())


def _merge(body: ir.Graph, seen: ChainMap[Hashable, ir.Node]) -> list[str]:
    changed = []
    for node in list(body):
        subgraphs = graph.subgraphs(node)
        for inner in subgraphs:
            changed += _merge(inner, seen.new_child())
        if subgraphs or node.domain not in graph.ONNX_DOMAINS or node.op_type in KEPT:
            continue
        twin = seen.setdefault(_key(node), node)
        if twin is node or any(output.is_graph_output() for output in node.outputs):
            continue
        for output, same in zip(node.outputs, twin.outputs, strict=True):
            if output.uses() and not same.name:  # the twin had left it out
                same.name, output.name = output.name, None
            output.replace_all_uses_with(same)
        remove(node)
        changed.append(node.name or "")
    return changed


def _key(node: ir.Node) -> Hashable:
    """Return what is equal for two nodes exactly when they compute the same."""
    attributes = tuple((name, _attribute(node.attributes[name])) for name in sorted(node.attributes))
    return node.op_type, node.overload, len(node.outputs), tuple(map(_input, node.inputs)), attributes


def _attribute(attribute: ir.Attr) -> Hashable:
    if attribute.type == ir.AttributeType.TENSOR:
        return _content(attribute.as_tensor()) or id(attribute)
    if attribute.type in PLAIN:
        return str(attribute.type), str(attribute.value)
    return id(attribute)


def _input(value: ir.Value | None) -> Hashable:
    tensor = graph.constant_tensor(value)
    return id(value) if tensor is None else _content(tensor) or id(value)


def _content(tensor: ir.TensorProtocol) -> Hashable:
    """Return what two equal small tensors have in common; None for large ones."""
    if tensor.nbytes > INLINE_BYTES or tensor.dtype == ir.DataType.STRING:
        return None
    return str(tensor.dtype), tuple(tensor.shape), tensor.tobytes()


def tie_weights(model: ir.Model) -> list[str]:
    """Store weights that are equal once, as the model that was trained did.

    Vectors and scalars are not tied: the zero biases of two layers are equal by chance, and sharing them would only
    keep those layers from being edited apart. Most weights are told apart by their first and last few kilobytes, so
    that the rest of a memory-mapped file is not read.
    """
    main, changed = model.graph, []
    groups: dict[Hashable, list[ir.Value]] = {}
    for value in list(main.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output() or len(tensor.shape) < 2:
            continue
        if isinstance(tensor, ir.LazyTensor) or tensor.dtype == ir.DataType.STRING:
            continue
        group = groups.setdefault((tensor.dtype, tuple(tensor.shape), _fingerprint(tensor)), [])
        first = next((other for other in group if _equal(other, value)), None)
        if first is None:
            group.append(value)
            continue
        value.replace_all_uses_with(first)
        main.initializers.pop(value.name or "")
        changed.append(value.name or "")
    return changed


def stored_twice(model: ir.Model) -> list[Skip]:
    """Name the large matrices that are stored as they are and transposed, as is a table that is also multiplied by."""
    matrices = [
        (value, tensor)
        for value in model.graph.initializers.values()
        if (tensor := value.const_value) is not None and len(tensor.shape) == 2 and tensor.nbytes >= LARGE_BYTES
    ]
    found = []
    for (value, tensor), (other, turned) in itertools.combinations(matrices, 2):
        if tensor.dtype != turned.dtype or list(tensor.shape) != list(turned.shape)[::-1]:
            continue
        if _is_transposed(tensor.numpy(), turned.numpy()):
            reason = f"is {value.name} transposed, for a product: {turned.nbytes / 1e6:.1f} MB are stored twice"
            found.append(Skip(where=other.name or "", op="weight", reason=reason))
    return found


def _is_transposed(one: Array, two: Array) -> bool:
    """Tell whether a matrix is the other one transposed; two corners tell most apart, so that the rest is not read."""
    corners = (slice(None, CORNER), slice(-CORNER, None))
    return all(np.array_equal(one[part, part].T, two[part, part]) for part in corners) and np.array_equal(one.T, two)


def _fingerprint(tensor: ir.TensorProtocol) -> bytes:
    flat = tensor.numpy().reshape(-1)
    return flat[:FINGERPRINT_ELEMENTS].tobytes() + flat[-FINGERPRINT_ELEMENTS:].tobytes()


def _equal(left: ir.Value, right: ir.Value) -> bool:
    """Compare bytes: 0.0 and -0.0 are different weights, two NaN need not be."""
    arrays = (graph.constant(left), graph.constant(right))
    first, second = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays)
    return np.array_equal(first, second)
