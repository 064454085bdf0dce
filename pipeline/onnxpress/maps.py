"""Map types, which onnx_ir does not know: a model that gives maps (by ZipMap) is read without, written with them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """Return a model made from a proto, whose computed values that hold maps lose their type.

    Raises:
        Exception: what ``onnx_ir.from_proto`` raises.
    """
    for graph in _graphs(proto.graph):
        for value in (*graph.output, *graph.value_info):
            if _holds_map(value.type):
                value.ClearField("type")
    return ir.from_proto(proto)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return a model as a proto, in which what ZipMap gives has its type again."""
    proto = ir.to_proto(model)
    assert isinstance(proto, onnx.ModelProto)  # noqa: S101 - of a model it is
    restore(proto)
    return proto


def restore(proto: onnx.ModelProto) -> bool:
    """Give outputs that a ZipMap makes their type, in place; tell whether there were any without."""
    made = {node.output[0]: node for node in proto.graph.node if node.op_type == "ZipMap"}
    untyped = [value for value in proto.graph.output if value.name in made and not value.HasField("type")]
    for value in untyped:
        strings = any(attribute.name == "classlabels_strings" for attribute in made[value.name].attribute)
        entry = value.type.sequence_type.elem_type.map_type
        entry.key_type = onnx.TensorProto.STRING if strings else onnx.TensorProto.INT64
        entry.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        entry.value_type.tensor_type.shape.SetInParent()
    return bool(untyped)


def _holds_map(described: onnx.TypeProto) -> bool:
    kind = described.WhichOneof("value")
    if kind == "sequence_type":
        return _holds_map(described.sequence_type.elem_type)
    if kind == "optional_type":
        return _holds_map(described.optional_type.elem_type)
    return bool(kind == "map_type")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graphs(body)
