"""Weights in blocks: a row of a matrix is cut into blocks of a few dozen values, each with a scale of its own.

The integers are those of onnxruntime's MatMulNBits and GatherBlockQuantized, ``-2^(bits-1) … 2^(bits-1) - 1`` stored
with ``2^(bits-1)`` added, two 4-bit integers in a byte, the lower half first.
"""

from __future__ import annotations

import numpy as np

from onnxpress.quantization.params import Array

SHRINK = np.linspace(1.0, 0.7, 7, dtype=np.float32)
"""With 4 bits a block's scale is tried at these fractions of what its largest value asks for (least squared error)."""
CHUNK = 1 << 18
"""Values searched at a time: as many as stay in a processor's cache."""


def quantize_blocks(matrix: Array, bits: int, size: int) -> tuple[Array, Array]:
    """Quantize a matrix in blocks along its rows.

    The value of largest magnitude gets the integer on the side that has one more (Q4_0 of llama.cpp does the same), so
    a scale may be negative.

    Args:
        matrix: float [rows, columns].
        bits: 4 or 8.
        size: Values in a block; the last block of a row is filled with zeros.

    Returns:
        (integers int8 [rows, blocks, size], float32 scales [rows, blocks]).
    """
    rows, columns = matrix.shape
    count = -(-columns // size)
    padded = np.pad(matrix.astype(np.float32, copy=False), ((0, 0), (0, count * size - columns)))
    blocks = padded.reshape(rows * count, size)
    integers, scales = np.empty(blocks.shape, np.int8), np.empty(len(blocks), np.float32)
    step = max(1, CHUNK // size)
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        integers[part], scales[part] = _search(blocks[part], bits)
    return integers.reshape(rows, count, size), scales.reshape(rows, count)


def bounds(bits: int) -> tuple[int, int]:
    """Return the smallest and the largest integer."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _search(blocks: Array, bits: int) -> tuple[Array, Array]:
    lowest, highest = bounds(bits)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)
    full = largest / np.float32(lowest)
    full = np.where(np.abs(full) < np.finfo(np.float32).tiny, np.float32(1), full)
    best = np.full((len(blocks), 1), np.inf, np.float32)
    integers, scales = np.zeros_like(blocks), full.copy()
    for share in SHRINK if bits < 8 else SHRINK[:1]:
        scale = full * share
        steps = np.clip(np.round(blocks / scale), lowest, highest)
        error = np.square(steps * scale - blocks).sum(1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        scales = np.where(better, scale, scales)
        integers = np.where(better, steps, integers)
    return integers.astype(np.int8), scales[:, 0]


def fitting(size: int, columns: int) -> int:
    """Return the largest size of a block, at most ``size``, that fills up little of a row (16 is the smallest)."""
    while size > 16 and -columns % size > columns // 8:
        size //= 2
    return size


def pack(integers: Array, bits: int) -> Array:
    """Return unsigned bytes: int8 [..., n] becomes uint8 [..., n * bits / 8]."""
    unsigned: Array = (integers.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    if bits == 4:
        unsigned = unsigned[..., ::2] | unsigned[..., 1::2] << 4
    return unsigned
