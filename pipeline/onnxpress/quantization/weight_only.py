"""Weights stored as 8 or 4 bits, activations left alone: smaller files, with calibration data at a smaller loss.

What the weights are multiplied by decides how they are stored:

* MatMul and Gemm become onnxruntime's MatMulNBits. With ``accuracy_level=4`` its kernels multiply integers and were
  faster than float on every size tried (`benchmarks/quantization/weight_only.py`); with the default level slower.
* A table that Gather looks up stays integers, and only what was looked up becomes float.
* Every other weight (Conv, LSTM, …) becomes ``Cast → Mul`` on the integers, which onnxruntime computes once, when it
  loads the model: the file is small and the kernels are the float model's. DequantizeLinear would be computed in every
  run (1.8 times the float model's time on MiniLM).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit, Skip
from onnxpress.graph import MICROSOFT
from onnxpress.quantization import embedding, placement
from onnxpress.quantization.blocks import bounds, fitting, pack, quantize_blocks
from onnxpress.quantization.layers import candidates
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import Array
from onnxpress.quantization.rounding import Reconstruction
from onnxpress.quantization.weights import Weights

INTEGER_PRODUCTS = 4
"""The value of ``accuracy_level`` with which MatMulNBits rounds activations to int8, block by block."""
MIN_SIZE = 1024
"""Smaller weights stay float: nothing to win."""
RECURRENT = ("GRU", "LSTM", "RNN")
OTHER_FLOATS = (ir.DataType.BFLOAT16, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


def write(
    model: ir.Model,
    selects: Callable[[str], bool],
    options: QuantizeOptions,
    rounding: Reconstruction | None = None,
) -> Edit:
    """Store the weights of a prepared model in fewer bits, in place.

    Args:
        model: A prepared model, bodies of If and Loop included; with 4 bits of opset 21 or newer where a weight
            other than a MatMul's or a table is stored.
        selects: Tells from a node's name whether its weight may be changed.
        options: For the bits and the size of a block.
        rounding: What rounds the weights that it knows (`onnxpress.quantization.rounding`); others go to the nearest.
    """
    writer = _Writer(model, options, rounding or Reconstruction())
    changed, skipped = [], []
    found = placement.tables(model, selects)
    for node in list(graph.nodes(model)):
        if node in found:
            continue
        weights = [index for index in _weights(node) if _stored_float(node.inputs[index])]
        if not weights:
            skipped += _left(node)
            continue
        reason = _refusal(node, weights, selects)
        if reason is not None:
            skipped.append(Skip(where=node.name or "", op=node.op_type, reason=reason))
            continue
        if _is_product(node):
            writer.product(node)
        else:
            for index in weights:
                writer.folded(node, index)
        changed.append(node.name or "")
    if options.bits == 8:
        tables = embedding.quantize(model.graph, found, Weights(), per_tensor=options.per_tensor)
    else:
        tables = [writer.table(node) for node in found]
    placement.remove_unused(model)
    facts = {"weights": len(changed), "tables": len(tables), "bits": options.bits}
    facts |= {} if rounding is None else {"reconstructed_weights": len(rounding.seen)}
    return Edit(model=model, changed=(*changed, *tables), skipped=tuple(skipped), facts=facts)


def products(model: ir.Model, selects: Callable[[str], bool]) -> list[ir.Node]:
    """Return the nodes of the main graph whose weights calibration data can be seen at."""
    return [
        node
        for node in model.graph
        if graph.weighted(node) is not None
        and graph.constant_tensor(node.inputs[0]) is None
        and (weights := [index for index in _weights(node) if _stored_float(node.inputs[index])])
        and _refusal(node, weights, selects) is None
    ]


def needs_int4(model: ir.Model, selects: Callable[[str], bool]) -> bool:
    """Tell whether 4 bits need ONNX's own int4, which exists since opset 21."""
    return any(
        _stored_float(node.inputs[index]) and not _is_product(node) and selects(node.name or "")
        for node in graph.nodes(model)
        for index in _weights(node)
    )


def _weights(node: ir.Node) -> tuple[int, ...]:
    """Return the inputs of a node that are weights."""
    if node.op_type in RECURRENT and node.domain in graph.ONNX_DOMAINS:
        return (1, 2)
    found = next((value for value in candidates(node) if graph.constant_tensor(value) is not None), None)
    return () if found is None or node.domain not in graph.ONNX_DOMAINS else (list(node.inputs).index(found),)


def _stored_float(value: ir.Value | None) -> bool:
    tensor = graph.constant_tensor(value)
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) > 1


def _left(node: ir.Node) -> list[Skip]:
    """Say it of a node whose weight is a float of another width, or that the runtime has fused."""
    if node.domain == MICROSOFT and (fused := placement.no_product(node)):
        return [Skip(where=node.name or "", op=node.op_type, reason=fused)]
    tensors = [tensor for index in _weights(node) if (tensor := graph.constant_tensor(node.inputs[index])) is not None]
    kinds = {tensor.dtype.name.lower() for tensor in tensors if tensor.dtype in OTHER_FLOATS and len(tensor.shape) > 1}
    reason = f"its weight is {', '.join(sorted(kinds))}, not float32"
    return [Skip(where=node.name or "", op=node.op_type, reason=reason)] if kinds else []


def _is_product(node: ir.Node) -> bool:
    """Tell whether MatMulNBits computes the same: two axes of weights, nothing transposed or scaled but them."""
    tensor = graph.constant_tensor(node.inputs[1]) if len(node.inputs) > 1 else None
    if tensor is None or len(tensor.shape) != 2:
        return False
    if node.op_type == "MatMul":
        dims = graph.shape(node.inputs[0])
        return dims is not None and len(dims) > 1
    if node.op_type != "Gemm" or not placement.plain_gemm(node):
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rank = None if bias is None else graph.shape(bias)
    return bias is None or (rank is not None and len(rank) == 1)


def _refusal(node: ir.Node, weights: list[int], selects: Callable[[str], bool]) -> str | None:
    if not selects(node.name or ""):
        return "excluded by include/exclude"
    values = [node.inputs[index] for index in weights]
    if all(
        value is not None and value.const_value is not None and value.const_value.size < MIN_SIZE for value in values
    ):
        return f"its weight has fewer than {MIN_SIZE} values"
    readers = {reader.name or "" for value in values if value is not None for reader in graph.consumers(value)}
    kept = next((name for name in sorted(readers) if not selects(name)), None)
    return None if kept is None else f"its weight is also that of {kept}, which is excluded"


class _Writer:
    """Stores weights in the main graph, each once in each form that is read; every body sees them there."""

    def __init__(self, model: ir.Model, options: QuantizeOptions, rounding: Reconstruction) -> None:
        self.model = model
        self.main = model.graph
        self.options = options
        self.rounding = rounding
        self.unfolded: dict[ir.Value, ir.Value] = {}
        """What the readers of a float weight read instead."""
        self.new: list[ir.Node] = []
        """What makes a weight float again, until it stands before all that may read it."""

    def product(self, node: ir.Node) -> None:
        """Replace a MatMul or Gemm by MatMulNBits."""
        weight, output, home = node.inputs[1], node.outputs[0], node.graph
        tensor = graph.constant_tensor(weight)
        assert tensor is not None and weight is not None and home is not None  # noqa: S101 - `_is_product`
        transposed = bool(node.op_type == "Gemm" and graph.attribute_int(node, "transB", 0))
        order = (0, 1) if transposed else (1, 0)
        outputs, inputs = (tensor.shape.numpy()[axis] for axis in order)
        name = f"{weight.name}_{'rows' if transposed else 'columns'}"
        bits, size = self.options.bits, fitting(self.options.block, inputs)
        if f"{name}_q{bits}" not in self.main.initializers:
            integers, scales = self._blocks(tensor, order, outputs, size)
            graph.add_initializer(self.main, f"{name}_q{bits}", pack(integers, bits))
            graph.add_initializer(self.main, f"{name}_s{bits}", scales)
        stored, scale = (self.main.initializers[f"{name}_{kind}{bits}"] for kind in "qs")
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": size}
        product = ir.node(
            "MatMulNBits",
            [node.inputs[0], stored, scale, *([] if bias is None else [None, None, bias])],
            attributes | {"accuracy_level": INTEGER_PRODUCTS},
            domain=MICROSOFT,
            name=node.name,
        )
        self.model.opset_imports[MICROSOFT] = 1
        result = product.outputs[0]
        result.shape, result.type = output.shape, output.type
        home.insert_before(node, product)
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        result.name, output.name = output.name, None
        home.remove(node, safe=True)

    def table(self, node: ir.Node) -> str:
        """Look a table of 4 bits up with GatherBlockQuantized."""
        table, home = node.inputs[0], node.graph
        array = graph.constant(table)
        assert table is not None and array is not None and home is not None  # noqa: S101 - `placement.tables`
        size, name = fitting(self.options.block, array.shape[1]), f"{table.name}_table"
        if f"{name}_q4" not in self.main.initializers:
            integers, scales = quantize_blocks(array, 4, size)
            packed = pack(integers, 4).reshape(len(array), -1)[:, : -(-array.shape[1] // 2)]
            graph.add_initializer(self.main, f"{name}_q4", packed)
            graph.add_initializer(self.main, f"{name}_s4", scales)
        stored, scale = (self.main.initializers[f"{name}_{kind}4"] for kind in "qs")
        attributes = {"block_size": size, "gather_axis": 0, "quantize_axis": 1, "bits": 4}
        gather = ir.node(
            "GatherBlockQuantized", [stored, node.inputs[1], scale], attributes, domain=MICROSOFT, name=node.name
        )
        self.model.opset_imports[MICROSOFT] = 1
        result, output = gather.outputs[0], node.outputs[0]
        result.shape, result.type = output.shape, output.type
        home.insert_before(node, gather)
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        result.name, output.name = output.name, None
        home.remove(node, safe=True)
        return node.name or ""

    def folded(self, node: ir.Node, index: int) -> None:
        """Let a node read its weight from integers that become float when the model is loaded."""
        value = node.inputs[index]
        tensor = graph.constant_tensor(value)
        assert value is not None and tensor is not None  # noqa: S101 - `_stored_float`
        if value not in self.unfolded:
            reduced = _reduced_axes(node, index, len(tensor.shape))
            make = self._bytes if self.options.bits == 8 else self._nibbles
            self.unfolded[value] = make(value.name or "", tensor, reduced)
            self.main.insert_before(self.main[0], self.new)
            self.new.clear()
        node.replace_input_with(index, self.unfolded[value])

    def _bytes(self, name: str, tensor: ir.TensorProtocol, reduced: tuple[int, ...]) -> ir.Value:
        array = tensor.numpy()
        axes = tuple(range(array.ndim)) if self.options.per_tensor else reduced
        scale = np.abs(array).max(axis=axes, keepdims=True) / np.float32(127)
        scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale).astype(np.float32)
        steps = self.rounding.steps(tensor, np.broadcast_to(scale, array.shape), -127, 127)
        integers = np.round(array / scale) if steps is None else steps
        stored = graph.add_initializer(self.main, f"{name}_q8", integers.astype(np.int8))
        return self._float(name, stored, graph.add_initializer(self.main, f"{name}_s8", scale))

    def _blocks(self, tensor: ir.TensorProtocol, order: Sequence[int], rows: int, size: int) -> tuple[Array, Array]:
        """Quantize a weight in blocks; with its axes in ``order`` the last ones make ``rows`` that are cut up."""
        moved, bits = tensor.numpy().transpose(order), self.options.bits
        matrix = moved.reshape(rows, -1)
        integers, scales = quantize_blocks(matrix, bits, size)
        spread = np.repeat(scales, size, axis=1)[:, : matrix.shape[1]].reshape(moved.shape)
        steps = self.rounding.steps(tensor, spread.transpose(np.argsort(order)), *bounds(bits))
        if steps is not None:
            flat = integers.reshape(rows, -1)  # a view: what fills up the last block stays zero
            flat[:, : matrix.shape[1]] = steps.transpose(order).reshape(rows, -1)
        return integers, scales

    def _nibbles(self, name: str, tensor: ir.TensorProtocol, reduced: tuple[int, ...]) -> ir.Value:
        """Store int4 as [outputs, blocks, block]: the axes of the output first, the rest cut into blocks."""
        lengths = tensor.shape.numpy()
        kept = [axis for axis in range(len(lengths)) if axis not in reduced]
        order = [*kept, *reduced]
        rows, columns = (math.prod(lengths[axis] for axis in axes) for axes in (kept, reduced))
        size = max(part for part in range(1, self.options.block + 1) if columns % part == 0)
        integers, scales = self._blocks(tensor, order, rows, size if size > 4 else columns)
        flat = np.append(integers.reshape(-1), np.zeros(integers.size % 2, np.int8))
        halves = pack(flat, 4) ^ 0x88  # ONNX stores int4 in two's complement
        packed = ir.PackedTensor(halves, ir.DataType.INT4, shape=ir.Shape(integers.shape), name=f"{name}_q4")
        stored = ir.Value(name=f"{name}_q4", const_value=packed, shape=packed.shape, type=ir.TensorType(packed.dtype))
        self.main.register_initializer(stored)
        unfolded = self._float(name, stored, graph.add_initializer(self.main, f"{name}_s4", scales[..., None]))
        shape = graph.add_initializer(self.main, f"{name}_shape", np.array([lengths[axis] for axis in order], np.int64))
        unfolded = self._node("Reshape", [unfolded, shape], f"{name}_shaped")
        back = np.argsort(order).tolist()
        return (
            unfolded if back == sorted(back) else self._node("Transpose", [unfolded], f"{name}_moved", {"perm": back})
        )

    def _float(self, name: str, stored: ir.Value, scale: ir.Value) -> ir.Value:
        cast = self._node("Cast", [stored], f"{name}_cast", {"to": int(ir.DataType.FLOAT)})
        return self._node("Mul", [cast, scale], f"{name}_f")

    def _node(
        self, op: str, inputs: list[ir.Value], name: str, attributes: Mapping[str, int | list[int]] | None = None
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes, name=name)
        node.outputs[0].name = name
        self.new.append(node)
        return node.outputs[0]


def _reduced_axes(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """Return the axes of a weight that share a scale: all but those of the outputs."""
    if node.op_type in RECURRENT:
        return (2,)  # [directions, gates · hidden, inputs]
    facts = graph.weighted(node)
    if facts is None or index != facts.weight:  # one scale per row of the first axis
        return tuple(range(1, rank))
    if node.op_type == "MatMul":
        return (rank - 2,)
    return tuple(axis for axis in range(rank) if axis != facts.out_axis % rank)
