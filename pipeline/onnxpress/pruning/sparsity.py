"""Zeroing single weights: unstructured magnitude pruning and n:m patterns.

Shapes stay, so nothing runs faster on a CPU provider; zeros compress well, and 2:4 is what sparse tensor cores take.
Biases, normalization parameters and embeddings are left alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxpress import artifact, graph
from onnxpress.artifact import Skip
from onnxpress.files import compressed_bytes
from onnxpress.graph import Array
from onnxpress.pruning import criteria
from onnxpress.pruning.evidence import Evidence
from onnxpress.pruning.layout import label, obstacle
from onnxpress.pruning.options import PruneOptions
from onnxpress.pruning.weights import RECURRENT, Weight, weights_of


def sparsify(model: ir.Model, options: PruneOptions, evidence: Evidence) -> tuple[list[str], list[Skip], float]:
    """Zero weights, in place; return the changed nodes, what was left alone, and the share of zeros among weights."""
    found, skipped = _select(model, options)
    keeps: dict[ir.Value, Array | None]
    scores = {weight.value: criteria.score(options.criterion, weight, evidence) for weight in found}
    if options.pattern is not None:
        keeps = {weight.value: best_of(scores[weight.value], *options.pattern) for weight in found}
    elif options.allocation in ("auto", "global") and found:
        everything = np.concatenate([scores[weight.value].ravel() for weight in found])
        limits = np.cumsum([0, *(scores[weight.value].size for weight in found)])
        best = largest(everything, options.amount or 0)
        keeps = {
            weight.value: best[start:stop].reshape(scores[weight.value].shape)
            for weight, start, stop in zip(found, limits, limits[1:], strict=False)
        }
    else:
        keeps = {weight.value: largest(scores[weight.value], options.amount or 0) for weight in found}
    changed, zeros, total = [], 0, 0
    for weight in found:
        rows, keep = weight.rows(), keeps[weight.value]
        if keep is None:
            n, m = options.pattern or (0, 0)
            reason = f"its {rows.shape[1]} input channels are no multiple of {m}, so the pattern {n}:{m} does not fit"
            skipped.append(obstacle(weight.node, reason))
        else:
            rows = rows * keep.astype(rows.dtype)
            weight.store(rows)
            changed += [] if keep.all() else [label(weight.node)]
        zeros, total = zeros + int(np.count_nonzero(rows == 0)), total + rows.size
    return changed, skipped, zeros / total if total else 0.0


def _select(model: ir.Model, options: PruneOptions) -> tuple[list[Weight], list[Skip]]:
    found: dict[ir.Value, Weight] = {}
    skipped = []
    for node in graph.nodes(model):
        if not options.selects(label(node)):
            continue
        for weight in weights_of(node):
            found.setdefault(weight.value, weight)
        for value in node.inputs[1:2] if graph.weighted(node) is not None or node.op_type in RECURRENT else ():
            if value is not None and value.is_graph_input():
                reason = f"its weight {value.name!r} is a graph input, which the caller may replace"
                skipped.append(obstacle(node, reason))
            elif value is not None and not value.is_initializer() and graph.constant_tensor(value) is not None:
                skipped.append(obstacle(node, f"its weight {value.name!r} is a Constant node inside a subgraph"))
    return list(found.values()), skipped


def packed_bytes(model: ir.Model) -> int:
    """Return what all constants take when compressed, see `files.compressed_bytes`."""
    return compressed_bytes(artifact.content(tensor) for tensor in artifact.tensors(model))


def largest(scores: Array, amount: float) -> Array:
    """Return a mask that keeps all but the given share of a tensor: those of the smallest score; ties by position."""
    keep = np.ones(scores.size, np.bool_)
    keep[np.argsort(scores, axis=None, kind="stable")[: round(amount * scores.size)]] = False
    return keep.reshape(scores.shape)


def best_of(scores: Array, n: int, m: int) -> Array | None:
    """Return a mask that keeps the best ``n`` of every ``m`` consecutive input channels; None when they do not divide.

    Args:
        scores: [out, in, …].
        n: Weights kept.
        m: Weights in a row.

    """
    out, width = scores.shape[:2]
    if width % m:
        return None
    rows = scores.reshape(out, width // m, m, -1)
    rank = np.argsort(np.argsort(-rows, axis=2, kind="stable"), axis=2, kind="stable")
    return (rank < n).reshape(scores.shape)
