"""Pairs of neighbouring weights, whose products x86 CPUs without VNNI add in 16 bits.

There onnxruntime multiplies uint8 activations with int8 weights by ``vpmaddubsw``, which adds two neighbouring products
to an int16 and *saturates*: with activations up to 255, two weights of 65 are too much. Neighbours are consecutive
input channels at one kernel position, or consecutive rows of a matrix; signed activations are made unsigned first, and
depthwise convolutions have a kernel without the problem (onnxruntime, mlas/lib/convsym.cpp and
x86_64/QgemmU8X8KernelAvx2.S; `benchmarks/quantization/kernels_without_vnni.py` shows it).

A pair cannot leave the 16 bits when its positive weights add up to 128 at most and its negative ones to -128 at least.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization.params import Array

LOW, HIGH = -32768, 32767
PEAK = 255
"""Largest uint8 activation."""
MOST = HIGH // PEAK
"""What two weights of one sign may add up to."""


def risky(weights: Array) -> tuple[Array, Array]:
    """Return the pairs that can leave the int16 range with activations in 0…255: (pair [R], column [R]).

    Args:
        weights: Integers [K, M]; rows 2i and 2i + 1 are the pair i.
    """
    first, second = paired(weights)
    highest = PEAK * (np.maximum(first, 0) + np.maximum(second, 0))
    lowest = PEAK * (np.minimum(first, 0) + np.minimum(second, 0))
    pair, column = np.nonzero((highest > HIGH) | (lowest < LOW))
    order = np.argsort(column, kind="stable")
    return pair[order], column[order]


def saturating_product(activations: Array, weights: Array) -> Array:
    """Return the product as the kernel computes it, pair by pair: the definition, for tests and small matrices.

    Args:
        activations: Integers 0…255, [N, K].
        weights: Integers -128…127, [K, M].

    Returns:
        int64 [N, M].
    """
    first, second = paired(weights.astype(np.int64))
    left, right = paired(activations.T.astype(np.int64))
    total = np.zeros((activations.shape[0], weights.shape[1]), np.int64)
    for one, two, a, b in zip(first, second, left, right, strict=True):
        total += np.clip(np.outer(a, one) + np.outer(b, two), LOW, HIGH)
    return total


def paired(matrix: Array) -> tuple[Array, Array]:
    """Return even and odd rows, a row of zeros added where one is missing."""
    if len(matrix) % 2:
        matrix = np.concatenate([matrix, np.zeros_like(matrix[:1])])
    return matrix[0::2], matrix[1::2]


def product_order(node: ir.Node, weight: Array) -> Array:
    """Return a layer's weight as [K, M], rows in the order in which the kernel multiplies: channels fastest."""
    if node.op_type == "Conv":  # [M, C/group, k…]
        return np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, weight.shape[0])
    return weight.T if node.op_type == "Gemm" and graph.attribute_int(node, "transB", 0) else weight


def cut(matrix: Array) -> None:
    """Take from each pair, equally from both, what it exceeds `MOST` by, in place.

    Args:
        matrix: Whole numbers from -127 to 127 [K, M], of any dtype.
    """
    first, second = matrix[: len(matrix) // 2 * 2 : 2], matrix[1::2]
    total = first + second  # of opposite signs it never exceeds anything
    sign, excess = np.sign(total), np.maximum(np.abs(total) - MOST, 0)
    half = excess // 2
    second -= sign * half
    first -= sign * (excess - half)


def clipped(integers: Array, readers: Iterable[ir.Node]) -> Array:
    """Return the integers of a weight with every pair `cut`, in the order of each of the nodes that multiply with it.

    To cut for one node only ever makes weights smaller, so those before it keep what they need.
    """
    result = integers.copy()
    for reader in readers:
        matrix = product_order(reader, result)
        cut(matrix)
        if reader.op_type == "Conv":  # whose matrix is a copy
            positions = matrix.reshape(*result.shape[2:], *result.shape[1::-1])
            result = np.ascontiguousarray(np.moveaxis(positions, (-1, -2), (0, 1)))
    return result


def limits(integers: Array, readers: Iterable[ir.Node]) -> tuple[Array, Array]:
    """Return (lowest, highest) integers of each weight with which no pair can saturate, of the weight's shape.

    A pair shares out equally what its nearest integers leave of `MOST`, or exceed it by.

    Args:
        integers: The weight on its grid, rounded to nearest.
        readers: The nodes that multiply with it, each in its own order.
    """
    lowest, highest = np.full(integers.shape, -MOST), np.full(integers.shape, MOST)
    places = np.arange(integers.size).reshape(integers.shape)
    for reader in readers:
        rows = product_order(reader, places)
        for end, sign, tighter in ((highest, 1, np.minimum), (lowest, -1, np.maximum)):
            first, second = paired(np.maximum(sign * integers.reshape(-1)[rows], 0))
            share = first + (MOST - first - second) // 2
            both = np.stack([share, MOST - share], axis=1).reshape(-1, rows.shape[1])[: len(rows)]
            flat = end.reshape(-1)
            flat[rows] = tighter(flat[rows], sign * both)
    return lowest, highest
