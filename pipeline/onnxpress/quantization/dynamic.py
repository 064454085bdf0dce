"""Dynamic int8: weights stored as int8, activation ranges computed in each run.

``MatMul(x, W)`` becomes, in standard ONNX::

    q, s, z = DynamicQuantizeLinear(x)
    y = Cast(MatMulInteger(q, W_int8, z)) * (s · W_scale)

which onnxruntime fuses to one DynamicQuantizeMatMul kernel, bias included. An LSTM becomes onnxruntime's
DynamicQuantizeLSTM. A Conv stays float: ConvInteger runs 4 to 13 times slower than float, and onnxruntime cannot run
every form of it (microsoft/onnxruntime#15888).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit, Skip
from onnxpress.quantization import embedding
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import quantize_weight
from onnxpress.quantization.placement import refusal, remove_unused

MICROSOFT = "com.microsoft"


def write(model: ir.Model, options: QuantizeOptions) -> Edit:
    """Quantize a prepared model dynamically, in place."""
    changed: list[str] = []
    skipped: list[Skip] = []
    quantized_inputs: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node in list(graph.nodes(model)):
        if node.op_type == "LSTM" and node.domain in graph.ONNX_DOMAINS:
            reason = _lstm(model, node, options)
        elif node.op_type == "Conv":
            reason = "dynamic int8 convolutions (ConvInteger) are slower than float; use static"
        else:
            reason = refusal(node, model, options.selects)
            if reason is None:
                _matmul(model.graph, node, quantized_inputs, per_tensor=options.per_tensor)
        if reason:
            skipped.append(Skip(where=node.name or "", op=node.op_type, reason=reason))
        elif reason is None:
            changed.append(node.name or "")
    tables = embedding.quantize(model, options)
    remove_unused(model)
    facts = {"int8_nodes": len(changed), "int8_tables": len(tables)}
    return Edit(model=model, changed=(*changed, *tables), skipped=tuple(skipped), facts=facts)


def _matmul(
    main: ir.Graph, node: ir.Node, quantized: dict[ir.Value, tuple[ir.Value, ...]], *, per_tensor: bool
) -> None:
    """Replace a MatMul or Gemm with a constant weight."""
    value, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    array = graph.constant(weight)
    assert value is not None and weight is not None and array is not None  # noqa: S101 - not refused
    if node.op_type == "Gemm" and graph.attribute_int(node, "transB", 0):
        array = array.T
    name = weight.name or ""
    integers, scale = quantize_weight(np.ascontiguousarray(array), None if per_tensor else 1)
    stored = graph.add_initializer(main, f"{name}_q", integers)
    zero = graph.add_initializer(main, "zero_point_s8", np.zeros((), np.int8))
    weight_scale = graph.add_initializer(main, f"{name}_s", scale)
    new: list[ir.Node] = []

    def add(op: str, inputs: list[ir.Value | None], out: str, to: int | None = None) -> ir.Value:
        created = ir.node(op, inputs, None if to is None else {"to": to}, name=f"{node.name}_{out}")
        created.outputs[0].name = f"{node.name}_{out}"
        new.append(created)
        return created.outputs[0]

    if value not in quantized:
        dynamic = ir.node("DynamicQuantizeLinear", [value], num_outputs=3, name=f"{value.name}_dynamic")
        for result, suffix in zip(dynamic.outputs, ("q", "s", "z"), strict=True):
            result.name = f"{value.name}_{suffix}"
        new.append(dynamic)
        quantized[value] = tuple(dynamic.outputs)
    q, s, z = quantized[value]
    product = add("Cast", [add("MatMulInteger", [q, stored, z, zero], "integer")], "cast", to=int(ir.DataType.FLOAT))
    result = add("Mul", [product, add("Mul", [s, weight_scale], "scale")], "scaled")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        result = add("Add", [result, bias], "biased")
    main.insert_before(node, new)
    result.shape, result.type = output.shape, output.type
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    result.name = output.name
    output.name = None
    main.remove(node, safe=True)


def _lstm(model: ir.Model, node: ir.Node, options: QuantizeOptions) -> str | None:
    """Turn an LSTM into onnxruntime's DynamicQuantizeLSTM; return why not, or None when done."""
    if not options.selects(node.name or ""):
        return "excluded by include/exclude"
    if node.graph is not model.graph:
        return "inside a subgraph (If, Loop or Scan)"
    arrays = [graph.constant(value) for value in node.inputs[1:3]]
    if any(array is None or array.dtype != np.float32 for array in arrays):
        return "its weights are computed at run time or not float32"
    if node.attributes.get_int("layout", 0):
        return "layout=1 has no int8 kernel"
    extra: list[ir.Value] = []
    for index, array in enumerate(arrays, start=1):
        assert array is not None and node.inputs[index] is not None  # noqa: S101
        name = node.inputs[index].name or ""  # type: ignore[union-attr]
        # The kernel wants [directions, inputs, 4·hidden] and scales per direction, or per direction and column.
        columns = np.ascontiguousarray(array.transpose(0, 2, 1))
        pairs = [quantize_weight(direction, None if options.per_tensor else 1) for direction in columns]
        integers, scale = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
        node.replace_input_with(index, graph.add_initializer(model.graph, f"{name}_q", integers))
        extra.append(graph.add_initializer(model.graph, f"{name}_s", scale))
        extra.append(graph.add_initializer(model.graph, f"{name}_z", np.zeros(scale.shape, np.int8)))
    inputs = [*node.inputs, *[None] * (8 - len(node.inputs)), *extra]
    attributes = {key: value for key, value in node.attributes.items() if key != "layout"}
    outputs = list(node.outputs)
    replacement = ir.Node(
        MICROSOFT, "DynamicQuantizeLSTM", inputs, attributes.values(), num_outputs=len(outputs), name=node.name
    )
    for old, new in zip(outputs, replacement.outputs, strict=True):
        new.shape, new.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name, old.name = old.name, None
    model.graph.insert_before(node, replacement)
    model.graph.remove(node, safe=True)
    model.opset_imports[MICROSOFT] = 1
    return None
