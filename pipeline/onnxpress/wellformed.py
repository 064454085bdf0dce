"""One check of a model file, when it is read: everything after it may rely on what is checked here.

A protocol buffer may hold anything that its types allow: tensors of terabytes without a byte of data, attributes
without a value, nodes that wait for each other, functions that call themselves. Whatever no exporter writes and no
runtime takes is refused here, in one line that says where it is. What is only unusual is put right in the buffer: nodes
out of order, sizes of -1, sparse tensors.

The rules are those of the ONNX specification (docs/IR.md, onnx.proto). onnx's own checker has more of them, some of
which onnxruntime does not ask for, and checks neither sizes against data nor expansion.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto

MOST_NAME = 1 << 16
"""Characters of a name."""
MOST_NODES = 1_000_000
"""Nodes of a model whose functions are written out."""
MOST_DENSE_BYTES = 1 << 28
"""A sparse tensor that takes more when it is written out is refused."""
MOST_INPUT, MOST_MADE = 1 << 28, 1 << 29
"""Values of an input (of one sample), and of what a node makes from a shape that is written in the model."""
LIMIT = 1 << 63
SHOWN = 80
ONNX_DOMAINS = frozenset({"", "ai.onnx"})
CHECKED_DOMAINS = ONNX_DOMAINS | {"ai.onnx.ml"}

FIELDS = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
"""Where an attribute of each type keeps its value."""
MESSAGES = frozenset({"t", "g", "sparse_tensor", "tp"})
"""Values that have no default: a number or a text that is not written is 0 or empty."""

DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
TYPED = {
    "FLOAT": "float_data",
    "COMPLEX64": "float_data",
    "DOUBLE": "double_data",
    "COMPLEX128": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
    "STRING": "string_data",
}
"""The field of values of a dtype; all others are in int32_data."""

MAKERS = {"ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Range": (0, 1, 2)}
"""Operators whose result is as large as numbers say, and the inputs that are those numbers."""
MOST_AXES = 64

LINEAGE_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "step": str,
    "options": dict,
    "versions": dict,
    "input_sha256": (str, type(None)),
    "source_sha256": (str, type(None)),
    "data_sha256": (str, type(None)),
}
"""What the steps of a lineage say of themselves."""


class MalformedError(Exception):
    """What is wrong with a model, and where; ready to follow the model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """What the nodes of a graph may refer to."""

    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str, str], onnx.FunctionProto]
    attributes: frozenset[str] | None = None
    """Names of the attributes of the function that the nodes are in; None outside of functions."""


def check(model: onnx.ModelProto, lineage_key: str) -> None:
    """Check a model, and put right what can be put right without changing what it computes.

    Raises:
        MalformedError: it is no model that any runtime takes.
    """
    _texts(model, "the model")
    if model.ir_version > onnx.IR_VERSION:
        raise MalformedError(
            f"IR version {model.ir_version}, the installed onnx {onnx.__version__} knows {onnx.IR_VERSION}"
        )
    functions = {}
    for function in model.functions:
        _texts(function, "a function")
        key = (_domain(function.domain), function.name, function.overload)
        if key in functions:
            raise MalformedError(f"function {_shown(function.name)} is defined twice")
        functions[key] = function
    if model.ir_version < 2:
        _name_attribute_types(model.graph)
    scope = _Scope(opsets=_opsets(model.opset_import), functions=functions)
    for name, user in _graph(model.graph, scope, "").items():
        raise MalformedError(f"{user}: {_shown(name)} is made by nothing")
    if not model.graph.output:
        raise MalformedError("has no outputs")
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") == "tensor_type" and not tensor.elem_type:
            raise MalformedError(f"input {_shown(value.name)} has no dtype")
        if math.prod(dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")) > MOST_INPUT:
            raise MalformedError(f"input {_shown(value.name)} takes more than {MOST_INPUT:,} values at a time")
    for function in model.functions:
        _function(function, functions, scope.opsets)
    _count_nodes(model.graph.node, functions)
    for entry in model.metadata_props:
        _texts(entry, "an entry of metadata")
        if entry.key == lineage_key:
            _lineage(entry.value)


def _opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    opsets: dict[str, int] = {}
    for each in imports:
        _texts(each, "an operator set")
        domain = _domain(each.domain)
        if opsets.setdefault(domain, each.version) != each.version:
            raise MalformedError(f"imports two operator sets of domain {_shown(each.domain)}")
        newest = onnx.defs.onnx_opset_version() if not domain else LIMIT
        if not 1 <= each.version <= newest:
            known = f", the installed onnx {onnx.__version__} knows {newest}" if not domain else ""
            raise MalformedError(f"operator set {domain or 'ai.onnx'} {each.version}{known}")
    return opsets


def _domain(domain: str) -> str:
    return "" if domain in ONNX_DOMAINS else domain


def _shown(name: str) -> str:
    return repr(name if len(name) <= SHOWN else f"{name[:SHOWN]}…")


def _texts(message: Message, where: str) -> None:
    """Refuse texts that are no UTF-8, which protobuf hands out as bytes; those of messages inside are not looked at."""
    for descriptor, value in message.ListFields():
        if descriptor.type != descriptor.TYPE_STRING:
            continue
        for text in (value,) if isinstance(value, (str, bytes)) else value:
            if isinstance(text, bytes):
                raise MalformedError(f"{where} has a {descriptor.name} that is no UTF-8 ({_shown(str(text)[2:-1])})")


def _named(name: str, what: str) -> str:
    if len(name) > MOST_NAME:
        raise MalformedError(f"{what} has a name of {len(name):,} characters")
    return name


def _where(node: onnx.NodeProto, index: int) -> str:
    name = _shown(_named(node.name, "a node")) if node.name else f"number {index}"
    return f"node {name} ({_shown(_named(node.op_type, 'an operator'))[1:-1]})"


@dataclass(slots=True)
class _Names:
    """The names that one graph defines: who makes each (-1: nobody, it is there), and what is read from around it."""

    makers: dict[str, int] = field(default_factory=dict)
    free: dict[str, str] = field(default_factory=dict)

    def define(self, name: str, maker: int, where: str) -> None:
        if _named(name, where) in self.makers:
            raise MalformedError(f"{where}: {_shown(name)} is defined twice")
        self.makers[name] = maker


def _graph(graph: onnx.GraphProto, scope: _Scope, inside: str) -> dict[str, str]:
    """Check a graph and those inside it; return the names it reads from around it, each with its reader."""
    names = _Names()
    _texts(graph, f"{inside}a graph")
    for value in (*graph.input, *graph.output, *graph.value_info):
        _texts(value, f"{inside}a value")
    for value in graph.input:
        names.define(value.name, -1, f"{inside}input {_shown(value.name)}")
    _write_out_sparse(graph)
    stored = set()
    for tensor in graph.initializer:
        if isinstance(tensor.name, bytes):
            raise MalformedError(f"{inside}an initializer has a name that is no UTF-8")
        where = f"{inside}initializer {_shown(tensor.name)}"
        if not tensor.name or tensor.name in stored:
            raise MalformedError(f"{where} {'is defined twice' if tensor.name else 'has no name'}")
        stored.add(_named(tensor.name, where))
        names.makers.setdefault(tensor.name, -1)  # an input of this name has it as its default
        _tensor(tensor, where)
    _nodes(graph.node, names, scope, inside)
    _made(graph, inside)
    outputs = set()
    for value in graph.output:
        where = f"{inside}output {_shown(value.name)}"
        if value.name in outputs:
            raise MalformedError(f"{where} is there twice")
        outputs.add(_named(value.name, where))
        if value.name not in names.makers:
            names.free.setdefault(value.name, where)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _type(value.type, f"{inside}value {_shown(value.name)}")
    return names.free


def _nodes(nodes: Any, names: _Names, scope: _Scope, inside: str) -> None:  # noqa: ANN401 - protobuf's list has no type
    """Check nodes, and bring them in an order in which each stands behind those that it reads from."""
    for index, node in enumerate(nodes):
        _texts(node, f"{inside}node number {index}")
        for name in filter(None, node.output):
            names.define(name, index, f"{inside}{_where(node, index)}")
    needs = []
    for index, node in enumerate(nodes):
        where = f"{inside}{_where(node, index)}"
        read = {name: where for name in node.input if name}
        for attribute in node.attribute:
            read |= _attribute(attribute, scope, where)
        _operator(node, scope, where)
        needs.append({names.makers[name] for name in read if names.makers.get(name, -1) >= 0})
        names.free |= {name: reader for name, reader in read.items() if name not in names.makers}
    order = _order(needs)
    if len(order) < len(needs):
        index = min(set(range(len(needs))) - set(order))
        raise MalformedError(f"{inside}{_where(nodes[index], index)} waits for its own result: the graph has a cycle")
    if order != list(range(len(needs))):
        sorted_nodes = [nodes[index] for index in order]
        del nodes[:]
        nodes.extend(sorted_nodes)


def _made(graph: onnx.GraphProto, inside: str) -> None:
    """Refuse nodes that make, from a few numbers in the model, more than there is memory."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" and node.domain in ONNX_DOMAINS else ():
            if attribute.name == "value" and attribute.HasField("t"):
                stored[node.output[0]] = attribute.t
    for index, node in enumerate(graph.node):
        if node.domain in ONNX_DOMAINS and node.op_type in MAKERS:
            operands = [
                _numbers(stored.get(node.input[each])) for each in MAKERS[node.op_type] if each < len(node.input)
            ]
            elements = 0.0
            if node.op_type != "Range":
                elements = math.prod(operands[0]) if operands else 0
            elif all(operands) and operands[2][0]:
                elements = (operands[1][0] - operands[0][0]) / operands[2][0]
            if elements > MOST_MADE:
                raise MalformedError(f"{inside}{_where(node, index)} makes {elements:,.0f} values out of nothing")


def _numbers(tensor: onnx.TensorProto | None) -> list[float]:
    """Return the values of a small tensor that is stored in the model; none of another."""
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL or math.prod(tensor.dims) > MOST_AXES:
        return []
    if tensor.data_type in (TensorProto.STRING, TensorProto.BOOL):
        return []
    return [float(value) for value in onnx.numpy_helper.to_array(tensor).ravel()]


def _order(needs: Sequence[set[int]]) -> list[int]:
    """Return the topological order that is nearest to the given one; what is in a cycle, or behind one, is left out."""
    readers: list[list[int]] = [[] for _ in needs]
    missing = [len(each) for each in needs]
    for index, each in enumerate(needs):
        for maker in each:
            readers[maker].append(index)
    ready, order = [index for index, count in enumerate(missing) if not count], []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order


def _type(described: onnx.TypeProto, where: str) -> None:
    """Check a type; a size below 0, as old exporters write for one that is not known, becomes unknown."""
    kind = described.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(described, kind)
        if tensor.elem_type not in _DATA_TYPES and tensor.elem_type:
            raise MalformedError(f"{where} has the unknown dtype {tensor.elem_type}")
        for dim in tensor.shape.dim:
            _texts(dim, f"{where}, a size")
            if dim.HasField("dim_value") and dim.dim_value < 0:
                dim.ClearField("dim_value")
        if math.prod(dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")) >= LIMIT:
            raise MalformedError(f"{where} has a shape of more than 2⁶³ elements")
    elif kind in ("sequence_type", "optional_type"):
        _type(getattr(described, kind).elem_type, where)
    elif kind == "map_type":
        _type(described.map_type.value_type, where)


_DATA_TYPES = {int(each): each for each in ir.DataType if each != ir.DataType.UNDEFINED}


def _bits(dtype: ir.DataType) -> int:
    return int(8 * dtype.itemsize)


def _tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Check that a tensor's data is what its dtype and shape say."""
    dtype = _DATA_TYPES.get(tensor.data_type)
    if dtype is None:
        known = "no dtype" if tensor.data_type == 0 else f"the unknown dtype {tensor.data_type}"
        raise MalformedError(f"{where} has {known}")
    shape = list(tensor.dims)
    elements = math.prod(shape)
    if min(shape, default=0) < 0 or elements >= LIMIT:
        raise MalformedError(f"{where} has the shape {_shown(str(shape))[1:-1]}")
    if tensor.HasField("segment"):
        raise MalformedError(f"{where} is a segment of a tensor, which no runtime reads")
    nbytes = 0 if dtype == ir.DataType.STRING else -(-elements * _bits(dtype) // 8)
    described = f"{where} is {dtype.name.lower()} {_shown(str(shape))[1:-1]}"
    if tensor.data_location == TensorProto.EXTERNAL:
        _external(tensor, dtype, nbytes, where)
        return
    present = [name for name in DATA_FIELDS if len(getattr(tensor, name))]
    if tensor.HasField("raw_data"):
        found = len(tensor.raw_data)
        if dtype == ir.DataType.STRING or found != nbytes:
            raise MalformedError(f"{described}, which takes {nbytes:,} bytes, and has {found:,}")
        if present:
            raise MalformedError(f"{where} has its data twice, in raw_data and {present[0]}")
        return
    name = TYPED.get(dtype.name, "int32_data")
    wrong = next((each for each in present if each != name), None)
    if wrong is not None:
        raise MalformedError(f"{described} with data in {wrong} in place of {name}")
    found, needed = len(getattr(tensor, name)), elements
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        needed = 2 * elements
    elif dtype.name not in TYPED and _bits(dtype) < 8:
        needed = nbytes
    if found != needed:
        raise MalformedError(f"{described}, which takes {needed:,} values, and has {found:,} in {name}")
    if name == "int32_data":
        _narrow(tensor, dtype, described)


def _narrow(tensor: onnx.TensorProto, dtype: ir.DataType, described: str) -> None:
    """Check that what is stored as int32 fits the dtype: as a number, or as its bits."""
    bits = max(_bits(dtype), 8)
    values = np.array(tensor.int32_data, np.int64)
    if len(values) and not (-(1 << (bits - 1)) <= values.min() and values.max() < 1 << bits):
        raise MalformedError(f"{described} with a value that it cannot hold ({values.min()} to {values.max()})")


def _external(tensor: onnx.TensorProto, dtype: ir.DataType, nbytes: int, where: str) -> None:
    for entry in tensor.external_data:
        _texts(entry, f"external data of {where}")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if dtype == ir.DataType.STRING or len(entries) < len(tensor.external_data):
        raise MalformedError(f"{where} is described wrongly as external data")
    location = entries.get("location", "")
    path = PurePosixPath(location.replace("\\", "/"))
    if not location or "\0" in location or len(location) > MOST_NAME:
        raise MalformedError(f"external data of {where}: {_shown(location)} is no file name")
    if path.is_absolute() or ".." in path.parts:
        raise MalformedError(f"external data of {where}: {_shown(location)} points outside the model's folder")
    for key in ("offset", "length"):
        text = entries.get(key, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < LIMIT):
            raise MalformedError(f"external data of {where}: {key} {_shown(text)} is no number of bytes")
    if "length" in entries and int(entries["length"]) != nbytes:
        raise MalformedError(f"external data of {where}: length {entries['length']}, it takes {nbytes:,} bytes")


def _attribute(attribute: onnx.AttributeProto, scope: _Scope, where: str) -> dict[str, str]:
    """Check an attribute; return the names that graphs in it read from around them."""
    _texts(attribute, f"{where}, an attribute")
    where = f"{where}, attribute {_shown(_named(attribute.name, where))}"
    if attribute.ref_attr_name:
        if scope.attributes is None or attribute.ref_attr_name not in scope.attributes:
            raise MalformedError(
                f"{where} refers to {_shown(attribute.ref_attr_name)}, which no function around it has"
            )
        return {}
    if attribute.type not in FIELDS:
        raise MalformedError(f"{where} has no type, or an unknown one ({attribute.type})")
    name = FIELDS[attribute.type]
    present = {descriptor.name for descriptor, _ in attribute.ListFields()} & set(FIELDS.values())
    if present - {name} or (name in MESSAGES and name not in present):
        kind = AttributeProto.AttributeType.Name(attribute.type)
        raise MalformedError(f"{where} is {kind} and holds {', '.join(sorted(present)) or 'nothing'}")
    for tensor in (attribute.t,) if name == "t" else attribute.tensors:
        _tensor(tensor, where)
    for described in (attribute.tp,) if name == "tp" else attribute.type_protos:
        _type(described, where)
    if name in ("sparse_tensor", "sparse_tensors"):
        raise MalformedError(f"{where} is a sparse tensor. Only initializers and constants may be")
    free: dict[str, str] = {}
    for graph in (attribute.g,) if name == "g" else attribute.graphs:
        free |= _graph(graph, scope, f"{where.partition(' (')[0]}: ")
    return free


def _operator(node: onnx.NodeProto, scope: _Scope, where: str) -> None:
    """Check a node against what its operator asks for, as far as onnx knows it."""
    if not node.op_type:
        raise MalformedError(f"{where} has no operator")
    given = {attribute.name: attribute for attribute in node.attribute}
    if len(given) < len(node.attribute):
        raise MalformedError(f"{where} has two attributes of one name")
    domain = _domain(node.domain)
    if domain not in CHECKED_DOMAINS or (domain, node.op_type, node.overload) in scope.functions:
        return
    schema = _schema(node.op_type, scope.opsets.get(domain, 1), domain)
    if schema is None:
        return
    inputs = len(node.input)
    while inputs and not node.input[inputs - 1]:
        inputs -= 1
    if not schema.min_input <= inputs <= schema.max_input:
        raise MalformedError(f"{where} has {inputs} inputs, it takes {_span(schema.min_input, schema.max_input)}")
    if not schema.min_output <= len(node.output) <= schema.max_output:
        raise MalformedError(
            f"{where} has {len(node.output)} outputs, it has {_span(schema.min_output, schema.max_output)}"
        )
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    for name, parameter in zip(node.input, schema.inputs, strict=False):
        if not name and parameter.option == single:
            raise MalformedError(f"{where} lacks its input {parameter.name}")
    kinds = AttributeProto.AttributeType
    for name, expected in schema.attributes.items():
        wanted = kinds.Value(str(expected.type).rpartition(".")[2])
        if name in given and given[name].type != wanted:
            found = kinds.Name(given[name].type)
            raise MalformedError(f"{where}, attribute {name} is {found} in place of {kinds.Name(wanted)}")
        if expected.required and name not in given:
            raise MalformedError(f"{where} lacks its attribute {name}")


def _span(least: int, most: int) -> str:
    if most >= 1 << 30:
        return f"at least {least}"
    return str(least) if least == most else f"{least} to {most}"


@cache
def _schema(operator: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(operator, version, domain)
    except onnx.defs.SchemaError:
        return None


def _function(
    function: onnx.FunctionProto,
    functions: Mapping[tuple[str, str, str], onnx.FunctionProto],
    opsets: Mapping[str, int],
) -> None:
    where = f"function {_shown(function.name)}: "
    names = _Names()
    for name in function.input:
        names.define(name, -1, f"{where}input {_shown(name)}")
    attributes = frozenset(function.attribute) | {each.name for each in function.attribute_proto}
    scope = _Scope(opsets={**opsets, **_opsets(function.opset_import)}, functions=functions, attributes=attributes)
    for attribute in function.attribute_proto:
        _attribute(attribute, scope, where.rstrip(": "))
    _nodes(function.node, names, scope, where)
    for name in function.output:
        if name not in names.makers:
            names.free.setdefault(name, f"{where}output {_shown(name)}")
    for name, user in names.free.items():
        raise MalformedError(f"{user}: {_shown(name)} is made by nothing")


def _count_nodes(nodes: Iterable[onnx.NodeProto], functions: Mapping[tuple[str, str, str], onnx.FunctionProto]) -> None:
    """Refuse functions that call themselves, and a model that is endless when they are written out."""
    counts: dict[tuple[str, str, str], int | None] = {}

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        return sum(called(node) + count(_inner(node)) for node in nodes)

    def called(node: onnx.NodeProto) -> int:
        key = (_domain(node.domain), node.op_type, node.overload)
        if key not in functions:
            return 1
        if key not in counts:
            if len(counts) > SHOWN * 10:
                raise MalformedError(f"more than {SHOWN * 10} functions call each other")
            counts[key] = None
            counts[key] = count(functions[key].node)
        known = counts[key]
        if known is None:
            raise MalformedError(f"function {_shown(node.op_type)} calls itself")
        return known

    total = count(nodes)
    for function in functions.values():
        total = max(total, count(function.node))
    if total > MOST_NODES:
        raise MalformedError(f"its functions, written out, are more than {MOST_NODES:,} nodes")


def _inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from graph.node


def _write_out_sparse(graph: onnx.GraphProto) -> None:
    """Replace sparse initializers and constants by dense ones: no runtime keeps them sparse.

    Raises:
        MalformedError: one is not well formed, or takes more than `MOST_DENSE_BYTES` when it is dense.
    """
    for sparse in graph.sparse_initializer:
        where = f"sparse initializer {_shown(sparse.values.name)}"
        graph.initializer.append(_dense(sparse, where))
    del graph.sparse_initializer[:]
    for index, node in enumerate(graph.node):
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                attribute.t.CopyFrom(_dense(attribute.sparse_tensor, _where(node, index)))
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", AttributeProto.TENSOR


def _dense(sparse: onnx.SparseTensorProto, where: str) -> onnx.TensorProto:
    for part in (sparse.values, sparse.indices):
        _tensor(part, where)
        if part.data_location == TensorProto.EXTERNAL:
            raise MalformedError(f"{where} lies in an external file, which no exporter writes")
    shape, count = tuple(sparse.dims), math.prod(sparse.values.dims)
    elements = math.prod(shape)
    if sparse.values.data_type == TensorProto.STRING or sparse.indices.data_type != TensorProto.INT64:
        raise MalformedError(f"{where} has values or indices of the wrong dtype")
    if min(shape, default=0) < 0 or elements * _bits(_DATA_TYPES[sparse.values.data_type]) > 8 * MOST_DENSE_BYTES:
        raise MalformedError(
            f"{where}: {list(shape)} takes more than {MOST_DENSE_BYTES:,} bytes when it is written out"
        )
    values, indices = onnx.numpy_helper.to_array(sparse.values).ravel(), onnx.numpy_helper.to_array(sparse.indices)
    if indices.shape == (count, len(shape)) and len(shape) != 1:
        inside = ((indices >= 0) & (indices < shape)).all()
        flat = np.ravel_multi_index(tuple(indices.T), shape) if inside and count else np.empty(0, np.int64)
    else:
        flat = indices.ravel()
    if flat.shape != (count,) or not ((flat >= 0) & (flat < elements)).all() or len(np.unique(flat)) < count:
        raise MalformedError(f"{where}: its indices do not fit {count} values in {list(shape)}")
    dense = np.zeros(elements, values.dtype)
    dense[flat] = values
    return onnx.numpy_helper.from_array(dense.reshape(shape), sparse.values.name)


def _name_attribute_types(graph: onnx.GraphProto) -> None:
    """Write down the types of attributes, which the first version of the format did not have."""
    for node in graph.node:
        for attribute in node.attribute:
            present = [
                kind for kind, name in FIELDS.items() if name in {each.name for each, _ in attribute.ListFields()}
            ]
            if attribute.type == AttributeProto.UNDEFINED and len(present) == 1:
                attribute.type = present[0]


def _lineage(text: str) -> None:
    """Check that the lineage is a list of steps.

    Raises:
        MalformedError: it is not.
    """
    try:
        steps = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"its lineage is no JSON ({error})") from error
    for step in steps if isinstance(steps, list) else [None]:
        if not isinstance(step, dict) or "step" not in step:
            raise MalformedError("its lineage is no list of steps")
        for key, kinds in LINEAGE_TYPES.items():
            if key in step and not isinstance(step[key], kinds):
                raise MalformedError(f"its lineage has {key} {_shown(str(step[key]))}")
