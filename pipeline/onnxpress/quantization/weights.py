"""Quantized weights, made once: a search rewrites a model hundreds of times and pays for each weight once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.quantization.pairs import limits, places
from onnxpress.quantization.params import Array, WeightGrid, along, dequantize_weight, quantize_weight
from onnxpress.quantization.rounding import Reconstruction

FACTORS = np.linspace(1, 2, 9)
"""By how much a scale may grow: with twice the scale no pair of 7 bits saturates."""


class Weights:
    """Integers and scales by weight tensor (clones of a model share theirs), axis and bounds.

    Args:
        limited: Weights of which no pair may saturate, with the nodes that multiply by them (see `saturation.limited`).
        rounding: What rounds the weights that it knows; nearest rounding without it.
    """

    def __init__(
        self,
        limited: Mapping[ir.TensorProtocol, Sequence[ir.Node]] | None = None,
        rounding: Reconstruction | None = None,
    ) -> None:
        self.limited = limited or {}
        self._rounding = rounding or Reconstruction()
        self.avoided: dict[str, None] = {}
        """Names of the layers whose nearest integers would have saturated."""
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
        """Round a weight so that no pair of it saturates, with data together, where they were seen at it."""
        weight, known = tensor.numpy().astype(np.float64), self._rounding.knows(tensor, axis)
        energy = self._rounding.energy(tensor) if known else np.ones(1)
        orders = places(weight.shape, self.limited[tensor])
        self._note(tensor, weight / along(scale, axis, weight.ndim), grid, orders)
        scale = _coarser(weight, axis, grid, scale, orders, energy)
        steps = np.broadcast_to(along(scale, axis, weight.ndim), weight.shape)
        nearest, lowest, highest = _nearest(weight / steps, grid, orders)
        found = self._rounding.steps(tensor, steps, lowest, highest) if known else None
        return (np.clip(nearest, lowest, highest) if found is None else found).astype(grid.zero_point.dtype), scale

    def _note(self, tensor: ir.TensorProtocol, steps: Array, grid: WeightGrid, orders: Sequence[Array]) -> None:
        """Remember the readers of a weight whose nearest integers would saturate."""
        nearest, lowest, highest = _nearest(steps, grid, orders)
        if (nearest != np.clip(nearest, lowest, highest)).any():
            self.avoided |= dict.fromkeys(node.name or "" for node in self.limited[tensor])

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
            made = []
            for direction in tensor.numpy():
                matrix, axis = np.ascontiguousarray(direction.T), None if per_tensor else 1
                integers, scale = quantize_weight(matrix, axis, grid)
                if tensor in self.limited:
                    orders = [np.arange(matrix.size).reshape(matrix.shape)]
                    self._note(tensor, matrix / along(scale, axis, 2), grid, orders)
                    scale = _coarser(matrix, axis, grid, scale, orders, np.ones(1))
                    nearest = np.clip(*_nearest(matrix / along(scale, axis, 2), grid, orders))
                    integers = nearest.astype(grid.zero_point.dtype)
                made.append((integers, scale))
            self._made[key] = np.stack([one[0] for one in made]), np.stack([one[1] for one in made])
        return self._made[key]


def _coarser(
    weight: Array,
    axis: int | None,
    grid: WeightGrid,
    scale: Array,
    orders: Sequence[Array],
    energy: Array,
) -> Array:
    """Return the scales with which a weight loses least where no pair may saturate.

    Large neighbours are clipped, or the scale of their channel is coarser: of `FACTORS` the one that loses least.

    Args:
        weight: float, any shape.
        axis: The axis of its scales; None for one in all.
        grid: The integers to use.
        scale: Of rounding to nearest.
        orders: See `onnxpress.quantization.pairs.limits`.
        energy: How much the squared error of each value counts.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    losses = []
    for factor in FACTORS:
        steps = along(scale * factor, axis, weight.ndim)
        errors = weight - np.clip(*_nearest(weight / steps, grid, orders)) * steps
        losses.append((energy * errors**2).sum(axis=others))
    return np.asarray(scale * FACTORS[np.argmin(losses, axis=0)], np.float32)


def _nearest(steps: Array, grid: WeightGrid, orders: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Return (nearest integers, lowest, highest): of each weight, where no pair may saturate."""
    nearest = np.clip(np.rint(steps), -grid.limit, grid.limit)
    lowest, highest = limits(nearest.astype(np.int64), orders)
    return nearest, np.maximum(lowest, -grid.limit), np.minimum(highest, grid.limit)
