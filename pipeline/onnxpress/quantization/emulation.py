"""x86 CPUs without VNNI, emulated: what their int8 kernels make of a QDQ model.

There onnxruntime multiplies uint8 activations with int8 weights by ``vpmaddubsw``, which adds two neighbouring products
to an int16 and *saturates*: with activations up to 255, two weights of 65 are too much. Neighbours are consecutive
input channels at one kernel position, or consecutive rows of a matrix; depthwise convolutions have a kernel without
the problem (onnxruntime, mlas/lib/convsym.cpp and x86_64/QgemmU8X8KernelAvx2.S).

The emulation is a graph: what a pair exceeds the int16 by is computed from the same integers, in float and so without
an error, and taken off the layer's output. Only pairs that can exceed it at all are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import ModelError
from onnxpress.quantization.pairs import HIGH, LOW, product_order, risky
from onnxpress.quantization.params import Array
from onnxpress.running import over
from onnxpress_calibration.dataset import Dataset

SAMPLES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """What a layer loses on a CPU that saturates."""

    node: str
    op: str
    share: float
    """Of its output values that change."""
    error: float
    """Squared error relative to the squared signal, at its own output."""
    pairs: int
    """Pairs of weights that can saturate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A weighted node on integers, as the kernel sees it."""

    node: ir.Node
    activation: ir.Value
    """uint8 or int8, before it is dequantized."""
    shift: float
    """Added to signed activations: the kernel makes them unsigned first."""
    zero: float
    """Of the unsigned activations."""
    input_scale: float
    weights: Array
    """Integers in the order of the products, float64 [K, M]; each row belongs to one position and channel."""
    scales: Array
    """[M]."""
    rows: Array
    """Which row of all inputs (position · channels + channel) each product reads, int64 [K, M]: a group has its own."""
    kernel: tuple[int, ...]
    """Of a convolution; empty for a matrix."""


def emulate(model: ir.Model) -> ir.Model:
    """Return a float model that computes what a CPU without VNNI makes of a QDQ model; it is not changed.

    Its outputs differ from the QDQ model's by the saturation, and by float rounding elsewhere.
    """
    return _Emulation(model).model


def predict(model: ir.Model, data: Dataset) -> list[Saturation]:
    """Run a few samples through the emulation and return what each layer of a QDQ model loses, in the graph's order.

    Errors of layers before are in the activations of those behind, as they would be on such a CPU.

    Raises:
        DataError: the data does not fit the model.
    """
    emulation = _Emulation(model, measured=True)
    if not emulation.layers:
        return []
    few = replace(data, limit=min(SAMPLES, data.limit or SAMPLES))
    sums = np.zeros((len(emulation.layers), 4))
    for _, (results,) in over([emulation.model], few.batches(graph.input_specs(model))):
        sums += [[results[f"{layer.node.name}_{what}"] for what in _Emulation.SUMS] for layer in emulation.layers]
    return [
        Saturation(
            node=layer.node.name or "",
            op=layer.node.op_type,
            share=changed / max(count, 1),
            error=lost / signal if signal > 0 else 0.0,
            pairs=len(risky(layer.weights)[0]),
        )
        for layer, (lost, signal, changed, count) in zip(emulation.layers, sums.tolist(), strict=True)
    ]


class _Emulation:
    """Adds to a copy of a QDQ model what its layers lose, and where asked sums that tell how much."""

    SUMS = ("lost", "signal", "changed", "count")

    def __init__(self, model: ir.Model, *, measured: bool = False) -> None:
        self.model = model.clone()
        self.graph = self.model.graph
        self.new: list[ir.Node] = []
        self.layers = [layer for node in list(self.graph) if (layer := integer_layer(node)) is not None]
        for layer in self.layers:
            self.new = []
            self._add(layer, measured=measured)
            self.graph.insert_after(layer.node, self.new)

    def _add(self, layer: Layer, *, measured: bool) -> None:
        node, name = layer.node, layer.node.name or ""
        output = node.outputs[0]
        readers = list(output.uses())
        pair, column = risky(layer.weights)
        axis = 1 if node.op_type == "Conv" else -1
        result = output
        if len(pair):
            inputs = self._inputs(layer)
            products = [self._product(layer, inputs, 2 * pair + odd, column, axis) for odd in (0, 1)]
            both = self._node("Add", products, f"{name}_pairs")
            low, high = (self._constant(f"int16_{end}", np.float32(end)) for end in (LOW, HIGH))
            kept = self._node("Clip", [both, low, high], f"{name}_kept")
            over = self._node("Sub", [both, kept], f"{name}_over")
            loss = self._summed(layer, over, column)
            result = self._node("Sub", [output, loss], f"{name}_saturated")
            result.shape, result.type = output.shape, output.type
            for use in readers:
                use.node.replace_input_with(use.idx, result)
            for index, value in enumerate(self.graph.outputs):
                if value is output:
                    output.name, result.name = f"{name}_exact", output.name
                    self.graph.outputs[index] = result
        if measured:
            self._measure(name, output, result)

    def _inputs(self, layer: Layer) -> ir.Value:
        """Return all the integers that a layer multiplies as float: [N, positions · channels, …] or [..., K]."""
        node, name = layer.node, layer.node.name or ""
        values = self._node("Cast", [layer.activation], f"{name}_integers", {"to": int(ir.DataType.FLOAT)})
        if layer.shift:
            values = self._node("Add", [values, self._constant("shift", np.float32(layer.shift))], f"{name}_unsigned")
        if node.op_type != "Conv":
            return values
        kernel = layer.kernel
        strides, dilations, pads = _window(layer)
        rank = len(kernel)
        if any(pads):
            widths = np.array([0, 0, *pads[:rank], 0, 0, *pads[rank:]], np.int64)
            zero = self._constant(f"{name}_padding", np.float32(layer.zero))
            values = self._node("Pad", [values, self._constant(f"{name}_pads", widths), zero], f"{name}_padded")
        windows = []
        for position in np.ndindex(*kernel):
            starts = [at * step for at, step in zip(position, dilations, strict=True)]
            ends = [
                -(size - 1 - at) * step or np.iinfo(np.int64).max
                for at, size, step in zip(position, kernel, dilations, strict=True)
            ]
            label = f"{name}_window_{'_'.join(map(str, position))}"
            axes = np.arange(2, 2 + rank)
            parameters = [
                self._constant(f"{label}_{what}", np.asarray(value, np.int64))
                for what, value in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", strides))
            ]
            windows.append(self._node("Slice", [values, *parameters], label))
        return self._node("Concat", windows, f"{name}_windows", {"axis": 1})

    def _product(self, layer: Layer, inputs: ir.Value, row: Array, column: Array, axis: int) -> ir.Value:
        """Return one of the two products of each risky pair."""
        name = f"{layer.node.name}_{'second' if len(row) and row[0] % 2 else 'first'}"
        there = row < len(layer.weights)  # the last pair may have one member
        row = np.where(there, row, 0)
        weights = np.where(there, layer.weights[row, column], 0).astype(np.float32)
        shape = (-1, *[1] * (len(layer.kernel))) if axis == 1 else (-1,)
        picked = self._node(
            "Gather",
            [inputs, self._constant(f"{name}_rows", layer.rows[row, column])],
            f"{name}_picked",
            {"axis": axis},
        )
        return self._node("Mul", [picked, self._constant(f"{name}_weights", weights.reshape(shape))], name)

    def _summed(self, layer: Layer, over: ir.Value, column: Array) -> ir.Value:
        """Return the excess of each column's pairs, in the unit of the layer's output."""
        name, columns = layer.node.name or "", layer.weights.shape[1]
        spread = np.zeros((columns, len(column)), np.float32)
        spread[column, np.arange(len(column))] = layer.input_scale * layer.scales[column]
        if layer.node.op_type == "Conv":
            spread = spread.reshape(*spread.shape, *[1] * len(layer.kernel))
            return self._node("Conv", [over, self._constant(f"{name}_spread", spread)], f"{name}_loss")
        return self._node("MatMul", [over, self._constant(f"{name}_spread", spread.T.copy())], f"{name}_loss")

    def _measure(self, name: str, exact: ir.Value, saturated: ir.Value) -> None:
        """Add the layer's sums as outputs of the graph."""
        difference = self._node("Sub", [exact, saturated], f"{name}_difference")
        changed = self._node("Sign", [self._node("Abs", [difference], f"{name}_size")], f"{name}_touched")
        one = self._node("Mul", [exact, self._constant("zero_f32", np.float32(0))], f"{name}_zeros")
        ones = self._node("Add", [one, self._constant("one_f32", np.float32(1))], f"{name}_ones")
        values = (("ReduceSumSquare", difference), ("ReduceSumSquare", exact), ("ReduceSumSquare", changed))
        for what, (op, value) in zip(self.SUMS, (*values, ("ReduceSumSquare", ones)), strict=True):
            total = self._node(op, [value], f"{name}_{what}", {"keepdims": 0})
            total.shape, total.type = ir.Shape([]), ir.TensorType(ir.DataType.FLOAT)
            self.graph.outputs.append(total)

    def _constant(self, name: str, array: Array | np.generic) -> ir.Value:
        return graph.add_initializer(self.graph, name, np.asarray(array))

    def _node(
        self, op: str, inputs: Sequence[ir.Value], name: str, attributes: dict[str, int] | None = None
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes, name=name)
        node.outputs[0].name = name
        self.new.append(node)
        return node.outputs[0]


def integer_layer(node: ir.Node) -> Layer | None:
    """Read back a layer that a saturating kernel would run; None for any other node."""
    facts = graph.weighted(node)
    if facts is None or node.op_type == "ConvTranspose":
        return None
    entering, held = _dequantized(node.inputs[0]), _dequantized(node.inputs[facts.weight])
    if entering is None or held is None:
        return None
    (activation, input_scale, zero), (stored, scales, _) = entering, held
    integers = graph.constant(stored)
    if integers is None or integers.dtype != np.int8 or zero.dtype not in (np.uint8, np.int8):
        return None
    if node.op_type == "Conv":
        groups = graph.attribute_int(node, "group", 1)
        # Depthwise kernels, for one filter per channel, multiply in 16 bits and add in 32.
        if groups > 1 and integers.shape[:2] == (groups, 1):
            return None
    else:
        groups = 1
    matrix = product_order(node, integers)
    shift = 128.0 if zero.dtype == np.int8 else 0.0
    return Layer(
        node=node,
        activation=activation,
        shift=shift,
        zero=float(zero.item()) + shift,
        input_scale=float(input_scale.item()),
        weights=matrix.astype(np.float64),
        scales=np.broadcast_to(scales.astype(np.float64).reshape(-1), matrix.shape[1:]),
        rows=_rows(integers, groups) if node.op_type == "Conv" else np.indices(matrix.shape)[0],
        kernel=integers.shape[2:],
    )


def _rows(weight: Array, groups: int) -> Array:
    """Return which row of all inputs each product of a convolution reads: position · channels + channel, [K, M]."""
    outputs, channels = weight.shape[:2]
    positions = int(np.prod(weight.shape[2:]))
    position, channel = np.divmod(np.arange(positions * channels), channels)
    group = np.arange(outputs) // (outputs // groups)
    rows: Array = (position * channels * groups + channel)[:, None] + group * channels
    return rows


def _dequantized(value: ir.Value | None) -> tuple[ir.Value, Array, Array] | None:
    """Return (integers, scale, zero point) of what a DequantizeLinear with constant parameters makes."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    scale = graph.constant(node.inputs[1])
    zero = graph.constant(node.inputs[2]) if len(node.inputs) > 2 else np.int8(0)
    return None if scale is None or zero is None else (node.inputs[0], scale, np.asarray(zero))


def _window(layer: Layer) -> tuple[list[int], list[int], list[int]]:
    """Return strides, dilations and pads (begin …, end …) of a convolution."""
    node, kernel = layer.node, layer.kernel
    strides, dilations, pads = (
        list(node.attributes[name].as_ints()) if name in node.attributes else [default] * count
        for name, default, count in (
            ("strides", 1, len(kernel)),
            ("dilations", 1, len(kernel)),
            ("pads", 0, 2 * len(kernel)),
        )
    )
    padding = node.attributes.get_string("auto_pad", "NOTSET")
    if padding in ("SAME_UPPER", "SAME_LOWER"):
        quantize = layer.activation.producer()
        sizes = (graph.shape(quantize.inputs[0] if quantize else None) or (None, None, None))[2:]
        if None in sizes:
            raise ModelError(f"node {node.name!r}: auto_pad on a free size cannot be emulated. Give explicit pads.")
        totals = [
            max(0, (-(-(size or 1) // stride) - 1) * stride + (width - 1) * dilation + 1 - (size or 1))
            for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
        ]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = [*small, *large] if padding == "SAME_UPPER" else [*large, *small]
    return strides, dilations, pads
