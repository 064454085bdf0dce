"""Dynamic int8: weights stored as int8, activation ranges computed in each run.

``MatMul(x, W)`` becomes, in standard ONNX::

    q, s, z = DynamicQuantizeLinear(x)
    y = Cast(MatMulInteger(q, W_int8, z)) * (s · W_scale)

which onnxruntime fuses to one DynamicQuantizeMatMul kernel, bias included. An LSTM becomes onnxruntime's
DynamicQuantizeLSTM. A Conv stays float: ConvInteger runs 4 to 13 times slower than float, and onnxruntime cannot run
every form of it (microsoft/onnxruntime#15888).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit, Skip
from onnxpress.graph import MICROSOFT
from onnxpress.quantization import embedding, placement
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import WeightGrid
from onnxpress.quantization.placement import refusal
from onnxpress.quantization.saturation import limited
from onnxpress.quantization.weights import Weights


def write(
    model: ir.Model, selects: Callable[[str], bool], options: QuantizeOptions, weights: Weights | None = None
) -> Edit:
    """Quantize a prepared model dynamically, in place; what `static.write` has quantized before stays.

    Args:
        model: A prepared model, bodies of If and Loop included.
        selects: Tells from a node's name whether it may become dynamic int8.
        options: How to write.
        weights: Integers made before, when the same model (or its clones) is written again with other decisions; by
            default such that no pair saturates on any CPU that may serve.
    """
    weights = weights or limited(model, options)
    writer = _Writer(model.graph, weights, options.grid, per_tensor=options.per_tensor)
    changed: list[str] = []
    skipped: list[Skip] = []
    for node in list(graph.nodes(model)):
        reason = refusal(node, selects)
        if node.op_type == "LSTM" and node.domain in graph.ONNX_DOMAINS:
            reason = lstm_refusal(node, selects)
            if reason is None:
                writer.lstm(node)
                model.opset_imports[MICROSOFT] = 1
        elif reason is None and node.op_type == "Conv":
            reason = "dynamic int8 convolutions (ConvInteger) are slower than float; use static"
        elif reason is None:
            writer.matmul(node)
        if reason:
            skipped.append(Skip(where=node.name or "", op=node.op_type, reason=reason))
        elif reason is None:
            changed.append(node.name or "")
    found = placement.tables(model, selects)
    tables = embedding.quantize(model.graph, found, weights, per_tensor=options.per_tensor, bits=options.bits)
    placement.remove_unused(model)
    facts = {"int8_nodes": len(changed), "int8_tables": len(tables), "saturation_avoided": sorted(weights.avoided)}
    return Edit(model=model, changed=(*changed, *tables), skipped=tuple(skipped), facts=facts)


def lstm_refusal(node: ir.Node, selects: Callable[[str], bool]) -> str | None:
    """Return why an LSTM cannot become onnxruntime's DynamicQuantizeLSTM; None when it can."""
    if not selects(node.name or ""):
        return "excluded by include/exclude"
    tensors = [graph.constant_tensor(value) for value in node.inputs[1:3]]
    if any(tensor is None or tensor.dtype != ir.DataType.FLOAT for tensor in tensors):
        return "its weights are computed at run time or not float32"
    if node.attributes.get_int("layout", 0):
        return "layout=1 has no int8 kernel"
    return None


class _Writer:
    """Replaces nodes where they are; integers become initializers of the main graph, which every body sees."""

    def __init__(self, main: ir.Graph, weights: Weights, grid: WeightGrid, *, per_tensor: bool) -> None:
        self.main = main
        self.weights = weights
        self.grid = grid
        self.per_tensor = per_tensor
        self.quantized: dict[tuple[ir.Value, ir.Graph], tuple[ir.Value, ...]] = {}
        """An activation is quantized once in each graph that reads it."""

    def matmul(self, node: ir.Node) -> None:
        """Replace a MatMul or Gemm with a constant weight."""
        value, weight, output, home = node.inputs[0], node.inputs[1], node.outputs[0], node.graph
        tensor = graph.constant_tensor(weight)
        assert value is not None and weight is not None and tensor is not None  # noqa: S101 - not refused
        assert isinstance(home, ir.Graph)  # noqa: S101 - functions are inlined in a prepared model
        transpose = bool(node.op_type == "Gemm" and graph.attribute_int(node, "transB", 0))
        axis = None if self.per_tensor else 1 - transpose
        integers, scale = self.weights.quantize(tensor, axis, self.grid, transpose=transpose)
        name = f"{weight.name}_t" if transpose else weight.name or ""
        stored = graph.add_initializer(self.main, f"{name}_dynamic_q", integers)
        zero = graph.add_initializer(self.main, f"zero_point_{integers.dtype}", np.asarray(self.grid.zero_point))
        weight_scale = graph.add_initializer(self.main, f"{name}_dynamic_s", scale)
        new: list[ir.Node] = []

        def add(op: str, inputs: list[ir.Value | None], out: str, to: int | None = None) -> ir.Value:
            created = ir.node(op, inputs, None if to is None else {"to": to}, name=f"{node.name}_{out}")
            created.outputs[0].name = f"{node.name}_{out}"
            new.append(created)
            return created.outputs[0]

        if (value, home) not in self.quantized:
            dynamic = ir.node("DynamicQuantizeLinear", [value], num_outputs=3, name=f"{value.name}_dynamic")
            for result, suffix in zip(dynamic.outputs, ("q", "s", "z"), strict=True):
                result.name = f"{node.name}_x_{suffix}"
            new.append(dynamic)
            self.quantized[value, home] = tuple(dynamic.outputs)
        q, s, z = self.quantized[value, home]
        product = add("MatMulInteger", [q, stored, z, zero], "integer")
        product = add("Cast", [product], "cast", to=int(ir.DataType.FLOAT))
        result = add("Mul", [product, add("Mul", [s, weight_scale], "scale")], "scaled")
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            result = add("Add", [result, bias], "biased")
        home.insert_before(node, new)
        result.shape, result.type = output.shape, output.type
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        result.name = output.name
        output.name = None
        home.remove(node, safe=True)

    def lstm(self, node: ir.Node) -> None:
        """Replace an LSTM; the kernel wants weights as [directions, inputs, 4·hidden]."""
        home = node.graph
        assert home is not None  # noqa: S101 - `graph.nodes` found it there
        extra: list[ir.Value] = []
        for index in (1, 2):
            value = node.inputs[index]
            tensor = graph.constant_tensor(value)
            assert value is not None and tensor is not None  # noqa: S101 - not refused
            integers, scale = self.weights.recurrent(tensor, self.grid, per_tensor=self.per_tensor)
            node.replace_input_with(index, graph.add_initializer(self.main, f"{value.name}_q", integers))
            extra.append(graph.add_initializer(self.main, f"{value.name}_s", scale))
            extra.append(
                graph.add_initializer(self.main, f"{value.name}_z", np.full(scale.shape, self.grid.zero_point))
            )
        inputs = [*node.inputs, *[None] * (8 - len(node.inputs)), *extra]
        attributes = [attribute for key, attribute in node.attributes.items() if key != "layout"]
        outputs = list(node.outputs)
        replacement = ir.Node(
            MICROSOFT, "DynamicQuantizeLSTM", inputs, attributes, num_outputs=len(outputs), name=node.name
        )
        for old, new in zip(outputs, replacement.outputs, strict=True):
            new.shape, new.type = old.shape, old.type
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            new.name, old.name = old.name, None
        home.insert_before(node, replacement)
        home.remove(node, safe=True)
