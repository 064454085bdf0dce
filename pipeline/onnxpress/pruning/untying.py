"""What would tie channels without need is taken out of a model before it is analysed; it computes the same."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxpress import graph
from onnxpress.export.passes.rewiring import initializer
from onnxpress.pruning.weights import RECURRENT


def untie_parameters(model: ir.Model) -> None:
    """Give every reader of a bias or scale its own copy: equal values must not tie the channels of unrelated layers."""
    for value in list(model.graph.initializers.values()):
        sizes = [size for size in graph.shape(value) or () if size != 1]
        uses = value.uses()
        if len(sizes) != 1 or len(uses) < 2 or value.is_graph_output():
            continue
        array = graph.constant(value)
        if array is not None:
            for node, position in list(uses)[1:]:
                own = initializer(model.graph, str(value.name), ir.tensor(array))
                own.meta.update(value.meta)
                node.replace_input_with(position, own)


ZERO_STAYS = ("Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")


def drop_zero_states(model: ir.Model) -> None:
    """Leave out initial states of recurrent layers that are zero, as PyTorch writes them: zero is the default.

    Written for any batch size, their width is computed at run time, which would tie the hidden units.
    """
    for node in model.graph:
        if node.op_type in RECURRENT:
            for position in range(5, min(len(node.inputs), 7)):
                if _is_zero(node.inputs[position]):
                    node.replace_input_with(position, None)
    RemoveUnusedNodesPass()(model)


def _is_zero(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type in ZERO_STAYS:
        return _is_zero(producer.inputs[0])
    if producer is not None and producer.op_type == "ConstantOfShape":
        filler = producer.attributes.get("value")
        return filler is None or not filler.as_tensor().numpy().any()
    array = graph.constant(value)
    return array is not None and not array.any()
