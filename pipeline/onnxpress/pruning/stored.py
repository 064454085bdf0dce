"""Weights of a quantized model: integers behind a DequantizeLinear (QDQ).

While channels are chosen, cut and repaired, such a weight is a float initializer like any other. The grid it is stored
on goes along with the value, and is cut with it. Put back, weights of which only channels were removed are the integers
they were. What a repair has changed is rounded to the grid; where it has outgrown it, the scale grows, and with it that
of the bias beside it, which kernels take to be the product of the scales of input and weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.export.passes.rewiring import initializer, remove
from onnxpress.graph import Array
from onnxpress.pruning.layout import label

GRID = "onnxpress.grid"
"""Where a value keeps its grid, in its ``meta``."""
KINDS = ("INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16", "INT32")
BIAS = ir.DataType.INT32
OPERATORS = [f"{domain}{op}Linear" for domain in ("", f"{graph.MICROSOFT}.") for op in ("Quantize", "Dequantize")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How a float weight is stored: ``weight = (integers - zero point) * scale`` (ONNX operator DequantizeLinear)."""

    node: str
    """Name of the DequantizeLinear."""
    domain: str
    names: tuple[str, ...]
    """Of what it reads: integers, scale and, where there is one, zero point."""
    dtype: ir.DataType
    low: int
    high: int
    """The integers in use go from ``low`` to ``high``: weights of six bits stay so."""
    scale: Array
    """One number, or one for each index of the axis."""
    zero_point: Array | None
    axis: int
    rank: int

    def cut(self, masks: Mapping[int, Array]) -> Grid:
        """Return the grid of what is kept, from masks by axis."""
        mask = masks.get(self.axis)
        if mask is None or self.scale.size == 1:
            return self
        zero_point = None if self.zero_point is None else self.zero_point[mask]
        return replace(self, scale=self.scale[mask], zero_point=zero_point)

    def dequantize(self, integers: Array) -> Array:
        """Return the weight that integers stand for."""
        weight = (integers.astype(np.float64) - self._zero()) * self._along(self.scale)
        floats: Array = weight.astype(self.scale.dtype)
        return floats

    def quantize(self, weight: Array) -> Array:
        """Return the integers that stand for a weight, rounded to nearest."""
        steps = np.rint(weight / self._along(self.scale)).astype(np.float64) + self._zero()
        integers: Array = np.clip(steps, self.low, self.high).astype(self.dtype.numpy())
        return integers

    def growth(self, weight: Array) -> Array:
        """Return by how much the scale must grow for a weight to fit in, shaped as the scale; at least 1."""
        others = tuple(i for i in range(self.rank) if i != self.axis or self.scale.size == 1)
        steps, zero = weight / self._along(self.scale).astype(np.float64), self._zero()
        over = np.maximum(steps / (self.high - zero + 0.5), steps / (self.low - zero - 0.5))  # half a step rounds off
        growth: Array = over.max(axis=others, initial=1.0).reshape(self.scale.shape)
        return growth

    def grown(self, growth: Array) -> Grid:
        """Return the grid with larger scales."""
        scale = (self.scale * growth).astype(self.scale.dtype)
        zero_point = None if self.zero_point is None else np.broadcast_to(self.zero_point, scale.shape)
        return replace(self, scale=scale, zero_point=zero_point)

    def _zero(self) -> Array:
        return np.zeros(()) if self.zero_point is None else self._along(self.zero_point.astype(np.float64))

    def _along(self, values: Array) -> Array:
        spread: Array = values.reshape([-1 if i == self.axis and values.size > 1 else 1 for i in range(self.rank)])
        return spread


def unpack(model: ir.Model) -> None:
    """Make every weight that is stored as integers a float initializer, in place; its grid goes along in its ``meta``.

    Left as they are: weights in blocks along an axis, in floats of 8 bits, and what a subgraph dequantizes. A float
    weight that is quantized when the model is loaded (QuantizeLinear → DequantizeLinear) counts as stored.
    """
    for node in list(model.graph):
        grid, array = _grid(node), graph.constant(node.inputs[0]) if node.inputs else None
        output = node.outputs[0] if node.outputs else None
        if grid is None or array is None or output is None or output.is_graph_output():
            continue
        name, output.name = str(output.name), None
        if node.op_type == "QuantizeLinear":
            value = initializer(model.graph, name, ir.Tensor(grid.quantize(array), dtype=grid.dtype))
        else:
            value = initializer(model.graph, name, ir.Tensor(grid.dequantize(array)))
            value.meta[GRID] = _narrowed(grid, array)
        ir.convenience.replace_all_uses_with(output, value)
        read = [each for each in node.inputs if each is not None]
        remove(node)
        for each in read:
            if each.is_initializer() and not each.uses() and not each.is_graph_input() and not each.is_graph_output():
                model.graph.initializers.pop(str(each.name), None)


def pack(model: ir.Model) -> None:
    """Store weights as integers again, in place: the opposite of `unpack`."""
    unpacked = [value for value in model.graph.initializers.values() if GRID in value.meta]
    growths: dict[ir.Node, Array] = {}
    for value in sorted(unpacked, key=lambda value: value.meta[GRID].dtype == BIAS):  # weights before biases
        grid, weight = value.meta[GRID], graph.constant(value)
        assert weight is not None  # noqa: S101 - it is an initializer
        readers = graph.consumers(value)
        if grid.dtype == BIAS:
            known = [growths[node] for node in readers if node in growths]
            growth = known[0] if known and known[0].size in (1, weight.size) else np.ones(())
        else:
            growth = grid.growth(weight)
            growths |= dict.fromkeys(readers, growth)
        _write(model.graph, value, weight, grid.grown(growth) if (growth > 1).any() else grid)


def packed(model: ir.Model) -> ir.Model:
    """Return a model as it will be stored: itself where no weight was unpacked, else a copy."""
    if not any(GRID in value.meta for value in model.graph.initializers.values()):
        return model
    copy = model.clone()
    pack(copy)
    return copy


def dtype(value: ir.Value) -> ir.DataType | None:
    """Return the type in which a value is, or will be, stored."""
    return value.meta[GRID].dtype if GRID in value.meta else value.dtype


def _grid(node: ir.Node) -> Grid | None:
    """Return the grid of a QuantizeLinear or DequantizeLinear with constant parameters; None for all other nodes."""
    if graph.operator(node) not in OPERATORS or graph.attribute_int(node, "block_size", 0):
        return None
    source, result = node.inputs[0], node.outputs[0]
    parameters = [value for value in node.inputs[1:] if value is not None]
    tensors = [graph.constant_tensor(value) for value in parameters]
    shape = graph.shape(source)
    if source is None or shape is None:
        return None
    dtype = (source if node.op_type == "DequantizeLinear" else result).dtype
    if dtype is None or dtype.name not in KINDS:
        return None
    arrays = [tensor.numpy() for tensor in tensors if tensor is not None]
    if len(arrays) < len(parameters) or arrays[0].ndim > 1:
        return None
    rank, least = len(shape), 0 if dtype.name.startswith("U") else -(2 ** (int(dtype.bitwidth) - 1))
    return Grid(
        node=label(node),
        domain=node.domain,
        names=tuple(str(value.name) for value in (source, *parameters)),
        dtype=dtype,
        low=least,
        high=least + 2 ** int(dtype.bitwidth) - 1,
        scale=arrays[0],
        zero_point=arrays[1] if len(arrays) > 1 else None,
        axis=graph.attribute_int(node, "axis", 1) % rank if rank > 1 else 0,
        rank=rank,
    )


def _narrowed(grid: Grid, integers: Array) -> Grid:
    """Return a grid of as many levels as a weight's integers take, where they are symmetric: 2^k, with or without -2^k.

    Six bits are stored as int8, too, and must stay six.
    """
    moved = grid.zero_point is not None and grid.zero_point.astype(np.int64).any()
    if grid.low == 0 or moved or grid.dtype == BIAS or not integers.size:
        return grid
    most, least = int(integers.max()), int(integers.min())
    top = 2 ** max(most, -least - 1, 1).bit_length() - 1
    return replace(grid, low=-top - 1 if least == -top - 1 else -top, high=top)


def _write(main: ir.Graph, value: ir.Value, weight: Array, grid: Grid) -> None:
    """Put a DequantizeLinear in the place of an initializer."""
    arrays = [(grid.quantize(weight), grid.dtype), (grid.scale, value.dtype), (grid.zero_point, grid.dtype)]
    inputs = [
        initializer(main, name, ir.Tensor(np.ascontiguousarray(array), dtype=kind))
        for name, (array, kind) in zip(grid.names, arrays, strict=False)
        if array is not None
    ]
    attributes = {"axis": grid.axis} if grid.scale.size > 1 else {}
    node = ir.node("DequantizeLinear", inputs, attributes, domain=grid.domain, name=grid.node)
    readers = [reader for reader in graph.consumers(value) if reader.graph is main]
    main.insert_before(min(readers, key=main.index) if readers else main[0], node)
    name = str(value.name)
    del main.initializers[name], value.meta[GRID]
    ir.convenience.replace_all_uses_with(value, node.outputs[0])
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = name, value.shape, value.type
