"""What is known of a model file without timing it: sizes, operators, weights, lineage, and what runs as int8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import artifact, graph, macs, parameters
from onnxpress.artifact import Skip
from onnxpress.files import chunks, compressed_bytes

LISTED_WEIGHTS = 120
"""Weights that are described one by one; a large model has thousands, and the rest is one entry."""


def describe(path: Path, skipped: Iterable[Skip] = ()) -> dict[str, Any]:
    """Return `file_facts`, and which kernels the loaded session runs.

    Args:
        path: The model file.
        skipped: What the steps left alone, for the reasons.

    """
    from onnxpress.quantization.kernels import kernels

    return file_facts(path) | {"kernels": asdict(kernels(path, skipped))}


def file_facts(path: Path) -> dict[str, Any]:
    """Return what the files of a model say.

    Returns:
        ``sha256``, ``size_bytes``, ``compressed_bytes``, ``lineage``, ``parameters``, ``macs`` of one sample,
        ``opset``, ``operators`` (nodes by name; ``domain.Op`` outside ONNX's domain), ``bytes_by_dtype``, and
        ``weights``: the largest constants with ``name``, ``dtype``, ``bytes`` and ``zeros_pct``, the largest first.

    """
    found, model = artifact.read(path), artifact.load(path)
    tensors = list(artifact.tensors(model))
    by_dtype: Counter[str] = Counter()
    for tensor in tensors:
        by_dtype[_dtype(tensor)] += tensor.nbytes
    return {
        "sha256": found.sha256,
        "size_bytes": found.size_bytes,
        "compressed_bytes": compressed_bytes(piece for file in found.files for piece in chunks(file)),
        "lineage": list(found.lineage),
        "parameters": parameters.count(model),
        "macs": macs.total(model),
        "opset": graph.opset(model),
        "operators": dict(sorted(Counter(graph.operator(node) for node in graph.nodes(model)).items())),
        "bytes_by_dtype": dict(sorted(by_dtype.items())),
        "weights": _weights(tensors),
    }


def _weights(tensors: Sequence[ir.TensorProtocol]) -> list[dict[str, Any]]:
    largest = sorted(tensors, key=lambda tensor: (-tensor.nbytes, tensor.name or ""))
    listed = [
        {
            "name": tensor.name or "",
            "dtype": _dtype(tensor),
            "bytes": tensor.nbytes,
            "zeros_pct": round(100 * (1 - np.count_nonzero(tensor.numpy()) / max(1, tensor.size)), 2),
        }
        for tensor in largest[:LISTED_WEIGHTS]
    ]
    rest = largest[LISTED_WEIGHTS:]
    if rest:
        text = f"{len(rest)} smaller tensors"
        listed.append({"name": text, "dtype": "", "bytes": sum(one.nbytes for one in rest), "zeros_pct": None})
    return listed


def _dtype(tensor: ir.TensorProtocol) -> str:
    return tensor.dtype.name.lower()
