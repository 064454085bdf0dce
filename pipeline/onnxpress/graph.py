"""Questions to an ``onnx_ir.Model``, and the table of operator facts that pruning and quantization share.

A weighted operator computes ``y = x · W (+ b)`` in some layout. `WEIGHTED` says, per operator, which input is the
weight, which is the bias, and along which axis of the weight the output and the input channels lie, so that no other
module needs to know operators by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress.errors import ModelError
from onnxpress_calibration.dataset import InputSpec

Array = np.ndarray[Any, np.dtype[Any]]
ONNX_DOMAINS = ("", "ai.onnx")
MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """Where an operator keeps its weight and bias, and what the weight's axes mean."""

    weight: int
    bias: int | None
    out_axis: int
    """Axis of the output channels in the weight (negative counts from the end)."""
    in_axis: int


WEIGHTED = {
    "Conv": Weighted(weight=1, bias=2, out_axis=0, in_axis=1),  # [M, C/group, k…]
    "ConvTranspose": Weighted(weight=1, bias=2, out_axis=1, in_axis=0),  # [C, M/group, k…]
    "Gemm": Weighted(weight=1, bias=2, out_axis=1, in_axis=0),  # [K, N]; with transB=1 the other way round
    "MatMul": Weighted(weight=1, bias=None, out_axis=-1, in_axis=-2),  # [K, N]
}


def weighted(node: ir.Node) -> Weighted | None:
    """Return the facts of a weighted node, transposition taken into account; None for other operators."""
    if node.domain not in ONNX_DOMAINS or node.op_type not in WEIGHTED:
        return None
    facts = WEIGHTED[node.op_type]
    if node.op_type == "Gemm" and attribute_int(node, "transB", 0):
        return Weighted(weight=1, bias=2, out_axis=0, in_axis=1)
    return facts


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def constant(value: ir.Value | None) -> Array | None:
    """Return the array behind a value that is an initializer or a Constant node's output; None when it is computed.

    A graph input with a default is no constant: the caller of the model may replace it.
    """
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor behind a constant value, without reading its data; see `constant`."""
    if value is None or value.is_graph_input():
        return None
    return ir.convenience.get_const_tensor(value)


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node of the model, those in subgraphs of If, Loop and Scan too."""
    yield from model.graph.all_nodes()


def consumers(value: ir.Value) -> tuple[ir.Node, ...]:
    """Return the nodes that read a value, each once, in the order of their uses."""
    return tuple(dict.fromkeys(use.node for use in value.uses()))


def shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Return a value's shape with None for axes whose size is not fixed; None when not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def inputs(model: ir.Model) -> list[ir.Value]:
    """Return the inputs a caller must give: graph inputs that have no default."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def input_specs(model: ir.Model) -> dict[str, InputSpec]:
    """Return dtype and shape of each input a caller must give.

    Raises:
        ModelError: an input is no tensor, or has no known rank.

    """
    specs = {}
    for value in inputs(model):
        dims = shape(value)
        is_tensor = isinstance(value.type, ir.TensorType)
        if not is_tensor or value.dtype is None or dims is None or value.name is None:
            raise ModelError(
                f"model input {value.name!r}: has no dtype or rank (sequences and maps are not supported)."
            )
        try:
            dtype = np.dtype(value.dtype.numpy())
        except TypeError as error:
            raise ModelError(f"model input {value.name!r}: dtype {value.dtype.name} is not supported.") from error
        specs[value.name] = InputSpec(dtype=dtype, shape=dims)
    return specs


def words(value: ir.Value) -> list[str]:
    """Return strings that the operators reading an input know (tokens, keys, categories), else some that none need."""
    known = [
        word
        for node in consumers(value)
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.STRINGS and not attribute.is_ref()
        for word in attribute.as_strings()
    ]
    return known or ["a", "b", "c"]


def opset(model: ir.Model) -> int:
    """Return the version of the default operator set."""
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if version is None:
        raise ModelError("model: imports no default operator set. Export it again.")
    return version


def operator(node: ir.Node) -> str:
    """Return ``Conv``, or ``com.microsoft.QGemm`` outside ONNX's domain."""
    return node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}.{node.op_type}"


def added_to(value: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    """Return the Add that alone reads a value, and what else it adds; None where something else is done with it."""
    readers = consumers(value)
    if len(readers) != 1 or readers[0].op_type != "Add" or value.is_graph_output():
        return None
    others = [other for other in readers[0].inputs if other is not None and other is not value]
    return (readers[0], others[0]) if len(others) == 1 else None


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """Return the bodies of a control-flow node (If, Loop, Scan)."""
    bodies: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            bodies.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies.extend(attribute.as_graphs())
    return bodies


def add_initializer(main: ir.Graph, name: str, array: Array) -> ir.Value:
    """Store an array as an initializer; one of this name that is there already is returned instead."""
    if name in main.initializers:
        return main.initializers[name]
    tensor = ir.Tensor(array, name=name)  # `ir.tensor` asks what it got, which takes longer than all the rest
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    main.register_initializer(value)
    return value


def set_constant(main: ir.Graph, node: ir.Node, position: int, array: Array) -> None:
    """Give a node another constant at one of its inputs; other nodes that read the old one keep it."""
    old = node.inputs[position] if position < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        old.const_value = ir.tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    name = f"{node.name}_{position}" if old is None else f"{old.name}_{node.name}"
    if position >= len(node.inputs):
        node.resize_inputs(position + 1)
    node.replace_input_with(position, add_initializer(main, name, array))
