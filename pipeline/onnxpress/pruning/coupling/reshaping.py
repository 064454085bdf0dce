"""Reshape, Flatten, Squeeze, Unsqueeze."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.pruning.coupling.arguments import output_of, same_size, target_shape
from onnxpress.pruning.layout import Layout, length, obstacle


def reshape(layout: Layout, node: ir.Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: numbers keep their row-major place."""
    x, result = node.inputs[0], output_of(node)
    assert x is not None and x.shape is not None and result.shape is not None  # noqa: S101 - checked by `follow`
    if not layout.blocks(x):
        return
    if node.op_type == "Reshape" and target_shape(node) is None:
        layout.refuse(node, "reshapes to sizes known only at run time")
        return
    segments = _segments(list(x.shape), list(result.shape))
    blocks = []
    for block in layout.blocks(x):
        touched = [pair for pair in segments if set(pair[0]) & set(block.axes)]
        before = [axis for pair in touched for axis in pair[0]]
        after = [axis for pair in touched for axis in pair[1]]
        others = [other for other in layout.blocks(x) if other is not block and set(other.axes) & set(before)]
        sizes = [length(x, axis) for axis in before]
        wanted = [length(result, axis) for axis in after]
        known = [size for size in sizes if size is not None]
        new = [size for size in wanted if size is not None]
        unknown = len(known) < len(sizes) or len(new) < len(wanted) or math.prod(known) != math.prod(new)
        if others or unknown or not set(block.axes) <= set(before):
            layout.channels.fix(block.numbers, obstacle(node, "mixes channels with axes that cannot be followed"))
            continue
        spread = block.numbers.reshape(
            [size if axis in block.axes else 1 for axis, size in zip(before, known, strict=True)]
        )
        blocks.append(layout.reduced(after, np.broadcast_to(spread, known).reshape(new)))
    layout.put(result, blocks)


def _segments(before: Sequence[object], after: Sequence[object]) -> list[tuple[list[int], list[int]]]:
    """Cut the axes of a Reshape into the smallest runs of equal size, as pairs (input axes, output axes).

    From the right, while sizes are known or symbols are equal: equal products of the trailing sizes prove that a run's
    row-major index is the same on both sides. What remains on the left is one run, of equal size because the whole is.

    >>> _segments(["N", 64, 7, 7], ["N", 3136])
    [([0], [0]), ([1, 2, 3], [1])]
    """
    segments: list[tuple[list[int], list[int]]] = []
    i, j = len(before), len(after)
    while i and j:
        if same_size(before[i - 1], after[j - 1]):
            i, j = i - 1, j - 1
            segments.append(([i], [j]))
            continue
        if before[i - 1] == 1:
            i -= 1
            continue
        if after[j - 1] == 1:
            j -= 1
            continue
        left, right = i - 1, j - 1
        sizes = [before[left], after[right]]
        while isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                left -= 1
                sizes[0] = _times(sizes[0], before[left]) if left >= 0 else None
            else:
                right -= 1
                sizes[1] = _times(sizes[1], after[right]) if right >= 0 else None
        if not isinstance(sizes[0], int) or not isinstance(sizes[1], int):
            break
        segments.append((list(range(left, i)), list(range(right, j))))
        i, j = left, right
    if i or j:
        segments.append((list(range(i)), list(range(j))))
    return segments[::-1]


def _times(product: int, size: object) -> int | None:
    return product * size if isinstance(size, int) else None
