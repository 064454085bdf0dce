"""Weighted nodes as linear maps: at each output position, a row of features times a matrix gives a row of channels.

A convolution's features are the values under its kernel, channel by channel, one problem per group; those of Gemm and
MatMul are the last axis. A transposed convolution is one with its kernel turned round, on an input with zeros in
between. Sums are of float32 values, whatever the model computes in. Moments of these rows are what repair and the
criteria that look at data work on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.graph import Array
from onnxpress.quantization.layers import candidates

FLOATS = (ir.DataType.DOUBLE, ir.DataType.FLOAT, ir.DataType.FLOAT16)
POSITIONS = 200
"""Output positions taken of each sample, drawn from a fixed seed; neighbours say almost the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight."""

    node: ir.Node
    entering: ir.Value
    """What the weight is multiplied with."""
    weight: ir.Value
    facts: graph.Weighted
    groups: int

    @property
    def spatial(self) -> bool:
        """Whether channels lie on axis 1, with positions behind them."""
        return self.node.op_type in ("Conv", "ConvTranspose")

    def matrix(self) -> Array:
        """Return the weight as [groups, features, channels], float64."""
        assert self.weight.const_value is not None  # noqa: S101 - see `linear`
        return self.as_matrix(self.weight.const_value.numpy())

    def as_matrix(self, array: Array) -> Array:
        """Return an array in the form of the weight as [groups, features, channels], float64."""
        rows = np.moveaxis(array, self._axes(), (0, 1))
        return rows.reshape(self.groups, len(rows) // self.groups, -1).transpose(0, 2, 1).astype(np.float64)

    def tensor(self, matrix: Array) -> Array:
        """Return a matrix in the form and dtype of the weight."""
        rows = self.rows()
        array = np.moveaxis(matrix.transpose(0, 2, 1).reshape(rows.shape), (0, 1), self._axes())
        return np.ascontiguousarray(array, rows.dtype)

    def store(self, matrix: Array) -> None:
        """Make a matrix the weight."""
        self.weight.const_value = ir.tensor(self.tensor(matrix), name=self.weight.name)

    def rows(self) -> Array:
        """Return the weight as [out, in, …]; with groups, ``in`` is the number of input channels per group."""
        assert self.weight.const_value is not None  # noqa: S101 - see `linear`
        return np.moveaxis(self.weight.const_value.numpy(), self._axes(), (0, 1))

    def spread(self, values: Array) -> Array:
        """Give each weight of `rows` the number of its feature, from [groups, features]."""
        shape = self.rows().shape
        repeated = np.repeat(values, shape[0] // self.groups, axis=0)
        return repeated.reshape(shape)

    def features(self, entering: Array, random: np.random.Generator, mask: Array | None = None) -> Array:
        """Return what the matrix is multiplied with at some positions of each sample, [groups, rows, features].

        Args:
            entering: Values of ``self.entering``, of one batch.
            random: Draws the positions; `targets` draws the same ones from the same seed.
            mask: [samples, positions], 0 at padding, which is left out; see `fidelity.MASK`.
        """
        entering = entering.astype(np.float32, copy=False)
        if self.spatial:
            kernel = self.rows().shape[2:]
            turned = self.node.op_type == "ConvTranspose"
            windows = (_turned_windows if turned else _windows)(self.node, entering, kernel)  # [N, C, o…, k…]
            sizes = windows.shape[2 : entering.ndim]
            positions = np.unravel_index(_draw(math.prod(sizes), POSITIONS, random), sizes)
            chosen: tuple[Any, ...] = (slice(None), slice(None), *positions)
            rows = np.moveaxis(windows[chosen], 2, 1)  # [N, positions, C, k…]
            grouped: Array = rows.reshape(rows.shape[0] * rows.shape[1], self.groups, -1).transpose(1, 0, 2)
            return grouped
        if self.node.op_type == "Gemm" and graph.attribute_int(self.node, "transA", 0):
            entering = entering.T
        return some_rows(entering, random, mask)[None]

    def targets(self, leaving: Array, random: np.random.Generator, mask: Array | None = None) -> Array:
        """Return the channels at the same positions, [groups, rows, channels]."""
        leaving = leaving.astype(np.float32, copy=False)
        if self.spatial:
            leaving, mask = np.moveaxis(leaving, 1, -1), None
        rows = some_rows(leaving, random, mask)
        return rows.reshape(len(rows), self.groups, -1).transpose(1, 0, 2)

    def _axes(self) -> tuple[int, int]:
        rank = len(self.weight.shape or ())
        return self.facts.out_axis % rank, self.facts.in_axis % rank


def linear(node: ir.Node) -> Linear | None:
    """Return a node as a linear map; None where `obstacle` says why not, and for what does not multiply."""
    facts = graph.weighted(node)
    if facts is None or obstacle(node):
        return None
    entering, weight = node.inputs[0], node.inputs[facts.weight]
    if entering is None or weight is None:
        return None
    return Linear(
        node=node, entering=entering, weight=weight, facts=facts, groups=graph.attribute_int(node, "group", 1)
    )


def obstacle(node: ir.Node) -> str:
    """Return why a node that multiplies by a constant is no linear map of its own; empty where it is one."""
    tensors = [graph.constant_tensor(value) for value in candidates(node)]
    if not any(tensor is not None for tensor in tensors):
        return "its weight is computed or no float" if graph.weighted(node) is not None else ""
    facts = graph.weighted(node)
    tensor = None if facts is None else graph.constant_tensor(node.inputs[facts.weight])
    if tensor is None:
        return "no row of inputs gives a row of its outputs by one matrix"
    if tensor.dtype not in FLOATS:
        return f"its weight is {tensor.dtype.name.lower()}"
    if node.op_type == "MatMul" and len(tensor.shape) != 2:
        return f"its weight has {len(tensor.shape)} axes"
    if node.op_type == "ConvTranspose" and graph.attribute_int(node, "group", 1) != 1:
        return "a transposed convolution in groups"
    if node.op_type == "ConvTranspose" and {"auto_pad", "output_shape"} & node.attributes.keys():
        return "a transposed convolution whose padding follows from its output"
    return ""


HELD = 256
"""Rows that wait until their products are added: adding up large matrices takes longer than a product of few rows."""


@dataclass(slots=True)
class Moments:
    """Sums over rows of features: of their products with each other, and with targets. Memory does not grow with rows.

    A feature that is always one stands behind the others, so that the sums of the features are among the products.
    """

    _squares: Array
    _products: Array
    count: int = 0
    _waiting: list[tuple[Array, Array]] = field(default_factory=list)

    @classmethod
    def zeros(cls, layer: Linear, *, with_targets: bool = False) -> Moments:
        """Start for one layer."""
        groups, features, channels = layer.matrix().shape
        size = features + 1
        return cls(np.zeros((groups, size, size)), np.zeros((groups, size, channels if with_targets else 0)))

    def add(self, rows: Array, targets: Array | None = None) -> None:
        """Add rows, [groups, rows, features + 1] (see `with_ones`) and [groups, rows, channels]."""
        self._waiting.append((rows, rows[:, :, :0] if targets is None else targets))
        self.count += rows.shape[1]
        if sum(each.shape[1] for each, _ in self._waiting) >= HELD:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            rows, targets = (np.concatenate(parts, axis=1) for parts in zip(*self._waiting, strict=True))
            self._waiting.clear()
            turned = rows.transpose(0, 2, 1)
            self._squares += turned @ rows
            self._products += turned @ targets

    @property
    def squares(self) -> Array:
        """Summed products of the features with each other, [groups, features + 1, features + 1]."""
        self._flush()
        return self._squares

    @property
    def products(self) -> Array:
        """Summed products of the features with the targets, [groups, features + 1, channels]."""
        self._flush()
        return self._products

    @property
    def energy(self) -> Array:
        """Mean square of each feature, [groups, features]."""
        return np.diagonal(self.squares, axis1=1, axis2=2)[:, :-1] / max(self.count, 1)

    @property
    def covariance(self) -> Array:
        """Covariance of the features, [groups, features, features]: what no bias can make good."""
        mean = self.squares[:, :-1, -1] / max(self.count, 1)
        return self.squares[:, :-1, :-1] / max(self.count, 1) - mean[:, :, None] * mean[:, None, :]


def with_ones(features: Array) -> Array:
    """Append the feature that is always one: its weight is the bias."""
    return np.concatenate([features, np.ones((*features.shape[:2], 1), features.dtype)], axis=2)


def some_rows(values: Array, random: np.random.Generator, mask: Array | None) -> Array:
    """Return the last axis at some positions of each sample, [rows, features]; of padding nothing."""
    if mask is not None and mask.size == math.prod(values.shape[:-1]):
        real = values.reshape(-1, values.shape[-1])[mask.ravel() > 0]
        return real[_draw(len(real), POSITIONS * len(mask), random)]
    rows = values.reshape(len(values), -1, values.shape[-1])
    return rows[:, _draw(rows.shape[1], POSITIONS, random)].reshape(-1, values.shape[-1])


def _draw(count: int, most: int, random: np.random.Generator) -> Array:
    """Choose output positions, the same for every sample of a batch."""
    if count <= most:
        return np.arange(count)
    return np.sort(random.choice(count, most, replace=False))


def _windows(node: ir.Node, values: Array, kernel: Sequence[int]) -> Array:
    """Return what a convolution multiplies at each output position, as a view: [N, C, o…, k…]."""
    axes = len(kernel)
    strides = node.attributes.get_ints("strides", [1] * axes)
    dilations = node.attributes.get_ints("dilations", [1] * axes)
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    padded = np.pad(values, [(0, 0), (0, 0), *_padding(node, values.shape[2:], reach, strides)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + axes)))
    view: Array = windows[:, :, *(slice(None, None, step) for step in (*strides, *dilations))]
    return view


def _turned_windows(node: ir.Node, values: Array, kernel: Sequence[int]) -> Array:
    """Return what a transposed convolution multiplies at each output position, as `_windows` does."""
    axes = len(kernel)
    strides, dilations = (node.attributes.get_ints(name, [1] * axes) for name in ("strides", "dilations"))
    pads = node.attributes.get_ints("pads", [0] * 2 * axes)
    more = node.attributes.get_ints("output_padding", [0] * axes)
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    sizes = [(size - 1) * stride + 1 for size, stride in zip(values.shape[2:], strides, strict=True)]
    spread = np.zeros((*values.shape[:2], *sizes), values.dtype)
    spread[:, :, *(slice(None, None, stride) for stride in strides)] = values
    for axis, width in enumerate(reach):
        before, after = width - 1 - pads[axis], width - 1 - pads[axes + axis] + more[axis]
        wide = [(0, 0)] * spread.ndim
        wide[2 + axis] = max(before, 0), max(after, 0)
        spread = np.pad(spread, wide)
        cut = slice(max(-before, 0), spread.shape[2 + axis] - max(-after, 0))
        spread = spread[(slice(None),) * (2 + axis) + (cut,)]
    windows = np.lib.stride_tricks.sliding_window_view(spread, reach, axis=tuple(range(2, 2 + axes)))
    backwards: list[Any] = [..., *(slice(None, None, -step) for step in dilations)]
    view: Array = windows[tuple(backwards)]
    return view


def _padding(
    node: ir.Node, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Return what a convolution adds before and after each axis (ONNX operator Conv, attribute auto_pad)."""
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    if not automatic.startswith("SAME"):
        pads = node.attributes.get_ints("pads", [0] * 2 * len(sizes)) if automatic == "NOTSET" else [0] * 2 * len(sizes)
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    padding = []
    for size, width, stride in zip(sizes, reach, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        small, large = total // 2, total - total // 2
        padding.append((small, large) if automatic == "SAME_UPPER" else (large, small))
    return padding
