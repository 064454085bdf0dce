"""What a model must be to be worked on: valid, of tensors, without functions, in topological order."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import PreconditionError, common

from onnxpress.errors import ModelError
from onnxpress.export.protos import without_weights


def check(model: ir.Model) -> None:
    """Refuse by name what is not valid or not supported.

    Raises:
        ModelError: an input that is no tensor, a value that nothing defines, a graph that onnx's checker refuses.
    """
    for given in model.graph.inputs:
        if given.type is not None and not isinstance(given.type, ir.TensorType):
            kind = type(given.type).__name__.removesuffix("Type").lower()
            raise ModelError(
                f"model input {given.name!r}: is a {kind}, not a tensor, which is not supported. "
                "Export the model with tensors as inputs."
            )
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.producer() is None and value.graph is None:
                raise ModelError(
                    f"model: node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing defines "
                    "(sparse initializers are not supported: store that weight as a dense tensor)."
                )
    try:
        onnx.checker.check_model(without_weights(model))
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model: not valid ONNX: {reason} Export it again.") from error


def normal_form(model: ir.Model) -> ir.Model:
    """Return a copy in which functions are inlined, the default domain has one name and nodes come in order.

    Raises:
        ModelError: a cycle in the graph, or a function that cannot be inlined.
    """
    copy = model.clone()
    for graph in copy.graphs():
        if "ai.onnx" in graph.opset_imports:
            graph.opset_imports.setdefault("", graph.opset_imports.pop("ai.onnx"))
    try:
        common.InlinePass()(copy)
        copy.graph.sort()
    except (PreconditionError, ValueError) as error:
        raise ModelError(f"model: {error}") from error
    return copy
