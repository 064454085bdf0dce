"""Twins: copies of a node that compute, inside the float graph, what int8 would make of it.

They let one run of the float model measure many roundings at once, on the float model's own activations, and hand back
sums instead of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import activation_params
from onnxpress.quantization.weights import Weights


class Twins:
    """Adds nodes beside those of a graph."""

    def __init__(self, model: ir.Model, options: QuantizeOptions, weights: Weights | None = None) -> None:
        self.graph = model.graph
        self.options = options
        self.weights = weights or Weights()
        self._rounded: dict[tuple[ir.Value, str], ir.Value] = {}

    def weight(self, node: ir.Node) -> ir.Value:
        """Return the weight of a Conv, Gemm or MatMul, rounded to its grid."""
        facts = graph.weighted(node)
        tensor = None if facts is None else graph.constant_tensor(node.inputs[facts.weight])
        assert facts is not None and tensor is not None  # noqa: S101 - placement chose it for that
        axis = None if self.options.per_tensor else facts.out_axis % len(tensor.shape)
        rounded = self.weights.dequantized(tensor, axis, self.options.grid)
        return graph.add_initializer(self.graph, f"{node.name}_twin_weight", rounded)

    def static(self, value: ir.Value, ends: tuple[float, float]) -> ir.Value:
        """Return a value rounded to the grid of a fixed range (16 bits round off nothing that counts)."""
        if self.options.levels > 256:
            return value
        if (value, "static") not in self._rounded:
            params = activation_params(*ends, self.options.activations, symmetric=self.options.symmetric)
            name = f"{value.name}_static"
            scale = graph.add_initializer(self.graph, f"{name}_s", np.asarray(params.scale))
            zero = graph.add_initializer(self.graph, f"{name}_z", np.asarray(params.zero_point))
            integers = self.add("QuantizeLinear", [value, scale, zero], f"{name}_q", after=value.producer())
            self._rounded[value, "static"] = self.add(
                "DequantizeLinear", [integers, scale, zero], f"{name}_dq", after=integers.producer()
            )
        return self._rounded[value, "static"]

    def dynamic(self, value: ir.Value) -> ir.Value:
        """Return a value rounded to the uint8 grid of its own range."""
        if (value, "dynamic") not in self._rounded:
            name = f"{value.name}_dynamic"
            made = self.add("DynamicQuantizeLinear", [value], f"{name}_q", after=value.producer(), outputs=3)
            node = made.producer()
            assert node is not None  # noqa: S101
            self._rounded[value, "dynamic"] = self.add("DequantizeLinear", node.outputs, f"{name}_dq", after=node)
        return self._rounded[value, "dynamic"]

    def copy(self, node: ir.Node, name: str, replaced: Mapping[int, ir.Value], *, after: ir.Node | None) -> ir.Value:
        """Add the same operator with some inputs replaced."""
        inputs = [replaced.get(index, value) for index, value in enumerate(node.inputs)]
        return self.add(node.op_type, inputs, name, after=after, attributes=dict(node.attributes))

    def add(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        after: ir.Node | None,
        attributes: Mapping[str, Any] | None = None,
        outputs: int = 1,
    ) -> ir.Value:
        """Add a node behind another (None: at the start) and return its first output."""
        node = ir.node(op, inputs, attributes, num_outputs=outputs, name=name)
        for position, value in enumerate(node.outputs):
            value.name = name if position == 0 else f"{name}_{position}"
        if after is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(after, node)
        return node.outputs[0]


def activation(node: ir.Node) -> ir.Value:
    """Return what a weighted node multiplies its weight with."""
    value = node.inputs[0]
    assert value is not None  # noqa: S101 - the operator requires it
    return value
