"""Quantized weights as parameters: floats that are trained, seen by the graph through their integer grid.

Two forms are understood: integers behind a DequantizeLinear, and integers behind ``Cast → Mul`` (weight-only models).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxpress import graph
from onnxpress.distillation.operators.quantized import LIMITS, along, rounded
from onnxpress.graph import Array

LEAST_FACTOR = 0.1
"""Of a scale: it stays positive."""


class QuantizedWeight(nn.Module):
    """An integer initializer with its scales: latent float weights, rounded to their grid in each pass.

    The scales are learned too, each as a factor of its first value: a step changes a small one as much as a large one.
    """

    zero: Tensor | None
    first_scale: Tensor

    def __init__(self, node: ir.Node) -> None:
        """Read the node that turns the integers to floats: a DequantizeLinear, or the Mul of ``Cast → Mul``."""
        super().__init__()
        self.node = node
        self.stored, self.scales, zero = _sources(node)
        integers, scale, zeros = (graph.constant(value) for value in (self.stored, self.scales, zero))
        assert integers is not None and scale is not None and self.stored.dtype is not None  # noqa: S101
        self.name = self.stored.name or ""
        self.axis, self.block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
        whole = channels_last(torch.from_numpy(integers.astype(np.float32)))
        self.register_buffer("first_scale", torch.from_numpy(np.array(scale, np.float32)))
        self.register_buffer("zero", None if zeros is None else torch.from_numpy(zeros.astype(np.float32)))
        self.low, self.high = self._limits(whole, self.stored.dtype)
        self.latent = nn.Parameter((whole - self._zeros(whole)) * self._along(self.first_scale, whole))
        self.factor = nn.Parameter(torch.ones_like(self.first_scale))

    def forward(self) -> Tensor:
        """Return the weight as the graph sees it."""
        return (self.integers() - self._zeros(self.latent)) * self._along(self.scale(), self.latent)

    def integers(self) -> Tensor:
        """Return the whole numbers that are stored, as floats."""
        steps = rounded(self.latent / self._along(self.scale(), self.latent))
        return torch.clamp(steps + self._zeros(self.latent), self.low, self.high)

    def scale(self) -> Tensor:
        """Return the present scales, shaped as they are stored."""
        return self.first_scale * self.factor.clamp_min(LEAST_FACTOR)

    def _along(self, values: Tensor, like: Tensor) -> Tensor:
        return along(values, like, self.axis, self.block)

    def _zeros(self, like: Tensor) -> Tensor:
        return torch.zeros((), device=like.device) if self.zero is None else self._along(self.zero, like)

    def _limits(self, integers: Tensor, kind: ir.DataType) -> tuple[int, int]:
        """Return the grid: that of the type, or a narrower symmetric one of 2^k levels where all integers fit into it.

        Six bits are stored as int8, too, and must stay six.
        """
        low, high = LIMITS[kind]
        if low == 0 or (self.zero is not None and bool(self.zero.any())):
            return low, high
        most, least = int(integers.max()), int(integers.min())
        reach = max(most, -least - 1, 1)
        top = 2 ** reach.bit_length() - 1
        return (-top - 1 if least == -top - 1 else -top), top


class QuantizedBias(nn.Module):
    """An int32 bias: its grid is that of the accumulator, so fine that it trains as the float it stands for."""

    def __init__(self, node: ir.Node) -> None:
        super().__init__()
        self.node = node
        self.stored, self.scales, _ = _sources(node)
        integers, scale = graph.constant(self.stored), graph.constant(self.scales)
        assert integers is not None and scale is not None  # noqa: S101
        self.name = self.stored.name or ""
        self.latent = nn.Parameter(torch.from_numpy((integers * scale).astype(np.float32)))

    def forward(self) -> Tensor:
        """Return the bias."""
        return self.latent


def is_quantized(node: ir.Node) -> bool:
    """Tell whether a node turns integer initializers to floats: a DequantizeLinear, or the Mul of ``Cast → Mul``."""
    if node.domain not in graph.ONNX_DOMAINS or node.op_type not in ("DequantizeLinear", "Mul"):
        return False
    if node.op_type == "DequantizeLinear":
        return all(graph.constant_tensor(value) is not None for value in node.inputs if value is not None)
    cast = None if node.inputs[0] is None else node.inputs[0].producer()
    if cast is None or cast.op_type != "Cast" or graph.constant_tensor(node.inputs[1]) is None:
        return False
    tensor = graph.constant_tensor(cast.inputs[0])
    return tensor is not None and tensor.dtype in LIMITS


def quantized(node: ir.Node) -> QuantizedWeight | QuantizedBias:
    """Return the parameters behind such a node."""
    return (QuantizedBias if _sources(node)[0].dtype == ir.DataType.INT32 else QuantizedWeight)(node)


def write(
    model: ir.Model, weights: Mapping[str, nn.Parameter], stored: Sequence[QuantizedWeight | QuantizedBias]
) -> None:
    """Put trained weights back into the graph they were read from, in the types they had."""
    for name, parameter in weights.items():
        value = model.graph.initializers[name]
        assert value.dtype is not None  # noqa: S101
        _store(value, _array(parameter).astype(value.dtype.numpy()))
    before = {each.node: each.first_scale.cpu().numpy() for each in stored if isinstance(each, QuantizedWeight)}
    after = {each.node: _array(each.scale()) for each in stored if isinstance(each, QuantizedWeight)}
    for each in stored:
        if isinstance(each, QuantizedWeight):
            assert each.stored.dtype is not None  # noqa: S101
            _store(each.stored, _array(each.integers()).astype(each.stored.dtype.numpy()))
            _replace(model.graph, each, after[each.node])
    for each in stored:
        if isinstance(each, QuantizedBias):
            scale = graph.constant(each.scales)
            assert scale is not None  # noqa: S101
            factor = _change(each.node, before, after)
            scale = (scale * factor).astype(scale.dtype)
            whole = np.clip(np.round(_array(each.latent).astype(np.float64) / scale), -(2**31), 2**31 - 1)
            _store(each.stored, whole.astype(np.int32))
            _replace(model.graph, each, scale)


def _change(bias: ir.Node, before: Mapping[ir.Node, Array], after: Mapping[ir.Node, Array]) -> Array:
    """Return by how much a bias' scales change: as those of the weight beside it, for their product is the accumulator.

    The scale of a bias is that of the input times that of the weight, and kernels rely on it.
    """
    for use in bias.outputs[0].uses():
        for value in use.node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer in before:
                return after[producer] / before[producer]
    return np.ones((), np.float32)


def _sources(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Return (integers, scales, zero points) of a node that makes floats of them."""
    first, scales = node.inputs[0], node.inputs[1]
    assert first is not None and scales is not None  # noqa: S101 - `quantized` looked
    if node.op_type == "Mul":
        cast = first.producer()
        assert cast is not None and cast.inputs[0] is not None  # noqa: S101
        return cast.inputs[0], scales, None
    return first, scales, node.inputs[2] if len(node.inputs) > 2 else None


def _store(value: ir.Value, array: Array) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array), dtype=value.dtype, name=value.name)


def _replace(main: ir.Graph, each: QuantizedWeight | QuantizedBias, scale: Array) -> None:
    """Give a node its own new scales: the present ones may be shared with nodes whose scales stay."""
    old = each.scales
    if len(old.uses()) == 1:
        _store(old, scale.reshape(tuple(old.const_value.shape) if old.const_value is not None else scale.shape))
        return
    added = graph.add_initializer(main, f"{each.name}_distilled_scale", scale.astype(np.float32))
    each.node.replace_input_with(1, added)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().contiguous().numpy()
    return array


def channels_last(tensor: Tensor) -> Tensor:
    """Lay the weight of a 2-D convolution out channel by channel: a third faster or more on CPUs and GPUs."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
