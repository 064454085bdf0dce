"""Preparation: any ONNX graph becomes the plain inference graph that pruning and quantization work on.

Constants are initializers, BatchNormalization is folded, dense layers have one form, what does nothing is gone, shapes
are known, names are unique, and the operator set is one that int8 can be written in. What the model computes, its
inputs and its outputs stay. A prepared model prepared again does not change.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit
from onnxpress.export.passes import opset as opsets
from onnxpress.export.passes import shapes
from onnxpress.export.passes.batchnorm import fold_batchnorm, left
from onnxpress.export.passes.branches import inline_branches
from onnxpress.export.passes.constants import lift, remove_from_inputs
from onnxpress.export.passes.duplicates import merge_nodes, stored_twice, tie_weights
from onnxpress.export.passes.folding import fold_constants
from onnxpress.export.passes.form import normal_form
from onnxpress.export.passes.identities import remove_identities
from onnxpress.export.passes.names import name_uniquely
from onnxpress.export.passes.products import write_products
from onnxpress.export.passes.scalars import make_scalars
from onnxpress.export.passes.transposes import cancel_transposes
from onnxpress.export.passes.unused import remove_unused

FIRST = (name_uniquely, remove_from_inputs, lift)
REPEATED = (
    fold_constants,
    inline_branches,
    make_scalars,
    remove_identities,
    write_products,
    cancel_transposes,
    fold_batchnorm,
    merge_nodes,
    tie_weights,
    remove_unused,
)


def prepare(model: ir.Model, *, opset: int | None = None) -> Edit:
    """Normalize a model; see the module's docstring.

    Args:
        model: Any ONNX model; it is not changed.
        opset: The operator set to convert to. By default a model keeps its own if that is at least 13, else it gets 17.

    Returns:
        The prepared model, the names of what was changed or removed, each BatchNormalization that could not be folded
        and each weight that is stored twice. Facts are ``nodes_before``, ``nodes_after``, ``opset_before`` and
        ``opset_after`` (nodes in subgraphs count).

    Raises:
        UsageError: the opset asked for does not exist or is older than 13.
        ModelError: the model is not valid, or uses what is not supported; the message names it.
    """
    prepared = normal_form(model)
    goal = opsets.target(prepared, opset)
    facts = {"nodes_before": _count(prepared), "opset_before": graph.opset(prepared)}
    changed = [name for change in FIRST for name in change(prepared)]
    stated = shapes.known(prepared)
    if goal != graph.opset(prepared):
        prepared = opsets.convert(prepared, goal)
        changed += name_uniquely(prepared) + lift(prepared)
    opsets.raise_ir_version(prepared)
    while True:
        shapes.infer(prepared)
        names = [name for change in REPEATED for name in change(prepared)]
        if not names:
            break
        changed += names
    changed += name_uniquely(prepared)
    shapes.restore(prepared, stated)
    facts |= {"nodes_after": _count(prepared), "opset_after": graph.opset(prepared)}
    return Edit(
        model=prepared,
        changed=tuple(dict.fromkeys(changed)),
        skipped=(*left(prepared), *stored_twice(prepared)),
        facts=facts,
    )


def _count(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())
