"""Protocol buffers for the functions of the onnx package that need them; large weights stay outside.

A protocol buffer ends at two gigabytes, and copying weights through one only to learn shapes costs seconds. So a graph
goes there with its large initializers declared as inputs: dtype and shape are all that those functions ask of them.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from onnxpress import maps
from onnxpress.errors import ModelError
from onnxpress.session import SessionOptions, open_session

INLINE_BYTES = 1024
"""Smaller tensors go along: shapes, axes and scales, whose values decide what a node means."""


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """Return a model as a proto whose large initializers are inputs."""
    copy = model.clone()
    main = copy.graph
    for name, value in list(main.initializers.items()):
        if value.const_value is not None and value.const_value.nbytes > INLINE_BYTES:
            main.initializers.pop(name)
            value.const_value = None
            if not value.is_graph_input():
                main.inputs.append(value)
    return maps.to_proto(copy)


def with_weights(proto: onnx.ModelProto, model: ir.Model) -> ir.Model:
    """Return a model made from such a proto, with the weights and the metadata of the model it came from."""
    result = maps.from_proto(proto)
    outside = {name: value.const_value for name, value in model.graph.initializers.items()}
    kept = {value.name for value in model.graph.inputs}
    for value in list(result.graph.inputs):
        if value.name in outside and value.name not in result.graph.initializers:
            value.const_value = outside[value.name]
            result.graph.register_initializer(value)
        if value.name not in kept:
            result.graph.inputs.remove(value)
    result.metadata_props.update(model.metadata_props)
    return result


def check(model: ir.Model) -> None:
    """Refuse a model that is not valid; where onnx's checker refuses, onnxruntime has the last word.

    The checker sees the model without its weights. It insists that inputs and outputs have a rank, and does not know
    the operators that onnxruntime adds to ONNX's own domain (SimplifiedLayerNormalization, LayerNormalization before
    operator set 17), or that it still runs (GroupNormalization of set 18).

    Raises:
        onnx.checker.ValidationError: the model is not valid, and does not load.
    """
    proto = without_weights(model)
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        try:
            open_session(model, SessionOptions(threads=1, optimization="off"))
        except ModelError:
            raise error from None
