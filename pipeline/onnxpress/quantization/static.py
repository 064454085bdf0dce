"""Static int8: ranges fixed from calibration data, written as QuantizeLinear / DequantizeLinear pairs (QDQ).

QDQ says what is computed in standard ONNX and leaves the kernels to the runtime: onnxruntime fuses
``DQ → Conv → Relu → Q`` to one QLinearConv, other runtimes do likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit
from onnxpress.graph import MICROSOFT
from onnxpress.quantization import embedding, qoperator
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import (
    ActivationParams,
    Array,
    activation_params,
    bias_floor,
    quantize_bias,
)
from onnxpress.quantization.placement import ABSORBS, Placement, remove_unused
from onnxpress.quantization.saturation import limited
from onnxpress.quantization.weights import Weights


def write(
    model: ir.Model,
    placement: Placement,
    ranges: Mapping[str, tuple[float, float]],
    options: QuantizeOptions,
    weights: Weights | None = None,
) -> Edit:
    """Write the decisions of a placement into its model.

    Args:
        model: A prepared model that `placement` was made for. It is changed in place.
        placement: Which nodes and tensors become int8.
        ranges: (low, high) by the name of each tensor in ``placement.measured``.
        options: How to write; which nodes is the placement's business.
        weights: Integers made before, when the same model (or its clones) is written again with other decisions; by
            default such that no pair saturates on any CPU that may serve.
    """
    weights = weights or limited(model, options)
    params = {
        value: activation_params(*ranges[value.name or ""], options.activations, symmetric=options.symmetric)
        for value in placement.measured
    }
    writer = _Writer(model, {value: params[source] for value, source in placement.quantized.items()}, options, weights)
    for node in placement.weighted:
        writer.weighted(node)
    for node in placement.others:
        writer.other(node)
    writer.activations({*placement.weighted, *placement.others})
    tables = embedding.quantize(
        model.graph, placement.tables, weights, per_tensor=options.per_tensor, bits=options.bits
    )
    if options.format == "qoperator":
        qoperator.rewrite(model, (*placement.weighted, *placement.others))
    remove_unused(model)
    changed = [node.name or "" for node in (*placement.weighted, *placement.others)]
    return Edit(
        model=model,
        changed=(*changed, *tables),
        skipped=placement.skipped,
        facts={
            "int8_nodes": len(changed),
            "int8_tables": len(tables),
            "quantized_tensors": len(placement.quantized),
            "saturation_avoided": sorted(weights.avoided),
        },
    )


class _Writer:
    """Inserts the pairs into one graph. Names follow from what they belong to: equal inputs, equal files."""

    def __init__(
        self, model: ir.Model, params: Mapping[ir.Value, ActivationParams], options: QuantizeOptions, weights: Weights
    ) -> None:
        self.graph = model.graph
        self.params = params
        self.options = options
        self.weights = weights
        self.domain = ""
        """Of the pairs: the standard's have 16 bits only since opset 21, onnxruntime's own in any."""
        if options.activations in ("uint16", "int16") and graph.opset(model) < 21:
            self.domain = MICROSOFT
            model.opset_imports[MICROSOFT] = 1
        self.stored: dict[tuple[ir.Value, bytes], ir.Value] = {}
        """Tied weights are stored once: (float weight, scales) to the dequantized value."""

    def weighted(self, node: ir.Node) -> None:
        """Quantize weight and bias of a Conv, Gemm or MatMul."""
        facts = graph.weighted(node)
        assert facts is not None and node.inputs[0] is not None  # noqa: S101 - placement chose it for that
        weight, input_scale = node.inputs[facts.weight], self.params[node.inputs[0]].scale
        bias = node.inputs[facts.bias] if facts.bias is not None and len(node.inputs) > facts.bias else None
        tensor, bias_array = graph.constant_tensor(weight), graph.constant(bias)
        assert weight is not None and tensor is not None  # noqa: S101
        axis = None if self.options.per_tensor else facts.out_axis % len(tensor.shape)
        floor = None if bias_array is None else bias_floor(bias_array, input_scale)
        integers, scale = self.weights.quantize(tensor, axis, self.options.grid, floor=floor)
        key = weight, scale.tobytes()
        if key not in self.stored:
            name = f"{weight.name}_{node.name}" if f"{weight.name}_q" in self.graph.initializers else weight.name or ""
            zero = self._weight_zero(node, scale)
            self.stored[key] = self._dequantized(name, integers, scale, axis, before=node, zero=zero)
        node.replace_input_with(facts.weight, self.stored[key])
        if bias is not None and bias_array is not None and facts.bias is not None:
            integers, bias_scale = quantize_bias(bias_array, input_scale, scale)
            bias_axis = None if bias_scale.ndim == 0 else 0
            name = f"{bias.name}_{node.name}" if f"{bias.name}_q" in self.graph.initializers else bias.name or ""
            node.replace_input_with(facts.bias, self._dequantized(name, integers, bias_scale, bias_axis, before=node))

    def other(self, node: ir.Node) -> None:
        """Quantize the constant operands of a pointwise node on their own exact range."""
        if node.op_type not in ("Add", "Mul", "Concat"):
            return
        for index, value in enumerate(node.inputs):
            array = graph.constant(value)
            if value is None or array is None:
                continue
            low, high = float(array.min(initial=0)), float(array.max(initial=0))
            params = activation_params(low, high, self.options.activations, symmetric=self.options.symmetric)
            name, zero = f"{node.name}_{index}", self._zero(params.zero_point)
            constant = self._dequantized(
                name, params.quantize(array), np.asarray(params.scale), None, before=node, zero=zero, domain=self.domain
            )
            node.replace_input_with(index, constant)

    def activations(self, chosen: set[ir.Node]) -> None:
        """Put a pair behind every quantized tensor and let its int8 readers, or all of them, read through it.

        A tensor made by an int8 kernel exists only as int8: float readers get it dequantized. One made by a float node
        (or a graph input) keeps its float readers.
        """
        for value, params in self.params.items():
            producer = value.producer()
            is_int8 = producer is not None and (producer in chosen or _absorbed_by(producer, chosen))
            readers = [use for use in value.uses() if is_int8 or use.node in chosen]
            output_at = [i for i, output in enumerate(self.graph.outputs) if output is value]
            name = value.name or ""
            if is_int8 and output_at:
                value.name = f"{name}_f"
            scale = graph.add_initializer(self.graph, f"{name}_s", np.asarray(params.scale))
            zero = self._zero(params.zero_point)
            quantize = ir.node("QuantizeLinear", [value, scale, zero], domain=self.domain, name=f"{name}_q")
            dequantize = ir.node(
                "DequantizeLinear", [quantize.outputs[0], scale, zero], domain=self.domain, name=f"{name}_dq"
            )
            back = dequantize.outputs[0]
            quantize.outputs[0].name, back.name = f"{name}_q", f"{name}_dq"
            if producer is None:
                self.graph.insert_before(self.graph[0], [quantize, dequantize])
            else:
                self.graph.insert_after(producer, [quantize, dequantize])
            for use in readers:
                use.node.replace_input_with(use.idx, back)
            if is_int8:
                for index in output_at:
                    back.name, back.shape, back.dtype = name, value.shape, ir.DataType.FLOAT
                    self.graph.outputs[index] = back

    def _dequantized(
        self,
        name: str,
        integers: Array,
        scale: Array,
        axis: int | None,
        *,
        before: ir.Node,
        zero: ir.Value | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Store integers as an initializer, and return the value that a DequantizeLinear makes of them."""
        inputs = [
            graph.add_initializer(self.graph, f"{name}_q", integers),
            graph.add_initializer(self.graph, f"{name}_s", scale),
        ]
        if zero is not None:
            inputs.append(zero)
        attributes = {} if axis is None else {"axis": axis}
        node = ir.node("DequantizeLinear", inputs, attributes, domain=domain, name=f"{name}_dq")
        node.outputs[0].name = f"{name}_dq"
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _zero(self, zero_point: np.integer[Any]) -> ir.Value:
        return graph.add_initializer(self.graph, f"zero_point_{zero_point.dtype}_{zero_point}", np.asarray(zero_point))

    def _weight_zero(self, node: ir.Node, scale: Array) -> ir.Value | None:
        """Return explicit zeros: onnxruntime fuses Gemm and MatMul only when the weight has a zero point."""
        zero = self.options.grid.zero_point
        if node.op_type == "Conv" and not zero:
            return None
        suffix = "" if scale.ndim == 0 else f"_{len(scale)}"
        return graph.add_initializer(self.graph, f"zero_points_{zero.dtype}{suffix}", np.full(scale.shape, zero))


def _absorbed_by(node: ir.Node, chosen: set[ir.Node]) -> bool:
    """Tell whether a Relu or Clip runs inside the int8 kernel before it."""
    if node.op_type not in ("Relu", "Clip") or node.inputs[0] is None:
        return False
    producer = node.inputs[0].producer()
    return producer in chosen and producer is not None and producer.op_type in ABSORBS
