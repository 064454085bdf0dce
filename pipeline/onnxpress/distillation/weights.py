"""Quantized weights as parameters: floats that are trained, seen by the graph through their integer grid."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxpress import graph
from onnxpress.distillation.operators.quantized import LIMITS, along, rounded


class QuantizedWeight(nn.Module):
    """An integer initializer and its DequantizeLinear: latent float weights, rounded to their grid in each pass.

    The scales are learned too, each as a factor of its first value (its logarithm is the parameter, so that it stays
    positive and a step changes a small scale as much as a large one).
    """

    zero: Tensor | None
    first_scale: Tensor

    def __init__(self, node: ir.Node) -> None:
        super().__init__()
        integers, scale, zero = (graph.constant(value) for value in (*node.inputs, None)[:3])
        source = node.inputs[0]
        assert integers is not None and scale is not None and source is not None and source.name  # noqa: S101
        assert source.const_value is not None  # noqa: S101
        self.name = source.name
        self.scale_name = node.inputs[1].name if node.inputs[1] is not None else None
        self.axis, self.block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
        whole = torch.from_numpy(integers.astype("float32"))
        self.register_buffer("first_scale", torch.from_numpy(scale.astype("float32")))
        self.register_buffer("zero", None if zero is None else torch.from_numpy(zero.astype("float32")))
        self.low, self.high = self._limits(whole, source.const_value.dtype)
        self.latent = nn.Parameter((whole - self._zeros(whole)) * self._along(self.first_scale, whole))
        self.log_scale = nn.Parameter(torch.zeros_like(self.first_scale))

    def forward(self) -> Tensor:
        """Return the weight as the graph sees it."""
        return (self.integers() - self._zeros(self.latent)) * self._along(self.scale(), self.latent)

    def integers(self) -> Tensor:
        """Return the whole numbers that are stored, as floats."""
        steps = rounded(self.latent / self._along(self.scale(), self.latent))
        return torch.clamp(steps + self._zeros(self.latent), self.low, self.high)

    def scale(self) -> Tensor:
        """Return the present scales, shaped as they are stored."""
        return self.first_scale * self.log_scale.exp()

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
        integers, scale = (graph.constant(value) for value in node.inputs[:2])
        assert integers is not None and scale is not None and node.inputs[0] is not None  # noqa: S101
        self.name = node.inputs[0].name or ""
        self.scale_name = node.inputs[1].name if node.inputs[1] is not None else None
        self.latent = nn.Parameter(torch.from_numpy((integers * scale).astype("float32")))

    def forward(self) -> Tensor:
        """Return the bias."""
        return self.latent
