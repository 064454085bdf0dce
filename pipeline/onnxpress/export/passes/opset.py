"""Another version of the default operator set."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import ModelError, UsageError
from onnxpress.export.passes import scans
from onnxpress.export.passes.form import OPSET
from onnxpress.export.passes.shapes import infer
from onnxpress.export.protos import check, with_weights, without_weights

MINIMUM = 13
"""The first operator set in which QuantizeLinear and DequantizeLinear have a scale per channel."""
FREE_RESIZE = 11
"""The first operator set in which Resize has a choice of coordinates, with another default than the one before."""
GROUPED = 21
"""The first operator set in which GroupNormalization has a scale per channel; onnx's converter leaves one per group."""
ASIDE = "aside"
"""A domain for operators that onnx does not know, while it converts the others."""
IR_VERSIONS = {13: 8, 19: 9, 21: 10, 23: 11, 24: 12, 25: 13, 28: 14}
"""From which operator set on which IR version is needed (github.com/onnx/onnx, docs/Versioning.md)."""


def target(model: ir.Model, opset: int | None) -> int:
    """Return the operator set that a model is to have.

    Raises:
        UsageError: the one asked for is too old to quantize, or not known to the installed onnx.
    """
    newest = onnx.defs.onnx_opset_version()
    if opset is None:
        present = graph.opset(model)
        return present if present >= MINIMUM else OPSET
    if not MINIMUM <= opset <= newest:
        raise UsageError(
            f"opset {opset}: choose one from {MINIMUM} (the first with a scale per channel) to {newest} "
            f"(the newest that onnx {onnx.__version__} knows)."
        )
    return opset


def convert(model: ir.Model, opset: int) -> ir.Model:
    """Return the model with another default operator set.

    Raises:
        ModelError: an operator cannot be converted; the message names it.
    """
    present = graph.opset(model)
    try:
        proto = onnx.version_converter.convert_version(without_weights(_aside(model)), opset)
        converted = _back(with_weights(proto, model))
        if present == scans.BATCHED:
            scans.take_back(converted)
        if present < GROUPED <= opset:
            _widen_groups(converted)
        check(converted)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        found = re.search(r"No Adapter .*? for (\w+)|No Op registered for (\w+)|op_type: ?(\w+)", reason)
        operator = f"operator {next(filter(None, found.groups()))}" if found else "an operator"
        raise ModelError(
            f"model: {operator} cannot be converted from opset {present} to {opset} ({reason}). "
            "Export the model again with the opset that you need."
        ) from error
    if present < FREE_RESIZE:
        _keep_pixels(converted)
    return converted


def _aside(model: ir.Model) -> ir.Model:
    """Return a copy in which what only onnxruntime has in ONNX's domain lies in another one: no conversion knows it."""
    copy = model.clone()
    for node in copy.graph.all_nodes():
        if node.domain in graph.ONNX_DOMAINS and not onnx.defs.has(node.op_type, graph.opset(model), ""):
            node.domain = ASIDE
            copy.opset_imports[ASIDE] = 1
    if graph.opset(model) == scans.BATCHED:  # onnx's converter takes the axis off the model's inputs, too
        scans.lay_aside(copy)
    return copy


def _back(model: ir.Model) -> ir.Model:
    """Put back what was laid aside; it is the same in every operator set."""
    for node in model.graph.all_nodes():
        if node.domain == ASIDE:
            node.domain = ""
    model.opset_imports.pop(ASIDE, None)
    return model


def _widen_groups(model: ir.Model) -> None:
    """Give GroupNormalization a scale and a bias for each channel, where it had one for each group."""
    found = [node for node in model.graph.all_nodes() if graph.operator(node) == "GroupNormalization"]
    if found:
        infer(model)
    for node in found:
        dims = graph.shape(node.inputs[0])
        arrays = [graph.constant(value) for value in node.inputs[1:3]]
        if dims is None or len(dims) < 2 or dims[1] is None or any(array is None for array in arrays):
            raise RuntimeError("GroupNormalization: its channels are not known, or its scale or bias is computed")
        for position, array in enumerate(arrays, start=1):
            if array is not None:
                graph.set_constant(model.graph, node, position, np.repeat(array, dims[1] // len(array)))


def _keep_pixels(model: ir.Model) -> None:
    """Let Resize read the pixels that it and Upsample read before their attributes existed; the converter forgets."""
    for node in model.graph.all_nodes():
        if node.op_type == "Resize":
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "asymmetric"
            )
            if node.attributes.get_string("mode", "nearest") == "nearest":
                node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


def raise_ir_version(model: ir.Model) -> None:
    """Raise the IR version to what the operator set needs, no further: old runtimes refuse what they do not know."""
    present = graph.opset(model)
    needed = [version for opset, version in IR_VERSIONS.items() if opset <= present]
    model.ir_version = max(model.ir_version, *needed)
