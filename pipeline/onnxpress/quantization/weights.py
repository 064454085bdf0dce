"""Quantized weights, made once: a search rewrites a model hundreds of times and pays for each weight once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxpress.quantization.params import Array, WeightGrid, dequantize_weight, quantize_weight
from onnxpress.quantization.rounding import Reconstruction


class Weights:
    """Integers and scales by weight tensor (clones of a model share theirs), axis and bounds.

    Args:
        floors: Smallest scales of some weights, [channels]; all their integers keep to them, rounded to nearest.
        rounding: What rounds the other weights that it knows; nearest rounding without it.
    """

    def __init__(
        self, floors: Mapping[ir.TensorProtocol, Array] | None = None, rounding: Reconstruction | None = None
    ) -> None:
        self._floors = floors or {}
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
            integers, scale = self._rounded(tensor, axis, grid, self._floors.get(tensor))
            self._made[key] = (np.ascontiguousarray(integers.T) if transpose else integers), scale
        if floor is None or (self._made[key][1] >= floor).all():
            return self._made[key]
        floor = np.maximum(floor, self._floors.get(tensor, floor))
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
        found = None if tensor in self._floors else self._rounding.integers(tensor, axis, scale, grid)
        return nearest if found is None else found, scale

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
