"""QOperator: the same int8 graph, written with the operators that a runtime makes of QuantizeLinear pairs.

``DequantizeLinear → Conv → QuantizeLinear`` becomes ``QLinearConv``. ONNX defines QLinearConv and QLinearMatMul; the
rest (QGemm, QLinearAdd, …) are onnxruntime's own. The file is a little smaller, needs no search for patterns, and
runs only where these operators exist.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.graph import MICROSOFT
from onnxpress.quantization.placement import THROUGH

UNARY = {
    "AveragePool": "QLinearAveragePool",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
    "LeakyRelu": "QLinearLeakyRelu",
    "Sigmoid": "QLinearSigmoid",
}


def rewrite(model: ir.Model, nodes: Iterable[ir.Node]) -> None:
    """Replace float nodes between pairs by int8 operators, in place; what does not fit stays as it is.

    Args:
        model: A model that `static.write` wrote, its initializers unused ones included.
        nodes: The nodes that were to run on integers.
    """
    for node in nodes:
        _rewrite(model, node)


def _rewrite(model: ir.Model, node: ir.Node) -> None:
    main = model.graph
    ends = [_quantize_behind(output) for output in node.outputs]
    sources = [_dequantize_before(value) for value in node.inputs]
    if node.op_type in THROUGH:
        if sources[0] is None or any(end is None for end in ends):
            return
        node.replace_input_with(0, sources[0].inputs[0])
        for output, end in zip(node.outputs, ends, strict=True):
            assert end is not None  # noqa: S101 - checked above
            output.type = end.outputs[0].type = ir.TensorType(_dtype(end))
            _remove(main, end, output)
        return
    end = ends[0]
    if any(source is None for source, value in zip(sources, node.inputs, strict=True) if value is not None):
        return
    found = [source for source in sources if source is not None]
    if end is None and node.op_type not in ("Gemm", "MatMul"):
        return
    if end is None and node.outputs[0] is not _last(node.outputs[0]):
        return
    inputs = [_triple(main, source) for source in found[:2]]
    out = [] if end is None else list(end.inputs[1:3])
    attributes = dict(node.attributes)
    domain, bias = MICROSOFT, found[2].inputs[0] if len(found) > 2 else None
    if node.op_type == "Conv":
        name, domain = "QLinearConv", ""
        operands = [*inputs[0], *inputs[1], *out, bias]
    elif node.op_type == "Gemm":
        name = "QGemm"
        operands = [*inputs[0], *inputs[1], bias, *out]
        attributes.pop("beta", None)
    elif node.op_type == "MatMul" and end is not None:
        name, domain = "QLinearMatMul", ""
        operands = [*inputs[0], *inputs[1], *out]
    elif node.op_type == "MatMul":
        (a, a_scale, a_zero), (b, b_scale, b_zero) = inputs
        name, operands = "MatMulIntegerToFloat", [a, b, a_scale, b_scale, a_zero, b_zero]
    elif node.op_type in ("Add", "Mul"):
        name, operands = f"QLinear{node.op_type}", [*inputs[0], *inputs[1], *out]
    elif node.op_type == "Concat":
        name, operands = "QLinearConcat", [*out, *(each for source in found for each in _triple(main, source))]
    else:
        name, operands = UNARY[node.op_type], [*inputs[0], *out]
    while operands[-1] is None:
        operands.pop()
    quantized = ir.Node(domain, name, operands, attributes.values(), name=node.name)
    if domain:
        model.opset_imports[MICROSOFT] = 1
    result, old = quantized.outputs[0], node.outputs[0]
    main.insert_before(node, quantized)
    if end is None:
        result.shape, result.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        result.name, old.name = old.name, None
    else:
        result.shape, result.type = old.shape, ir.TensorType(_dtype(end))
        result.name = end.outputs[0].name
        _remove(main, end, result)
    # The float node goes with the unused ones: nothing reads it any more.


def _remove(main: ir.Graph, end: ir.Node, result: ir.Value) -> None:
    """Let the readers of a QuantizeLinear read `result`; it and an activation before it are unused then."""
    before = end.inputs[0]
    end.outputs[0].replace_all_uses_with(result)
    main.remove(end, safe=True)
    activation = None if before is None else before.producer()
    if activation is not None and activation.op_type in ("Relu", "Clip") and not activation.outputs[0].uses():
        main.remove(activation, safe=True)


def _last(value: ir.Value) -> ir.Value:
    """Return the value behind the Relu or Clip that alone reads this one, else the value itself."""
    readers = graph.consumers(value)
    alone = len(readers) == 1 and not value.is_graph_output() and readers[0].op_type in ("Relu", "Clip")
    return readers[0].outputs[0] if alone else value


def _quantize_behind(value: ir.Value) -> ir.Node | None:
    """Return the QuantizeLinear that alone reads a value, or reads it behind an activation that clipping replaces."""
    last = _last(value)
    readers = graph.consumers(last)
    if last.is_graph_output() or len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return None
    return readers[0] if last is value or _clips_alike(last, readers[0]) else None


def _clips_alike(activation: ir.Value, quantize: ir.Node) -> bool:
    """Tell whether the grid's ends lie within an activation's bounds, so that clipping to the grid does its work."""
    scale, zero = (graph.constant(value) for value in quantize.inputs[1:3])
    node = activation.producer()
    assert scale is not None and zero is not None and node is not None  # noqa: S101 - written by `static`
    limits = np.iinfo(zero.dtype)
    bounds = [None if value is None else graph.constant(value) for value in node.inputs[1:3]]
    low = 0.0 if node.op_type == "Relu" else float("-inf") if not bounds or bounds[0] is None else float(bounds[0])
    high = float("inf") if len(bounds) < 2 or bounds[1] is None else float(bounds[1])
    step = float(scale)
    return (limits.min - int(zero)) * step >= low and (limits.max - int(zero)) * step <= high + step / 2


def _dequantize_before(value: ir.Value | None) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _triple(main: ir.Graph, dequantize: ir.Node) -> list[ir.Value | None]:
    """Return integers, scale and zero point of a DequantizeLinear; the operators want the zero point always."""
    integers, scale, *zero = dequantize.inputs
    if zero:
        return [integers, scale, zero[0]]
    array = graph.constant(scale)
    assert array is not None  # noqa: S101 - written by `static`
    suffix = "" if array.ndim == 0 else f"_{len(array)}"
    return [integers, scale, graph.add_initializer(main, f"zero_points_int8{suffix}", np.zeros(array.shape, np.int8))]


def _dtype(quantize: ir.Node) -> ir.DataType:
    zero = graph.constant_tensor(quantize.inputs[2])
    assert zero is not None  # noqa: S101 - written by `static`
    return zero.dtype
