"""What a model must be to be worked on: valid, without functions, in topological order."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import PreconditionError, common

from onnxpress.errors import ModelError
from onnxpress.export.protos import check

OPSET = 17
"""For models with an older one, or with none because they use other domains only: every recent runtime knows it."""
IR_VERSION = 8
"""What every runtime of the last years reads; before 4, weights had to be inputs."""


def normal_form(model: ir.Model) -> ir.Model:
    """Return a valid copy in which functions are inlined, the default domain has one name and nodes come in order.

    Raises:
        ModelError: a value that nothing defines, a cycle, a function that cannot be
            inlined, or whatever else onnx's checker refuses.
    """
    _refuse(model)
    try:
        copy = _sorted_copy(model)
        for graph in copy.graphs():
            if "ai.onnx" in graph.opset_imports:
                graph.opset_imports.setdefault("", graph.opset_imports.pop("ai.onnx"))
        copy.opset_imports.setdefault("", OPSET)
        common.InlinePass()(copy)
        copy.ir_version = max(copy.ir_version, IR_VERSION)
        check(copy)
    except (PreconditionError, ValueError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model: not valid ONNX, or not supported: {reason} Export it again.") from error
    return copy


def _refuse(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.producer() is None and value.graph is None:
                raise ModelError(
                    f"model: node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing defines."
                )


def _sorted_copy(model: ir.Model) -> ir.Model:
    """Return a copy in topological order; only such a graph can be copied, so the given one is in order meanwhile."""
    given = [(graph, list(graph)) for graph in model.graphs()]
    model.graph.sort()
    try:
        return model.clone()
    finally:
        for graph, nodes in given:
            graph.extend(nodes)
