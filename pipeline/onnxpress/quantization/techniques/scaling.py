"""Which channels of a float model may be rescaled without changing what it computes.

Dividing a channel by ``s > 0`` where it is made and multiplying by ``s`` where it is summed over leaves the result as
it was, as long as everything in between is positively homogeneous, ``f(s · x) = s · f(x)``: Relu, LeakyRelu, PRelu,
pooling, zero padding, whatever moves values, and sums of channels that share one scale. Relu6 (Clip) is not: its bound
would have to move with the channel, so it ends the chain.

Which channels must share a scale is found with the bookkeeping of pruning (`onnxpress.pruning.layout`), with one
difference: a weighted operator, depthwise ones included, makes channels of its own. Source: M. Nagel et al.,
"Data-free quantization through weight equalization and bias correction", 2019 (arXiv:1906.04721), section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.graph import Array
from onnxpress.pruning import coupling
from onnxpress.pruning.coupling import Rule
from onnxpress.pruning.layout import Block, Layout, Numbers, length, obstacle
from onnxpress.pruning.weights import table_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """A node whose parameters can divide the channels it makes."""

    node: ir.Node
    parameters: tuple[tuple[int, int], ...]
    """(input, axis) of each parameter that has one entry per channel."""
    numbers: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A weighted node that sums over channels and can undo their scale."""

    node: ir.Node
    numbers: Numbers
    """Of its input channels."""

    def weight(self) -> Array:
        """Return its float weight as [outputs, input channels it sums over, positions]."""
        facts = graph.weighted(self.node)
        array = None if facts is None else graph.constant(self.node.inputs[facts.weight])
        assert facts is not None and array is not None  # noqa: S101 - the rule checked it
        moved = np.moveaxis(array, (facts.out_axis % array.ndim, facts.in_axis % array.ndim), (0, 1))
        return moved.reshape(*moved.shape[:2], -1)

    def entering(self) -> Numbers:
        """Return the number of the input channel behind each row of `weight`: [outputs, channels summed over]."""
        facts = graph.weighted(self.node)
        shape = None if facts is None else graph.shape(self.node.inputs[facts.weight])
        assert facts is not None and shape is not None  # noqa: S101
        outputs, width = shape[facts.out_axis], shape[facts.in_axis]
        assert outputs is not None and width is not None  # noqa: S101 - it is a constant
        groups = len(self.numbers) // width
        return np.repeat(self.numbers.reshape(groups, width), outputs // groups, axis=0)


class Scaling(Layout):
    """The channels of a model, who makes and who reads them."""

    def __init__(self, model: ir.Model) -> None:
        super().__init__(model)
        self.makers: list[Maker] = []
        self.readers: list[Reader] = []
        coupling.walk(self, model, RULES)
        self.fixed = frozenset(self.channels.obstacles())
        """Channels (roots) whose scale must stay 1."""

    def numbers(self, value: ir.Value) -> tuple[int, Numbers] | None:
        """Return the channel axis of a value and the root of each channel on it; None where it has none."""
        for block in self.blocks(value):
            if len(block.axes) == 1 and len(self.blocks(value)) == 1:
                return block.axes[0], self.channels.roots(block.numbers)
        return None

    def apply(self, model: ir.Model, scales: Array) -> None:
        """Divide every channel by its scale, in place.

        Args:
            model: The model that was followed, or a clone of it.
            scales: By root; 1 where nothing changes.
        """
        twins = dict(zip((node.name for node in model.graph), model.graph, strict=True))
        for maker in self.makers:
            factor = 1 / scales[self.channels.roots(maker.numbers)]
            for position, axis in maker.parameters:
                _multiply(model, twins[maker.node.name], position, axis, factor)
        for reader in self.readers:
            factor = scales[self.channels.roots(reader.entering())]  # [outputs, channels summed over]
            facts = graph.weighted(reader.node)
            assert facts is not None  # noqa: S101
            if (factor != 1).any():
                node = twins[reader.node.name]
                array = graph.constant(node.inputs[facts.weight])
                assert array is not None  # noqa: S101
                moved = np.moveaxis(array, (facts.out_axis % array.ndim, facts.in_axis % array.ndim), (0, 1))
                scaled = moved * factor.reshape(*factor.shape, *[1] * (moved.ndim - 2))
                back = np.moveaxis(scaled, (0, 1), (facts.out_axis % array.ndim, facts.in_axis % array.ndim))
                graph.set_constant(model.graph, node, facts.weight, back.astype(np.float32))
        for value, blocks in self.tracked().items():
            if graph.constant_tensor(value) is None:
                continue
            for block in blocks:
                factor = 1 / scales[self.channels.roots(block.numbers)]
                for node in graph.consumers(value):
                    twin = twins[node.name]
                    for position, entering in enumerate(node.inputs):
                        if entering is value:
                            _multiply(model, twin, position, block.axes[0], factor)


def _multiply(model: ir.Model, node: ir.Node, position: int, axis: int, factor: Array) -> None:
    """Multiply one input of a node along an axis."""
    array = graph.constant(node.inputs[position])
    assert array is not None  # noqa: S101 - the rule checked it
    if (factor != 1).any():
        axis %= array.ndim
        scaled = array * factor.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        graph.set_constant(model.graph, node, position, scaled.astype(np.float32))


# ----------------------------------------------------------------------------------------------------------------------
# Rules
# ----------------------------------------------------------------------------------------------------------------------


def _weighted(layout: Layout, node: ir.Node) -> None:
    assert isinstance(layout, Scaling)  # noqa: S101
    facts, x, result = graph.weighted(node), node.inputs[0], node.outputs[0]
    assert facts is not None and x is not None  # noqa: S101 - required by the operator
    bias = node.inputs[facts.bias] if facts.bias is not None and len(node.inputs) > facts.bias else None
    if node.op_type == "MatMul" and all(graph.constant_tensor(value) is None for value in node.inputs):
        _product(layout, node)
        return
    if not _is_parameter(node.inputs[facts.weight]) or not (bias is None or _is_vector(bias)) or _is_unusual(node):
        layout.refuse(node, "its weight or bias cannot be scaled")
        return
    channel = 1 if node.op_type == "Conv" else len(graph.shape(x) or ()) - 1
    for axis in range(len(graph.shape(x) or ())):
        if axis != channel:
            layout.seal(x, axis, obstacle(node, "sums over this axis, or treats it as rows"))
    if length(x, channel) is None:
        layout.refuse(node, "the number of its input channels is not known")
        return
    layout.readers.append(Reader(node=node, numbers=layout.track(x, channel, node)))
    outputs = length(node.inputs[facts.weight], facts.out_axis)
    assert outputs is not None  # noqa: S101 - a constant
    numbers = layout.channels.new(outputs)
    axis = 1 if node.op_type == "Conv" else len(graph.shape(result) or ()) - 1
    layout.put(result, [Block(axes=(axis,), numbers=numbers)])
    parameters = [(facts.weight, facts.out_axis)] + ([(2, 0)] if bias is not None else [])
    layout.makers.append(Maker(node=node, parameters=tuple(parameters), numbers=numbers))


def _product(layout: Scaling, node: ir.Node) -> None:
    """Multiply two activations: linear in both, as long as nothing that is summed over has a scale."""
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None and right is not None  # noqa: S101 - required by the operator
    layout.seal(left, len(graph.shape(left) or ()) - 1, obstacle(node, "sums over this axis"))
    layout.seal(right, len(graph.shape(right) or ()) - 2, obstacle(node, "sums over this axis"))
    coupling.RULES["MatMul"](layout, node)


def _layer_norm(layout: Layout, node: ir.Node) -> None:
    assert isinstance(layout, Scaling)  # noqa: S101
    layout.refuse(node, "normalizes")
    rank = len(graph.shape(node.outputs[0]) or ())
    parameters = [position for position in (1, 2) if position < len(node.inputs) and node.inputs[position] is not None]
    if graph.attribute_int(node, "axis", -1) % rank == rank - 1 and all(_is_vector(node.inputs[i]) for i in parameters):
        _make(layout, node, [(position, 0) for position in parameters])


def _make(layout: Scaling, node: ir.Node, parameters: list[tuple[int, int]]) -> None:
    """Let a node with one parameter per entry of the last axis make channels there."""
    result, first = node.outputs[0], node.inputs[parameters[0][0]]
    axis = len(graph.shape(result) or ()) - 1
    size = length(result, axis)
    if size is None or size != length(first, parameters[0][1]):
        return
    numbers = layout.channels.new(size)
    layout.put(result, [Block(axes=(axis,), numbers=numbers)])
    layout.makers.append(Maker(node=node, parameters=tuple(parameters), numbers=numbers))


def _add(layout: Layout, node: ir.Node) -> None:
    """Sums of channels with one scale; an operand must have an entry for every channel, no broadcast value."""
    axes = {axis for value in node.inputs for block in layout.blocks(value) for axis in _from_right(value, block)}
    if any(
        length(value, axis) is None or length(value, axis) != length(node.outputs[0], axis)
        for value in node.inputs
        for axis in axes
    ):
        layout.refuse(node, "adds one value to many channels")
        return
    coupling.RULES["Add"](layout, node)


def _from_right(value: ir.Value | None, block: Block) -> list[int]:
    rank = len(graph.shape(value) or ())
    return [axis - rank for axis in block.axes]


def _times(layout: Layout, node: ir.Node) -> None:
    """Mul and Div by a constant: scales pass, or begin in a constant that has one entry per channel."""
    assert isinstance(layout, Scaling)  # noqa: S101
    constants = [i for i, value in enumerate(node.inputs) if graph.constant_tensor(value) is not None]
    others = [value for i, value in enumerate(node.inputs) if i not in constants]
    if len(others) != 1 or others[0] is None or (node.op_type == "Div" and constants != [1]):
        layout.refuse(node, "multiplies channels with others")
    elif graph.shape(others[0]) != graph.shape(node.outputs[0]):
        layout.refuse(node, "spreads one value over many channels")
    elif layout.blocks(others[0]):
        layout.put(node.outputs[0], layout.blocks(others[0]))
    elif node.op_type == "Mul" and _is_parameter(node.inputs[constants[0]]):
        _make(layout, node, [(constants[0], -1)])


def _same(layout: Layout, node: ir.Node) -> None:
    layout.put(node.outputs[0], layout.blocks(node.inputs[0]))


def _pad(layout: Layout, node: ir.Node) -> None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    filling = graph.constant(value)
    if value is not None and (filling is None or filling.any()):
        layout.refuse(node, "pads with other than zeros")
    else:
        coupling.RULES["Pad"](layout, node)


def _gather(layout: Layout, node: ir.Node) -> None:
    if table_of(node) is not None:
        layout.refuse(node, "looks up rows of a table")
    else:
        coupling.RULES["Gather"](layout, node)


def _size(layout: Layout, node: ir.Node) -> None:
    """Sizes do not change."""


def _is_parameter(value: ir.Value | None) -> bool:
    """Tell whether a value is a float32 constant that one node alone reads."""
    tensor = graph.constant_tensor(value)
    return (
        value is not None
        and tensor is not None
        and tensor.dtype == ir.DataType.FLOAT
        and len(tensor.shape) > 0
        and len(value.uses()) == 1
    )


def _is_vector(value: ir.Value | None) -> bool:
    """Tell whether a value is a float32 constant with one entry per channel; others may read it too."""
    tensor = graph.constant_tensor(value)
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 1


def _is_unusual(node: ir.Node) -> bool:
    """Tell whether a Gemm has factors or a transposed input, or a MatMul more than a plain weight on the right."""
    if node.op_type == "MatMul":
        return len(graph.shape(node.inputs[1]) or ()) != 2 or len(graph.shape(node.inputs[0]) or ()) < 2
    factors = any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta"))
    return node.op_type == "Gemm" and (factors or graph.attribute_int(node, "transA", 0) != 0)


MOVING = (
    *("AveragePool", "Concat", "Expand", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean"),
    *("ReduceSum", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)
RULES: dict[str, Rule] = {
    **{op: coupling.RULES[op] for op in MOVING},
    **dict.fromkeys(("Conv", "Gemm", "MatMul"), _weighted),
    **dict.fromkeys(("Add", "Sub"), _add),
    **dict.fromkeys(("Mul", "Div", "PRelu"), _times),
    **dict.fromkeys(("Dropout", "Identity", "LeakyRelu", "Neg", "Relu"), _same),
    "LayerNormalization": _layer_norm,
    "Gather": _gather,
    "Pad": _pad,
    "Shape": _size,
}
