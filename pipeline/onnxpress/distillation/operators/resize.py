"""Resize, axis by axis: each output position reads one (nearest) or two (linear) or four (cubic) input positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from onnxpress.distillation.operators.facts import Function, Make, Unsupported, integers, number

Array = np.ndarray[Any, np.dtype[Any]]


def _resize(node: ir.Node) -> Function:
    mode = node.attributes.get_string("mode", "nearest")
    coordinates = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    cubic = number(node, "cubic_coeff_a", -0.75)
    given = node.attributes.get_ints("axes")
    if node.attributes.get_int("antialias", 0) or node.attributes.get_int("exclude_outside", 0):
        raise Unsupported("uses antialias or exclude_outside")
    if coordinates in ("tf_crop_and_resize", "half_pixel_symmetric"):
        raise Unsupported(f"has coordinates {coordinates!r}")
    if node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("keeps the aspect ratio")

    def run(x: Tensor, _: Tensor | None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        axes = [axis % x.ndim for axis in given or range(x.ndim)]
        if scales is not None and scales.numel():
            ratios = [float(scale) for scale in scales.tolist()]
            lengths = [math.floor(x.shape[axis] * ratio) for axis, ratio in zip(axes, ratios, strict=True)]
        else:
            assert sizes is not None  # noqa: S101 - the specification asks for one of the two
            lengths = integers(sizes)
            ratios = [length / x.shape[axis] for axis, length in zip(axes, lengths, strict=True)]
        for axis, length, ratio in zip(axes, lengths, ratios, strict=True):
            if ratio != 1 or length != x.shape[axis]:
                at = _positions(length, x.shape[axis], ratio, coordinates)
                x = _along(x, axis, *_taps(at, mode, rounding, cubic))
        return x

    return run


def _positions(length: int, size: int, scale: float, coordinates: str) -> Array:
    """Return where in the input each output position lies (ONNX specification, Resize)."""
    out = np.arange(length, dtype=np.float64)
    if coordinates == "asymmetric":
        return out / scale
    if coordinates == "align_corners":
        return out * (size - 1) / (length - 1) if length > 1 else out * 0
    if coordinates == "pytorch_half_pixel" and length == 1:
        return out * 0
    return (out + 0.5) / scale - 0.5


def _taps(at: Array, mode: str, rounding: str, a: float) -> tuple[Array, Array]:
    """Return the input positions that each output reads, and their weights: both [taps, outputs]."""
    if mode == "nearest":
        rounded = {
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
            "floor": np.floor(at),
            "ceil": np.ceil(at),
        }[rounding]
        return rounded[None], np.ones((1, len(at)))
    low = np.floor(at)
    part = at - low
    if mode == "linear":
        return np.stack([low, low + 1]), np.stack([1 - part, part])
    weights = np.stack([_keys(part + 1, a), _keys(part, a), _keys(1 - part, a), _keys(2 - part, a)])
    return np.stack([low - 1, low, low + 1, low + 2]), weights


def _keys(distance: Array, a: float) -> Array:
    """Return the weight of a position at a distance of up to two (Keys 1981, cubic convolution)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, far)


def _along(x: Tensor, axis: int, places: Array, weights: Array) -> Tensor:
    inside = np.clip(places, 0, x.shape[axis] - 1).astype(np.int64)
    shape = [-1 if each == axis else 1 for each in range(x.ndim)]
    total: Tensor | None = None
    for place, weight in zip(inside, weights, strict=True):
        term = x.index_select(axis, torch.from_numpy(place).to(x.device))
        if len(inside) > 1:
            term = term * torch.from_numpy(weight).to(x).reshape(shape)
        total = term if total is None else total + term
    assert total is not None  # noqa: S101
    return total


OPERATORS: dict[str, Make] = {"Resize": _resize}
