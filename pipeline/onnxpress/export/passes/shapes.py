"""Dtype and shape of every value: what onnx infers, and what the file already says.

Only what is inferred from the inputs may decide an edit. What the file says of intermediate values may be stale (people
rename the batch axis of the inputs and forget the rest), so it is kept aside and put back at the end, where inference
knows nothing: `known` and `restore`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir

from onnxpress import graph, maps
from onnxpress.errors import ModelError
from onnxpress.export.protos import without_weights
from onnxpress.session import output_types

SAME = frozenset({"GroupNormalization", "LayerNormalization", "SimplifiedLayerNormalization"})
"""Operators whose first output is like their first input, and which onnx does not know in every operator set."""

MISFITS = re.compile("Dimension mismatch in unification|Incompatible dimensions")
"""What onnx says of shapes that no runtime multiplies or adds."""

_log = logging.getLogger(__name__)


def known(model: ir.Model) -> dict[str, ir.Shape]:
    """Return the shapes that a model states for what its nodes compute, by name."""
    return {value.name: value.shape.copy() for value in _computed(model) if value.name and value.shape is not None}


def infer(model: ir.Model) -> None:
    """Replace the shapes of all computed values by what follows from the inputs and the weights.

    Outputs of operators that onnx does not know keep theirs; where there is none, the runtime is asked.

    Raises:
        ModelError: two inputs of a node do not fit together.
    """
    for value in _computed(model):
        producer = value.producer()
        if producer is not None and producer.domain in graph.ONNX_DOMAINS:
            value.shape = None
    stripped, opset = without_weights(model), model.opset_imports.get("", 1)
    for node in stripped.graph.node:
        unknown = node.op_type == "GroupNormalization" or not onnx.defs.has(node.op_type, opset, "")  # infers nothing
        if node.op_type in SAME and node.domain in graph.ONNX_DOMAINS and unknown:
            node.op_type = "Identity"
            del node.input[1:], node.output[1:], node.attribute[:]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain == graph.MICROSOFT:
            node.domain = ""  # the same operator, for more types
    try:
        proto = _inferred(stripped)
    except onnx.shape_inference.InferenceError as error:
        _log.info("shapes cannot be inferred: %s", error)
        return
    inferred = {value.name: value for value in _computed(maps.from_proto(proto))}
    for value in _computed(model):
        found = inferred.get(value.name)
        if found is not None:
            value.shape = found.shape
            value.type = value.type or found.type
    _ask_runtime(model)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer what can be inferred.

    Raises:
        ModelError: two inputs of a node do not fit together.
        onnx.shape_inference.InferenceError: nothing can be inferred at all.
    """
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        if MISFITS.search(str(error)):
            reason = re.sub(r"\[ShapeInferenceError\] (Inference error\(s\): )?", "", " ".join(str(error).split()))
            raise ModelError(f"model: no input can run through it: {reason}. Export it again.") from error
        return onnx.shape_inference.infer_shapes(model, data_prop=True)  # what the file says may be wrong, and unused


def _ask_runtime(model: ir.Model) -> None:
    """Fill in what onnx left open behind operators that it does not know."""
    missing = [value for node in model.graph for value in node.outputs if value.name and _is_open(node, value)]
    if not missing:
        return
    exposed = maps.from_proto(without_weights(model))
    outputs = {value.name: value for node in exposed.graph for value in node.outputs}
    shown = {value.name for value in exposed.graph.outputs}
    exposed.graph.outputs.extend(outputs[value.name] for value in missing if value.name not in shown)
    try:
        found = output_types(exposed)
    except ModelError as error:
        _log.info("types cannot be asked of the runtime: %s", error)
        return
    for value in missing:
        kind, dims = found[value.name or ""]
        value.type = value.type or kind
        value.shape = value.shape or dims


def _is_open(node: ir.Node, value: ir.Value) -> bool:
    """Tell whether a type is not known, or the shape of what onnx infers nothing of."""
    return value.type is None or (value.shape is None and node.domain not in graph.ONNX_DOMAINS)


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
