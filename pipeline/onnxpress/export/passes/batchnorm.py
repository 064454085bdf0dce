"""BatchNormalization folded into the weights before it.

In inference, BatchNormalization is one multiplication and one addition per channel::

    bn(y) = gamma * (y - mean) / sqrt(var + epsilon) + beta = y * s + t
    s = gamma / sqrt(var + epsilon)                t = beta - mean * s

and what computes ``y = x * W + b`` (Conv, ConvTranspose, Gemm, MatMul with an Add) is linear in W and b, so that
``bn(y) = x * W' + b'`` with, along the output channels of W::

    W' = W * s                                      b' = b * s + t

The new weights are computed in float64. A ConvTranspose keeps its output channels by group (``W[C, M/group, k…]``), a
Gemm multiplies by alpha and beta (``y = alpha * x W + beta * b``; beta goes into b'), and a bare MatMul takes W' and
leaves an Add of t. Refused, and left to the runtime: see `refusal`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Skip
from onnxpress.export.passes.rewiring import bypass, initializer


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """What computes ``x * W + b`` before a BatchNormalization."""

    node: ir.Node
    body: ir.Graph
    add: ir.Node | None
    """The Add that holds the bias of a MatMul."""
    facts: graph.Weighted
    weight: ir.Value
    bias: ir.Value | None
    result: ir.Value


def fold_batchnorm(model: ir.Model) -> list[str]:
    """Fold every BatchNormalization that can be; return their names and those of the nodes that took them in."""
    changed = []
    for node in _batchnorms(model):
        linear = _linear(node)
        if linear is not None and refusal(node) is None:
            changed += _fold(model.graph, node, linear)
    return changed


def left(model: ir.Model) -> list[Skip]:
    """Return each BatchNormalization that is still there, and why."""
    numbers = "the folded weights are not finite (a negative variance, or too large for their dtype)"
    return [
        Skip(where=node.name or "", op=node.op_type, reason=refusal(node) or numbers) for node in _batchnorms(model)
    ]


def refusal(node: ir.Node) -> str | None:
    """Return why a BatchNormalization cannot be folded; None when only its numbers can still be in the way."""
    if any(graph.constant_tensor(value) is None for value in node.inputs[1:5]):
        return "its parameters are computed at run time"
    if graph.attribute_int(node, "training_mode", 0) or any(output.uses() for output in node.outputs[1:]):
        return "it is in training mode"
    linear = _linear(node)
    if linear is None:
        return "it does not follow a Conv, ConvTranspose, Gemm or MatMul"
    for value in dict.fromkeys((linear.node.outputs[0], linear.result)):
        if value.is_graph_output():
            return f"the value before it, {value.name}, is a graph output"
        if len(value.uses()) > 1:
            return f"the value before it, {value.name}, has other consumers"
    weight = graph.constant_tensor(linear.weight)
    if weight is None:
        return f"the weight before it, {linear.weight.name}, is computed at run time"
    if len(linear.weight.uses()) > 1 or linear.weight.is_graph_output():
        return f"the weight before it, {linear.weight.name}, is shared with other nodes"
    if linear.node.op_type == "MatMul" and not len(weight.shape) == len(graph.shape(linear.result) or ()) == 2:
        return f"the channels that it normalizes are not the columns of {linear.node.name}"
    if linear.bias is not None:
        bias = graph.constant(linear.bias)
        if bias is None:
            return f"the bias before it, {linear.bias.name}, is computed at run time"
        if bias.size > 1 and bias.size != bias.shape[-1]:
            return f"the bias before it, {linear.bias.name}, is not one number per channel"
    return None


def _fold(main: ir.Graph, node: ir.Node, linear: Linear) -> list[str]:
    """Give the weights before a BatchNormalization their new values and remove it, unless those are not finite."""
    weight, bias = _folded(node, linear)
    if not np.isfinite(weight).all() or not np.isfinite(bias).all():
        return []
    linear.weight.const_value = ir.tensor(weight, name=linear.weight.name)
    stored, source = initializer(main, f"{node.name}_bias", ir.tensor(bias)), linear.result
    if linear.add is not None:
        linear.add.replace_input_with(linear.add.inputs.index(linear.bias), stored)
    elif linear.facts.bias is None:
        addition = ir.node("Add", [source, stored], name=f"{node.name}_add")
        linear.body.insert_after(linear.node, addition)
        source = addition.outputs[0]
        source.name = node.outputs[0].name
    else:
        linear.node.resize_inputs(linear.facts.bias + 1)
        linear.node.replace_input_with(linear.facts.bias, stored)
        if linear.node.op_type == "Gemm":
            linear.node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    bypass(node, source)
    return [node.name or "", linear.node.name or ""]


def _folded(node: ir.Node, linear: Linear) -> tuple[graph.Array, graph.Array]:
    """Return W' and b' in the dtype of W."""
    gamma, beta, mean, variance = (_array(value).astype(np.float64) for value in node.inputs[1:5])
    dtype = _array(linear.weight).dtype
    weight = _array(linear.weight).astype(np.float64)
    bias = np.zeros(1) if linear.bias is None else _array(linear.bias).astype(np.float64).reshape(-1)
    if linear.node.op_type == "Gemm":
        bias = bias * linear.node.attributes.get_float("beta", 1.0)
    with np.errstate(all="ignore"):  # the caller looks at the result
        scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        shift = beta - mean * scale
        if linear.node.op_type == "ConvTranspose":
            groups, outputs = graph.attribute_int(linear.node, "group", 1), weight.shape[1]
            blocks = weight.reshape(groups, -1, outputs, math.prod(weight.shape[2:]))
            scaled = (blocks * scale.reshape(groups, 1, outputs, 1)).reshape(weight.shape)
        else:
            broadcast = [1] * weight.ndim
            broadcast[linear.facts.out_axis] = -1
            scaled = weight * scale.reshape(broadcast)
        return scaled.astype(dtype), (bias * scale + shift).astype(dtype)


def _linear(node: ir.Node) -> Linear | None:
    """Return what a BatchNormalization follows in its own graph."""
    result, add = node.inputs[0], None
    before = _producer(result, node)
    if before is not None and before.op_type == "Add" and before.domain in graph.ONNX_DOMAINS:
        operands = [_producer(value, node) for value in before.inputs]
        add, before = before, next((operand for operand in operands if operand and operand.op_type == "MatMul"), None)
    facts = None if before is None else graph.weighted(before)
    if result is None or before is None or before.graph is None or facts is None:
        return None
    weight, bias = before.inputs[facts.weight], None
    if add is not None:
        bias = next(value for value in add.inputs if value is not before.outputs[0])
    elif facts.bias is not None and len(before.inputs) > facts.bias:
        bias = before.inputs[facts.bias]
    if weight is None:
        return None
    return Linear(node=before, body=before.graph, add=add, facts=facts, weight=weight, bias=bias, result=result)


def _producer(value: ir.Value | None, reader: ir.Node) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.graph is reader.graph else None


def _batchnorms(model: ir.Model) -> list[ir.Node]:
    return [
        node
        for node in model.graph.all_nodes()
        if node.op_type == "BatchNormalization" and node.domain in graph.ONNX_DOMAINS
    ]


def _array(value: ir.Value | None) -> graph.Array:
    array = graph.constant(value)
    assert array is not None  # noqa: S101 - not refused
    return array
