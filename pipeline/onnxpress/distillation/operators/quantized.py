"""Fake quantization: integers are floats that hold whole numbers, and rounding lets gradients through unchanged.

``QuantizeLinear`` is ``q = clip(round(x / scale) + zero, low, high)`` and ``DequantizeLinear`` is
``(q - zero) * scale`` (ONNX specification). Gradients pass rounding as if it were not there (the straight-through
estimator, Bengio et al. 2013, arXiv:1308.3432) and stop where values are clipped. The gradient of a scale then is the
one of learned step sizes (Esser et al. 2020, arXiv:1902.08153, equation 3).
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from onnxpress.distillation.operators.facts import Function, Make, Unsupported

LIMITS = {
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
}


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        return torch.round(x)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return gradients[0]


def rounded(x: Tensor) -> Tensor:
    """Round half to even; the gradient is that of the identity."""
    result: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return result


def along(parameter: Tensor, like: Tensor, axis: int, block: int) -> Tensor:
    """Shape scales or zero points so that they multiply a tensor: one in all, one per channel, or one per block.

    What has as many axes as the tensor, without blocks, broadcasts as it is.
    """
    if parameter.numel() == 1:
        return parameter.reshape(())
    if parameter.ndim == like.ndim and not block:
        return parameter
    if block:
        return parameter.repeat_interleave(block, dim=axis).narrow(axis, 0, like.shape[axis])
    return parameter.reshape([-1 if each == axis % like.ndim else 1 for each in range(like.ndim)])


def _quantize(node: ir.Node) -> Function:
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    zero_type = node.inputs[2].dtype if len(node.inputs) > 2 and node.inputs[2] is not None else None
    chosen = ir.DataType(node.attributes.get_int("output_dtype", 0)) or zero_type or ir.DataType.UINT8
    if chosen not in LIMITS:
        raise Unsupported(f"quantizes to {chosen.name}")
    low, high = LIMITS[chosen]

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        steps = rounded(x / along(scale, x, axis, block))
        shifted = steps if zero is None else steps + along(zero, x, axis, block)
        return torch.clamp(shifted, low, high)

    return run


def _dequantize(node: ir.Node) -> Function:
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)

    def run(q: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        whole = q.to(scale.dtype)
        shifted = whole if zero is None else whole - along(zero, q, axis, block).to(scale.dtype)
        return shifted * along(scale, q, axis, block)

    return run


OPERATORS: dict[str, Make] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}
