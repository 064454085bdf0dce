"""Quantized weights, made once: a search rewrites a model hundreds of times and pays for each weight once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.quantization.pairs import limits
from onnxpress.quantization.params import Array, WeightGrid, along, dequantize_weight, quantize_weight
from onnxpress.quantization.rounding import Reconstruction

FACTORS = np.linspace(1, 2, 9)
"""By how much a scale may grow: with twice the scale no pair of 7 bits saturates."""


class Weights:
    """Integers and scales by weight tensor (clones of a model share theirs), axis and bounds.

    Args:
        limited: Weights of which no pair may saturate, with the nodes that read them (see `saturation.limited`).
        rounding: What rounds the weights that it knows; nearest rounding without it.
    """

    def __init__(
        self,
        limited: Mapping[ir.TensorProtocol, Sequence[ir.Node]] | None = None,
        rounding: Reconstruction | None = None,
    ) -> None:
        self.limited = limited or {}
        self._rounding = rounding or Reconstruction()
        self._made: dict[tuple[ir.TensorProtocol, int | None, WeightGrid, str], tuple[Array, Array]] = {}

    def quantize(
        self,
        tensor: ir.TensorProtocol,
        axis: int | None,
        grid: WeightGrid,
        *,
        floor: Array | None = None,
        transpose: bool = False,
    ) -> tuple[Array, Array]:
        """Return `quantize_weight` of a tensor, from memory where it was made before.

        Args:
            tensor: The float weight.
            axis: The axis of output channels in the tensor; None for one scale in all.
            grid: The integers to use.
            floor: Smallest scale allowed for each channel. It seldom binds, and then the same integers serve.
            transpose: Return the integers with their axes reversed.
        """
        key = tensor, axis, grid, "transposed" if transpose else "plain"
        if key not in self._made:
            made = self.quantize(tensor, axis, grid) if transpose else self._rounded(tensor, axis, grid, None)
            self._made[key] = (np.ascontiguousarray(made[0].T) if transpose else made[0]), made[1]
        if floor is None or (self._made[key][1] >= floor).all():
            return self._made[key]
        integers, scale = self._rounded(tensor, axis, grid, floor)
        return (np.ascontiguousarray(integers.T) if transpose else integers), scale

    def dequantized(self, tensor: ir.TensorProtocol, axis: int | None, grid: WeightGrid) -> Array:
        """Return the float32 weight that the integers of `quantize` stand for."""
        signed = WeightGrid(bits=grid.bits)  # the same numbers, however they are stored
        return dequantize_weight(*self.quantize(tensor, axis, signed), axis)

    def _rounded(
        self, tensor: ir.TensorProtocol, axis: int | None, grid: WeightGrid, floor: Array | None
    ) -> tuple[Array, Array]:
        nearest, scale = quantize_weight(tensor.numpy(), axis, grid, floor)
        if tensor in self.limited:
            return self._within_pairs(tensor, axis, grid, scale)
        found = self._rounding.integers(tensor, axis, scale, grid)
        return nearest if found is None else found, scale

    def _within_pairs(
        self, tensor: ir.TensorProtocol, axis: int | None, grid: WeightGrid, scale: Array
    ) -> tuple[Array, Array]:
        """Round a weight so that no pair of it saturates.

        Large neighbours are clipped, or the scale of their channel is coarser: of `FACTORS` the one that loses least.
        """
        weight, known = tensor.numpy().astype(np.float64), self._rounding.knows(tensor, axis)
        energy = self._rounding.energy(tensor) if known else np.ones(1)
        others = tuple(i for i in range(weight.ndim) if i != axis)
        losses = []
        for factor in FACTORS:
            steps = along(scale * factor, axis, weight.ndim)
            errors = weight - np.clip(*self._nearest(tensor, weight / steps, grid)) * steps
            losses.append((energy * errors**2).sum(axis=others))
        scale = (scale * FACTORS[np.argmin(losses, axis=0)]).astype(np.float32)
        steps = np.broadcast_to(along(scale, axis, weight.ndim), weight.shape)
        nearest, lowest, highest = self._nearest(tensor, weight / steps, grid)
        found = self._rounding.steps(tensor, steps, lowest, highest) if known else None
        return (np.clip(nearest, lowest, highest) if found is None else found).astype(grid.zero_point.dtype), scale

    def _nearest(self, tensor: ir.TensorProtocol, steps: Array, grid: WeightGrid) -> tuple[Array, Array, Array]:
        """Return (nearest integers, lowest, highest): of each weight, where no pair may saturate."""
        nearest = np.clip(np.rint(steps), -grid.limit, grid.limit)
        lowest, highest = limits(nearest.astype(np.int64), self.limited[tensor])
        return nearest, np.maximum(lowest, -grid.limit), np.minimum(highest, grid.limit)

    def recurrent(self, tensor: ir.TensorProtocol, grid: WeightGrid, *, per_tensor: bool) -> tuple[Array, Array]:
        """Return the weight of an LSTM as its int8 kernel wants it.

        Args:
            tensor: The float weight, [directions, 4·hidden, inputs].
            grid: The integers to use.
            per_tensor: One scale per direction instead of one per direction and column.

        Returns:
            (int8 [directions, inputs, 4·hidden], float32 scales [directions] or [directions, 4·hidden]).
        """
        key = tensor, None if per_tensor else 1, grid, "recurrent"
        if key not in self._made:
            pairs = [
                quantize_weight(np.ascontiguousarray(direction.T), None if per_tensor else 1, grid)
                for direction in tensor.numpy()
            ]
            self._made[key] = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
        return self._made[key]
