"""Quantized weights, made once: a search rewrites a model hundreds of times and pays for each weight once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.quantization.pairs import clipped, cut, limits
from onnxpress.quantization.params import Array, WeightGrid, along, dequantize_weight, quantize_weight
from onnxpress.quantization.rounding import Reconstruction

FACTORS = np.linspace(1, 2, 9)
"""By how much a scale may grow: with twice the scale no pair of 7 bits saturates."""
CHUNK = 1 << 22
"""Values that are tried at once."""


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
        weight, known = tensor.numpy().astype(np.float32, copy=False), self._rounding.knows(tensor, axis)
        energy = self._rounding.energy(tensor) if known else np.ones(1)
        readers = self.limited[tensor]

        def fitted(integers: Array) -> Array:
            return clipped(integers, readers)

        scale, changed = _coarser(weight, axis, grid, scale, fitted, energy)
        self._note(tensor, changed=changed)
        steps = along(scale, axis, weight.ndim)
        nearest = np.clip(np.rint(weight / steps), -grid.limit, grid.limit)
        found = None
        if known:
            lowest, highest = limits(nearest.astype(np.int64), readers)
            lowest, highest = np.maximum(lowest, -grid.limit), np.minimum(highest, grid.limit)
            found = self._rounding.steps(tensor, np.broadcast_to(steps, weight.shape), lowest, highest)
        return (fitted(nearest) if found is None else found).astype(grid.zero_point.dtype), scale

    def _note(self, tensor: ir.TensorProtocol, *, changed: bool) -> None:
        """Remember the readers of a weight whose nearest integers would saturate."""
        if changed:
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
                    scale, changed = _coarser(matrix, axis, grid, scale, _fitted, np.ones(1))
                    self._note(tensor, changed=changed)
                    steps = np.clip(np.rint(matrix / along(scale, axis, 2)), -grid.limit, grid.limit)
                    integers = _fitted(steps).astype(grid.zero_point.dtype)
                made.append((integers, scale))
            self._made[key] = np.stack([one[0] for one in made]), np.stack([one[1] for one in made])
        return self._made[key]


def _fitted(matrix: Array) -> Array:
    """Return a matrix [K, M] of integers with every pair cut."""
    result = matrix.copy()
    cut(result)
    return result


def _coarser(
    weight: Array, axis: int | None, grid: WeightGrid, scale: Array, fitted: Callable[[Array], Array], energy: Array
) -> tuple[Array, bool]:
    """Return the scales with which a weight loses least where no pair may saturate, and whether any would have.

    Large neighbours are clipped, or the scale of their channel is coarser: of `FACTORS` the one that loses least.

    Args:
        weight: float, any shape.
        axis: The axis of its scales; None for one in all.
        grid: The integers to use.
        scale: Of rounding to nearest.
        fitted: Makes integers such that no pair saturates.
        energy: How much the squared error of each value counts: of the weight's shape, or one for all.
    """
    channels = 1 if axis is None else weight.shape[axis]
    # An even number, so that pairs stay together in a weight whose channels are another layer's inputs.
    size = channels if axis is None else max(2, CHUNK * channels // weight.size // 2 * 2)
    found, changed = [], False
    for start in range(0, channels, size):
        at = tuple(slice(start, start + size) if i == axis else slice(None) for i in range(weight.ndim))
        part, scales = weight[at], scale if axis is None else scale[start : start + size]
        counts = energy[at] if energy.shape == weight.shape else energy
        losses = []
        for factor in FACTORS:
            steps = along(scales * np.float32(factor), axis, weight.ndim)
            nearest = np.clip(np.rint(part / steps), -grid.limit, grid.limit)
            kept = fitted(nearest)
            changed |= factor == 1 and not np.array_equal(nearest, kept)
            others = tuple(i for i in range(weight.ndim) if i != axis)
            losses.append((counts * (part - kept * steps) ** 2).sum(axis=others, dtype=np.float64))
        found.append(scales * FACTORS[np.argmin(losses, axis=0)])
    return np.asarray(found[0] if axis is None else np.concatenate(found), np.float32), changed
