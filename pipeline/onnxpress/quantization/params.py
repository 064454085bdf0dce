"""Scales and zero points: pure functions on numbers.

Affine quantization maps a real ``x`` to ``q = clip(round(x / scale) + zero_point, qmin, qmax)`` (round half to even)
and back to ``(q - zero_point) * scale``: ONNX specification, QuantizeLinear. By default activations are uint8 with a
zero point and weights int8 without one: the only pairing that x86 CPUs with VNNI run at full speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
ActivationType = Literal["uint8", "int8", "uint16", "int16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationParams:
    """Scale and zero point of an activation; the zero point's dtype is that of the integers."""

    scale: np.float32
    zero_point: np.integer[Any]

    def quantize(self, array: Array) -> Array:
        """Return the integers of an array."""
        limits = np.iinfo(self.zero_point.dtype)
        steps = np.round(array / self.scale) + int(self.zero_point)
        return np.clip(steps, limits.min, limits.max).astype(self.zero_point.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightGrid:
    """The integers a weight may take, symmetric around its zero point: ±(2^(bits-1) - 1), whatever type holds them.

    uint8 holds the int8 integers moved by 128: the same numbers in another pairing of kernels.
    """

    bits: int = 8
    unsigned: bool = False

    @property
    def limit(self) -> int:
        """The largest step: -128 is left out, so that negation stays on the grid."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def zero_point(self) -> np.integer[Any]:
        """The integer that means zero; its dtype is that of the integers."""
        return np.uint8(128) if self.unsigned else np.int8(0)


def activation_params(
    low: float, high: float, dtype: ActivationType = "uint8", *, symmetric: bool = False
) -> ActivationParams:
    """Return the parameters for a range, widened to hold zero exactly (padding and Relu must not shift).

    A range of zero width (a constant-zero tensor) gets scale 1.

    Args:
        low: The range's lower end.
        high: Its upper end.
        dtype: The integers' type.
        symmetric: Put the zero point in the middle of the type (at 0 where an unsigned tensor is never negative).
    """
    limits = np.iinfo(dtype)
    steps = limits.max - limits.min
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric and (low < 0 or limits.min < 0):
        steps, high = steps - 1, max(-low, high)  # as many steps on either side: the lowest integer is left out
        low = -high
    scale = np.float32((high - low) / steps)
    zero = np.dtype(dtype).type
    if scale < np.finfo(np.float32).tiny:  # also when the range underflows float32
        return ActivationParams(scale=np.float32(1), zero_point=zero(limits.min if not symmetric else 0))
    if symmetric:
        middle = 0 if limits.min < 0 or low == 0 else limits.max // 2 + 1
        return ActivationParams(scale=scale, zero_point=zero(middle))
    steps_below = np.round(-low / float(scale))
    return ActivationParams(scale=scale, zero_point=zero(np.clip(limits.min + steps_below, limits.min, limits.max)))


def quantize_weight(
    weight: Array, axis: int | None, grid: WeightGrid | None = None, floor: Array | None = None
) -> tuple[Array, Array]:
    """Quantize a weight symmetrically.

    Args:
        weight: float, any shape.
        axis: The axis of output channels, each of which gets its own scale; None for one scale in all.
        grid: The integers to use; int8 by default.
        floor: Smallest scale allowed, broadcastable to the scales; see `bias_floor`.

    Returns:
        (integers of the same shape, float32 scales: [channels] or a scalar).
    """
    grid = grid or WeightGrid()
    weight = weight.astype(np.float32, copy=False)
    axis = None if axis is None else axis % weight.ndim
    peak = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis), initial=0)
    scale = peak / np.float32(grid.limit)
    if floor is not None:
        scale = np.maximum(scale, floor.max() if axis is None else floor)
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale).astype(np.float32)
    integers = np.clip(np.round(weight / along(scale, axis, weight.ndim)), -grid.limit, grid.limit)
    return (integers + int(grid.zero_point)).astype(grid.zero_point.dtype), scale


def dequantize_weight(integers: Array, scale: Array, axis: int | None) -> Array:
    """Return the float32 weight that integers and scales of `quantize_weight` stand for."""
    return integers * along(scale, axis, integers.ndim)


def along(scale: Array, axis: int | None, rank: int) -> Array:
    """Return scales as they broadcast to a weight: [channels] along the axis, or the one scale of all."""
    return scale if axis is None else scale.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def bias_floor(bias: Array, input_scale: np.float32) -> Array:
    """Return the smallest weight scales with which a bias fits into int32 (microsoft/onnxruntime#24711).

    A channel of nearly zero weights would otherwise put its bias far outside of the accumulator.
    """
    return np.asarray(np.abs(bias.astype(np.float64)) / (2.0**30 * float(input_scale)), np.float32)


def quantize_bias(bias: Array, input_scale: np.float32, weight_scale: Array) -> tuple[Array, Array]:
    """Quantize a bias to int32 on the accumulator's own grid, ``input_scale * weight_scale``.

    Returns:
        (int32 [channels], float32 scales [channels] or scalar).
    """
    scale = (np.float64(input_scale) * weight_scale.astype(np.float64)).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)  # below it floats lose digits, and a zero could not divide
    return np.round(bias.astype(np.float64) / scale).astype(np.int32), scale
