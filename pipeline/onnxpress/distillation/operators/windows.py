"""Operators that slide a window over the spatial axes: convolutions and pooling. Layout [N, C, spatial…]."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxpress.distillation.operators.facts import Function, Make, Unsupported, only_first_output, plain

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class _Window:
    """Strides, dilations and padding of a node, as the operators of torch want them."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
        self.pads = node.attributes.get_ints("pads")
        self.given_strides = node.attributes.get_ints("strides")
        self.given_dilations = node.attributes.get_ints("dilations")

    def strides(self, axes: int) -> list[int]:
        return list(self.given_strides or [1] * axes)

    def dilations(self, axes: int) -> list[int]:
        return list(self.given_dilations or [1] * axes)

    def padding(self, x: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return what is added before and after each spatial axis (ONNX specification, ``auto_pad``)."""
        axes = len(kernel)
        if self.auto_pad in ("NOTSET", "", None):
            pads = list(self.pads or [0] * 2 * axes)
            return pads[:axes], pads[axes:]
        if self.auto_pad == "VALID":
            return [0] * axes, [0] * axes
        steps, gaps = self.strides(axes), self.dilations(axes)
        total = []
        for size, width, step, gap in zip(x.shape[2:], kernel, steps, gaps, strict=True):
            reach = (width - 1) * gap + 1
            total.append(max(0, (-(-size // step) - 1) * step + reach - size))
        small, large = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
        return (small, large) if self.auto_pad == "SAME_UPPER" else (large, small)


def _padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    """Pad the spatial axes; torch counts them from the last."""
    pairs = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
    return F.pad(x, pairs, value=value) if any(pairs) else x


def _conv(node: ir.Node) -> Function:
    window, groups = _Window(node), node.attributes.get_int("group", 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        axes = weight.ndim - 2
        before, after = window.padding(x, weight.shape[2:])
        if before != after:
            x, before = _padded(x, before, after, 0.0), [0] * axes
        return CONV[axes](x, weight, bias, window.strides(axes), before, window.dilations(axes), groups)

    return run


def _conv_transpose(node: ir.Node) -> Function:
    window, groups = _Window(node), node.attributes.get_int("group", 1)
    extra, shape = node.attributes.get_ints("output_padding"), node.attributes.get_ints("output_shape")

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        axes, kernel = weight.ndim - 2, weight.shape[2:]
        steps, gaps = window.strides(axes), window.dilations(axes)
        added = list(extra or [0] * axes)
        full = [
            (size - 1) * step + (width - 1) * gap + 1 + more
            for size, step, width, gap, more in zip(x.shape[2:], steps, kernel, gaps, added, strict=True)
        ]
        if shape is not None or window.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            wanted = shape or [size * step for size, step in zip(x.shape[2:], steps, strict=True)]
            cut = [size - want for size, want in zip(full, wanted, strict=True)]
            small, large = [each // 2 for each in cut], [each - each // 2 for each in cut]
            before, after = (small, large) if window.auto_pad == "SAME_UPPER" else (large, small)
        else:
            before, after = window.padding(x, kernel)
        if before == after and min(before) >= 0:
            return CONV_TRANSPOSE[axes](x, weight, bias, steps, before, added, groups, gaps)
        whole = CONV_TRANSPOSE[axes](x, weight, bias, steps, [0] * axes, added, groups, gaps)
        return _padded(whole, [-pad for pad in before], [-pad for pad in after], 0.0)  # a negative pad crops

    return run


def _max_pool(node: ir.Node) -> Function:
    only_first_output(node)
    window, kernel = _Window(node), list(node.attributes.get_ints("kernel_shape") or ())
    axes, ceil = len(kernel), bool(node.attributes.get_int("ceil_mode", 0))

    def run(x: Tensor) -> Tensor:
        before, after = window.padding(x, kernel)
        if before != after or any(2 * pad > width for pad, width in zip(before, kernel, strict=True)):
            x, before = _padded(x, before, after, float("-inf")), [0] * axes
        return MAX_POOL[axes](x, kernel, window.strides(axes), before, window.dilations(axes), ceil)

    return run


def _average_pool(node: ir.Node) -> Function:
    window, kernel = _Window(node), list(node.attributes.get_ints("kernel_shape") or ())
    axes, ceil = len(kernel), bool(node.attributes.get_int("ceil_mode", 0))
    counts_padding = bool(node.attributes.get_int("count_include_pad", 0))
    if any(gap != 1 for gap in window.dilations(axes)):
        raise Unsupported("has dilations")

    def run(x: Tensor) -> Tensor:
        before, after = window.padding(x, kernel)
        steps, pool = window.strides(axes), AVERAGE_POOL[axes]
        if before == after and all(2 * pad <= width for pad, width in zip(before, kernel, strict=True)):
            return pool(x, kernel, steps, before, ceil, counts_padding)
        # The share of a window that counts: a mean of ones there, so that sums divide by what was really there.
        counted = _padded(torch.ones_like(x[:1, :1]), before, after, 1.0 if counts_padding else 0.0)
        return pool(_padded(x, before, after, 0.0), kernel, steps, 0, ceil) / pool(counted, kernel, steps, 0, ceil)

    return run


OPERATORS: dict[str, Make] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": plain(lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)),
    "GlobalMaxPool": plain(lambda x: x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)),
    "MaxPool": _max_pool,
}
