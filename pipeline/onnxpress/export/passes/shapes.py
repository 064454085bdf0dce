"""Dtype and shape of every value: what onnx infers, and what the file already says.

Only what is inferred from the inputs may decide an edit. What the file says of intermediate values may be stale (people
rename the batch axis of the inputs and forget the rest), so it is kept aside and put back at the end, where inference
knows nothing: `known` and `restore`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.protos import without_weights

_log = logging.getLogger(__name__)


def known(model: ir.Model) -> dict[str, ir.Shape]:
    """Return the shapes that a model states for what its nodes compute, by name."""
    return {value.name: value.shape.copy() for value in _computed(model) if value.name and value.shape is not None}


def infer(model: ir.Model) -> None:
    """Replace the shapes of all computed values by what follows from the inputs and the weights.

    Outputs of operators that onnx does not know keep theirs.
    """
    for value in _computed(model):
        producer = value.producer()
        if producer is not None and producer.domain in graph.ONNX_DOMAINS:
            value.shape = None
    stripped = without_weights(model)
    for node in stripped.graph.node:
        if node.op_type == "GroupNormalization" and node.domain in graph.ONNX_DOMAINS:  # onnx infers nothing of it
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain == graph.MICROSOFT:
            node.domain = ""  # the same operator, for more types
    try:
        proto = onnx.shape_inference.infer_shapes(stripped, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        _log.info("shapes cannot be inferred: %s", error)
        return
    inferred = {value.name: value for value in _computed(ir.from_proto(proto))}
    for value in _computed(model):
        found = inferred.get(value.name)
        if found is not None:
            value.shape = found.shape
            value.type = value.type or found.type


def restore(model: ir.Model, stated: Mapping[str, ir.Shape]) -> None:
    """Fill in from the file what inference left open; drop the axis names that inference made up.

    An axis that inference ties to an input's named axis is not open, whatever number the file has for it.
    """
    named = {
        axis.value for value in model.graph.inputs for axis in value.shape or () if isinstance(axis, ir.SymbolicDim)
    }
    for value in _computed(model):
        said, found = stated.get(value.name or ""), value.shape
        if found is None:
            value.shape = None if said is None else said.copy()
            continue
        if said is None or len(said) != len(found):
            said = ir.Shape([None] * len(found))
        value.shape = ir.Shape(
            [
                axis if isinstance(axis, int) or (axis.value is not None and axis.value in named) else filler
                for axis, filler in zip(found, said, strict=True)
            ]
        )


def _computed(model: ir.Model) -> Iterator[ir.Value]:
    for body in model.graphs():
        for node in body:
            yield from (value for value in node.outputs if value.name)
