"""Whether a node can be float16, and what it then returns: asked of the runtime, one node at a time.

Operator definitions allow float16 by type variables; what an attribute says of a type, what a runtime has no kernel for
and what its own operators take, they do not tell. A model of one node costs less than a millisecond, and each
form of an operator is tried once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import ModelError
from onnxpress.export.protos import INLINE_BYTES
from onnxpress.session import output_types

SCATTERS = frozenset({"ScatterElements", "ScatterND"})
"""onnxruntime loads them in float16, and finds out in the first run that it cannot reduce that."""
HALF = ir.TensorType(ir.DataType.FLOAT16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A node in float16."""

    reads: tuple[bool, ...]
    """Which inputs are float16; the others stay what they are."""
    writes: tuple[bool, ...]
    """Which outputs are float16."""


def is_float(value: ir.Value | None) -> bool:
    """Tell whether a value is a float32 tensor; a sequence of such tensors is none."""
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT


def half_form(node: ir.Node, model: ir.Model) -> Form | None:
    """Return a node's form in float16; None where there is none that the runtime loads.

    Args:
        node: A node whose inputs and outputs have known types.
        model: That it is in, for its operator sets.
    """
    reads = _reads(node, graph.opset(model))
    reduces = node.op_type in SCATTERS and node.attributes.get_string("reduction", "none") != "none"
    if reduces or not any(reads):
        return None
    alone = _alone(node, reads, model)
    types = _types(ir.to_proto(alone).SerializeToString(deterministic=True))
    if types is None:
        return None
    writes = tuple(found == HALF and is_float(value) for value, found in zip(node.outputs, types, strict=True))
    for value, found, half in zip(node.outputs, types, writes, strict=True):
        if value.name and not half and found != value.type:  # a sequence of float16, ...
            return None
    return Form(reads=reads, writes=writes)


def _reads(node: ir.Node, opset: int) -> tuple[bool, ...]:
    """Tell for each input whether it is float32 and can be float16 by the operator's definition."""
    floats = tuple(is_float(value) for value in node.inputs)
    if node.domain == graph.MICROSOFT:  # onnx has no definitions of these
        return floats
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return ()
    types = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    formal = [types.get(each.type_str, [each.type_str]) for each in schema.inputs]
    return tuple(
        is_one and "tensor(float16)" in formal[min(index, len(formal) - 1)] for index, is_one in enumerate(floats)
    )


@lru_cache(maxsize=4096)
def _types(serialized: bytes) -> Sequence[ir.TypeProtocol | None] | None:
    """Return the types of the outputs of a model of one node; None where the runtime does not load it."""
    model = ir.from_proto(onnx.ModelProto.FromString(serialized))
    try:
        found = output_types(model)
    except ModelError:
        return None
    return [found[value.name][0] if value.name else None for value in model.graph[0].outputs]


def _alone(node: ir.Node, reads: Sequence[bool], model: ir.Model) -> ir.Model:
    """Return a model of this node only, in float16; small constants are in it, because types may follow from them."""
    inputs: list[ir.Value | None] = []
    constants = []
    for index, (value, half) in enumerate(zip(node.inputs, reads, strict=True)):
        inner = value and ir.val(f"in{index}", type=HALF if half else value.type, shape=value.shape)
        inputs.append(inner)
        tensor = graph.constant_tensor(value)
        if inner is not None and tensor is not None and tensor.nbytes <= INLINE_BYTES:
            array = tensor.numpy()
            with np.errstate(over="ignore"):
                inner.const_value = ir.tensor(array.astype(np.float16) if half else array, name=inner.name)
            constants.append(inner)
    copy = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
    for index, (value, inner) in enumerate(zip(node.outputs, copy.outputs, strict=True)):
        inner.name = f"out{index}" if value.name else ""
    body = ir.Graph(
        [value for value in inputs if value is not None and value not in constants],
        [value for value in copy.outputs if value.name],
        nodes=[copy],
        initializers=constants,
        opset_imports=dict(model.opset_imports),
    )
    return ir.Model(body, ir_version=model.ir_version)
