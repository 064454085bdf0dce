"""Scales and zero points: pure functions on numbers.

Affine quantization maps a real ``x`` to ``q = clip(round(x / scale) + zero_point, qmin, qmax)`` (round half to even)
and back to ``(q - zero_point) * scale``: ONNX specification, QuantizeLinear. Activations are uint8 with a zero point,
weights int8 without one: the only pairing that x86 CPUs with VNNI run at full speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
LEVELS = 256
WEIGHT_MAX = 127  # symmetric: -128 is left out, so that negation stays on the grid


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationParams:
    """Scale and zero point of a uint8 activation."""

    scale: np.float32
    zero_point: np.uint8


def activation_params(low: float, high: float) -> ActivationParams:
    """Return the uint8 parameters for a range, widened to hold zero exactly (padding and Relu must not shift).

    A range of zero width (a constant-zero tensor) gets scale 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / (LEVELS - 1))
    if scale < np.finfo(np.float32).tiny:  # also when the range underflows float32
        return ActivationParams(scale=np.float32(1), zero_point=np.uint8(0))
    return ActivationParams(scale=scale, zero_point=np.uint8(np.clip(np.round(-low / float(scale)), 0, LEVELS - 1)))


def quantize_weight(weight: Array, axis: int | None, floor: Array | None = None) -> tuple[Array, Array]:
    """Quantize a weight symmetrically to int8.

    Args:
        weight: float, any shape.
        axis: The axis of output channels, each of which gets its own scale; None for one scale in all.
        floor: Smallest scale allowed, broadcastable to the scales; see `bias_floor`.

    Returns:
        (int8 array of the same shape, float32 scales: [channels] or a scalar).
    """
    weight = weight.astype(np.float32, copy=False)
    axis = None if axis is None else axis % weight.ndim
    peak = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis), initial=0)
    scale = peak / np.float32(WEIGHT_MAX)
    if floor is not None:
        scale = np.maximum(scale, floor.max() if axis is None else floor)
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale).astype(np.float32)
    steps = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    return np.clip(np.round(weight / steps), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8), scale


def dequantize_weight(integers: Array, scale: Array, axis: int | None) -> Array:
    """Return the float32 weight that integers and scales of `quantize_weight` stand for."""
    if axis is not None:
        scale = scale.reshape([-1 if i == axis % integers.ndim else 1 for i in range(integers.ndim)])
    return integers * scale


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
