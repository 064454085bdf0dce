"""Multiply-accumulates of one sample, by operator.

An axis whose size is not fixed counts as 1, or as what the caller says that it is (`sizes`), so that a network with a
free spatial or time axis is weighed, too, and every command weighs it alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import UsageError, did_you_mean

Sizes = Mapping[str, tuple[int | None, ...]]
"""Shapes by the name of a value, where they say more than the value itself."""
FIXED: Sizes = MappingProxyType({})
"""Nothing more than that."""
Shape = Sequence[int]


def free_axes(model: ir.Model) -> list[str]:
    """Return the names of the inputs' axes without a fixed size; ``INPUT_2`` for a third axis that has no name."""
    named = [_axis(value, index) for value in graph.inputs(model) for index in range(len(value.shape or ()))]
    return list(dict.fromkeys(name for name in named if name is not None))


def sizes(model: ir.Model, given: Mapping[str, int]) -> Sizes:
    """Return the shapes of all values where free axes of the inputs have these sizes, by their names in `free_axes`.

    Raises:
        UsageError: the model has no free axis of a name.
    """
    if not given:
        return FIXED
    from onnxpress.export.passes import shapes

    known = free_axes(model)
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) if known else " All axes of its inputs are fixed."
            raise UsageError(f"shape {name}: the model has no such free axis.{hint}")
    fixed = model.clone()
    for value in graph.inputs(fixed):
        if value.shape is not None:
            axes = [given.get(_axis(value, index) or "", size) for index, size in enumerate(value.shape)]
            value.shape = ir.Shape(axes)
    shapes.infer(fixed)
    values = [*fixed.graph.inputs, *(output for node in graph.nodes(fixed) for output in node.outputs)]
    return {value.name or "": dims for value in values if (dims := graph.shape(value)) is not None}


def stated(model: ir.Model, given: Mapping[str, int]) -> str:
    """Say what the free axes of a model count as; empty where it has none."""
    free = free_axes(model)
    open_axes = [name for name in free if name not in given]
    words = [f"{name} = {given[name]}" for name in free if name in given]
    words += [f"{', '.join(open_axes)} = 1"] if open_axes else []
    return ", ".join(words)


def total(model: ir.Model, known: Sizes = FIXED) -> int:
    """Return the multiply-accumulates of a model for one sample; a body counts once, a node of unknown rank as zero."""
    return sum(of(node, known) or 0 for node in graph.nodes(model))


def of(node: ir.Node, known: Sizes = FIXED) -> int | None:
    """Return the multiply-accumulates of a node for one sample; 0 for what does not multiply, None where unknown.

    Args:
        node: Of any operator, onnxruntime's fused and integer ones too.
        known: What `sizes` returned.
    """
    count = OPERATORS.get(node.op_type) if node.domain in (*graph.ONNX_DOMAINS, graph.MICROSOFT) else None
    return 0 if count is None else count(node, known)


def _axis(value: ir.Value, index: int) -> str | None:
    size = None if value.shape is None else value.shape[index]
    return None if isinstance(size, int) else getattr(size, "value", None) or f"{value.name}_{index}"


def _shape(value: ir.Value | None, known: Sizes) -> Shape | None:
    """Return a shape with the sizes of free axes, 1 where nothing says them; None where the rank is not known."""
    dims = graph.shape(value)
    said = () if value is None else known.get(value.name or "", ())
    if dims is None:
        return None if not said else [1 if size is None else size for size in said]
    if len(said) != len(dims):
        said = tuple(None for _ in dims)
    return [(other or 1) if size is None else size for size, other in zip(dims, said, strict=True)]


def _shapes(values: Iterable[ir.Value | None], known: Sizes) -> list[Shape] | None:
    found = [_shape(value, known) for value in values]
    return None if any(dims is None for dims in found) else [dims or () for dims in found]


def _convolution(weight: int) -> Callable[[ir.Node, Sizes], int | None]:
    """Each output element takes one MAC for each weight of its channel."""

    def count(node: ir.Node, known: Sizes) -> int | None:
        dims = _shapes([node.inputs[weight], node.outputs[0]], known)
        return None if dims is None else math.prod(dims[0]) * math.prod(dims[1][2:])

    return count


def _transposed(node: ir.Node, known: Sizes) -> int | None:
    """Each input element takes one MAC for each weight of its channel."""
    dims = _shapes(node.inputs[:2], known)
    return None if dims is None else math.prod(dims[1]) * math.prod(dims[0][2:])


def _product(right: int) -> Callable[[ir.Node, Sizes], int | None]:
    def count(node: ir.Node, known: Sizes) -> int | None:
        dims = _shapes([node.inputs[0], node.inputs[right], node.outputs[0]], known)
        if dims is None or not dims[0] or not dims[1]:
            return None
        left, other, out = dims
        rows = left[::-1] if graph.attribute_int(node, "transA", 0) else left
        columns = other if graph.attribute_int(node, "transB", 0) else other[::-1][1:2] or other
        inner = max(rows[-1], columns[-1])  # free in one, and fixed by the other
        return math.prod(out[1:] if len(out) > 1 else out) * inner

    return count


def _blocks(node: ir.Node, known: Sizes) -> int | None:
    out = _shape(node.outputs[0], known)
    return None if out is None else math.prod(out[1:] if len(out) > 1 else out) * graph.attribute_int(node, "K", 1)


def _recurrent(node: ir.Node, known: Sizes) -> int | None:
    dims = _shapes(node.inputs[:3], known)
    if dims is None or not dims[0]:
        return None
    steps = dims[0][1 if graph.attribute_int(node, "layout", 0) else 0]
    return steps * sum(math.prod(each) for each in dims[1:])


def _einsum(node: ir.Node, known: Sizes) -> int | None:
    """Multiply the lengths of all axes, that of the samples left out."""
    from onnxpress.export.passes.products import terms

    axes, dims = terms(node), _shapes(node.inputs, known)
    if axes is None or dims is None:
        return None
    lengths: dict[str, int] = {}
    for letters, each in zip((axes.left, axes.right), dims, strict=True):
        for letter, size in zip(letters, each, strict=True):
            lengths[letter] = max(size, lengths.get(letter, 0))
    return math.prod(size for letter, size in lengths.items() if len(axes.result) < 2 or letter != axes.result[0])


def _fused_attention(node: ir.Node, known: Sizes) -> int | None:
    """Projections to queries, keys and values, scores, and the mean of the values (com.microsoft.Attention)."""
    if node.domain != graph.MICROSOFT:
        return _attention(node, known)
    dims = _shapes(node.inputs[:2], known)
    if dims is None or len(dims[0]) != 3:
        return None
    steps, hidden = dims[0][1], dims[1][1] // 3
    return steps * math.prod(dims[1]) + 2 * steps * steps * hidden


def _attention(node: ir.Node, known: Sizes) -> int | None:
    """Scores of all queries and keys, and the mean of the values (ONNX's Attention)."""
    dims = _shapes(node.inputs[:3], known)
    if dims is None or any(len(each) not in (3, 4) for each in dims):
        return None
    query, key, value = dims
    heads, shared = (
        each[1] if len(each) == 4 else graph.attribute_int(node, name, 1)
        for each, name in ((query, "q_num_heads"), (value, "kv_num_heads"))
    )
    width, wide = (each[-1] // (1 if len(each) == 4 else count) for each, count in ((query, heads), (value, shared)))
    return heads * query[-2] * key[-2] * (width + wide)


OPERATORS: Mapping[str, Callable[[ir.Node, Sizes], int | None]] = {
    "Attention": _fused_attention,
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed,
    "DeformConv": _convolution(1),
    "DynamicQuantizeLSTM": _recurrent,
    "DynamicQuantizeMatMul": _product(1),
    "Einsum": _einsum,
    "FusedConv": _convolution(1),
    "FusedGemm": _product(1),
    "FusedMatMul": _product(1),
    "GRU": _recurrent,
    "Gemm": _product(1),
    "LSTM": _recurrent,
    "MatMul": _product(1),
    "MatMulInteger": _product(1),
    "MatMulIntegerToFloat": _product(1),
    "MatMulNBits": _blocks,
    "QGemm": _product(3),
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product(3),
    "RNN": _recurrent,
}
"""What multiplies, and how often."""
