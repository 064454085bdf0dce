"""Cutting channels out of a graph, and the masked graph that the result must equal.

**What removing a channel means.** In the *masked* graph all weights are as before, but wherever an operator sums over
channels (Conv, Gemm, MatMul, recurrent layers) the removed ones enter as zero. The *pruned* graph does not have them at
all: every tensor is cut along every axis on which they lie. Both compute the same function up to the order of
floating-point sums. Nothing is assumed about activation functions: a Sigmoid that turns 0 into 0.5, the shift of a
BatchNorm or the constant of a Pad act on a removed channel in the masked graph too, and are then masked at the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxpress import graph
from onnxpress.export.passes.rewiring import initializer
from onnxpress.pruning import branches
from onnxpress.pruning.coupling.arguments import integers, paddings, slices, target_shape
from onnxpress.pruning.groups import Group
from onnxpress.pruning.layout import label
from onnxpress.pruning.stored import GRID
from onnxpress.pruning.weights import RECURRENT

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Choice = Mapping[Group, Mask]
"""For each group that is cut, which of its channels are kept."""


class Kept:
    """Which indices of which axes are kept: the choice of channels, seen from the tensors."""

    def __init__(self, choice: Choice) -> None:
        self._masks: dict[ir.Value, dict[int, Mask]] = {}
        for group, keep in choice.items():
            if keep.all():
                continue
            for member in group.members:
                masks = self._masks.setdefault(member.value, {})
                mask = masks.setdefault(member.axis, np.ones(len(member.channel), np.bool_))
                mask &= (member.channel < 0) | keep[member.channel]

    def then(self, later: Kept) -> Kept:
        """Return what is kept of the first model after a second choice, made on the model cut by this one."""
        both = Kept({})
        both._masks = {value: dict(masks) for value, masks in self._masks.items()}
        for value, masks in later._masks.items():
            for axis, mask in masks.items():
                whole = both._masks.setdefault(value, {}).get(axis, np.ones(len(mask), np.bool_)).copy()
                whole[whole] = mask
                both._masks[value][axis] = whole
        return both

    def on(self, model: ir.Model) -> Kept:
        """Return the same for a clone of the model, whose values have the same names."""
        twins = {value.name: value for value in (*model.graph.inputs, *model.graph.initializers.values())}
        twins |= {value.name: value for node in model.graph for value in node.outputs}
        same = Kept({})
        same._masks = {twins[value.name]: masks for value, masks in self._masks.items()}
        return same

    def along(self, value: ir.Value | None, axis: int) -> Mask | None:
        """Return the mask of an axis that is cut; None when all of it is kept."""
        return None if value is None else self._masks.get(value, {}).get(axis)

    def values(self) -> Mapping[ir.Value, Mapping[int, Mask]]:
        """Return every value that is cut, with the masks of its axes."""
        return self._masks


def cut(model: ir.Model, choice: Choice) -> list[str]:
    """Remove channels from a model, in place; return the names of the nodes whose weights became smaller."""
    return _remove(model, Kept(choice))


def without(model: ir.Model, choice: Choice) -> ir.Model:
    """Return a copy of a model with channels removed."""
    copy = model.clone()
    _remove(copy, Kept(choice).on(copy))
    return copy


def _remove(model: ir.Model, kept: Kept) -> list[str]:
    changed = _drop_branches(model, kept)
    for node in model.graph:
        rewrite = REWRITES.get(node.op_type)
        if rewrite is not None and any(value in kept.values() for value in [*node.inputs, *node.outputs]):
            rewrite(model, node, kept)
    for value, masks in kept.values().items():
        sizes = list(value.shape or ())
        for axis, mask in masks.items():
            sizes[axis] = int(mask.sum())
        if value.const_value is not None:
            array = value.const_value.numpy()
            for axis, mask in masks.items():
                array = np.compress(mask, array, axis=axis)
            value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
            if GRID in value.meta:
                value.meta[GRID] = value.meta[GRID].cut(masks)
            changed += [label(node) for node in graph.consumers(value) if node.graph is not None]
        value.shape = ir.Shape(sizes)
    return list(dict.fromkeys(changed))


def _drop_branches(model: ir.Model, kept: Kept) -> list[str]:
    """Replace what branches without channels add by the constant that it is; return the names of the nodes that add."""
    dropped = []
    for node in list(model.graph):
        summed = _summed(node, kept)
        if summed is None or summed[1].any() or (end := branches.end(node)) is None:
            continue
        sizes, bias, left = end.result.shape or (), graph.constant(end.bias), kept.along(end.result, end.axis)
        if bias is None:
            bias = np.zeros(sizes[end.axis], (end.result.dtype or ir.DataType.FLOAT).numpy())
        bias = bias if left is None else bias[left]
        constant = ir.tensor(bias.reshape(-1, *[1] * (len(sizes) - 1 - end.axis)))
        position = list(end.adder.inputs).index(end.result)
        end.adder.replace_input_with(position, initializer(model.graph, branches.constant(end), constant))
        dropped.append(label(end.adder))
    if dropped:
        RemoveUnusedNodesPass()(model)
    return dropped


def masked(model: ir.Model, choice: Choice) -> ir.Model:
    """Return a copy of a model in which the removed channels are zero wherever an operator sums over them."""
    kept, copy = Kept(choice), model.clone()
    for node, twin in zip(list(model.graph), list(copy.graph), strict=True):
        if node.op_type in RECURRENT and (units := kept.along(node.inputs[2], 2)) is not None:  # the state enters, too
            recurrence = graph.constant(node.inputs[2])
            assert recurrence is not None  # noqa: S101 - it is cut
            zeroed = ir.tensor(recurrence * units.astype(recurrence.dtype))
            twin.replace_input_with(2, initializer(copy.graph, f"{twin.outputs[0].name}_masked", zeroed))
        summed, entering = _summed(node, kept), twin.inputs[0] if twin.inputs else None
        if summed is None or entering is None or entering.dtype is None:
            continue
        axis, mask = summed
        shape = [-1 if position == axis else 1 for position in range(len(entering.shape or ()))]
        condition = initializer(copy.graph, f"{twin.outputs[0].name}_mask", ir.tensor(mask.reshape(shape)))
        zero = initializer(copy.graph, f"{twin.outputs[0].name}_zero", ir.tensor(np.zeros((), entering.dtype.numpy())))
        where = ir.node("Where", [condition, entering, zero])
        copy.graph.insert_before(twin, where)
        twin.replace_input_with(0, where.outputs[0])
    return copy


def _summed(node: ir.Node, kept: Kept) -> tuple[int, Mask] | None:
    """Return the axis of its input that a node sums over, and what of it is kept; None when it sums or loses none."""
    axis = _summed_axis(node)
    if axis is None:
        return None
    axis %= max(len(graph.shape(node.inputs[0]) or ()), 1)
    mask = kept.along(node.inputs[0], axis)
    return None if mask is None else (axis, mask)


def _summed_axis(node: ir.Node) -> int | None:
    if node.domain not in graph.ONNX_DOMAINS:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        return 1
    if node.op_type == "Gemm":
        return 0 if graph.attribute_int(node, "transA", 0) else 1
    return {"MatMul": -1, "LSTM": 2, "GRU": 2, "RNN": 2}.get(node.op_type)


# ----------------------------------------------------------------------------------------------------------------------
# Constants that name channel counts
# ----------------------------------------------------------------------------------------------------------------------


def _grouped(model: ir.Model, node: ir.Node, kept: Kept) -> None:  # noqa: ARG001 - the table's signature
    if graph.attribute_int(node, "group", 1) == 1:
        return
    whole = node.inputs[0] if node.op_type == "Conv" else node.outputs[0]
    node.attributes["group"] = ir.AttrInt64("group", _size(kept, whole, 1) // _size(kept, node.inputs[1], 1))


def _recurrent(model: ir.Model, node: ir.Node, kept: Kept) -> None:  # noqa: ARG001 - the table's signature
    node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", _size(kept, node.inputs[2], 2))


def _group_norm(model: ir.Model, node: ir.Node, kept: Kept) -> None:  # noqa: ARG001 - the table's signature
    mask = kept.along(node.inputs[0], 1)
    if mask is not None:
        groups = mask.reshape(graph.attribute_int(node, "num_groups", 1), -1)
        node.attributes["num_groups"] = ir.AttrInt64("num_groups", int(groups[:, 0].sum()))


def _reshape(model: ir.Model, node: ir.Node, kept: Kept) -> None:
    target = target_shape(node)
    masks = kept.values().get(node.outputs[0])
    if target is None or masks is None:
        return
    for axis, size in enumerate(graph.shape(node.outputs[0]) or ()):
        if axis in masks:
            target[axis] = int(masks[axis].sum())
        elif target[axis] == 0 and size is not None:  # the input's axis of this number may be another one, and be cut
            target[axis] = size
    node.attributes.pop("allowzero", None)  # what zeros are left copy a size
    _set_integers(model, node, 1, "shape", target)


def _split(model: ir.Model, node: ir.Node, kept: Kept) -> None:
    axis = graph.attribute_int(node, "axis", 0) % len(graph.shape(node.inputs[0]) or ())
    if kept.along(node.inputs[0], axis) is None:
        return
    node.attributes.pop("num_outputs", None)
    sizes = [_size(kept, value, axis) for value in node.outputs]
    if graph.opset(model) < 13:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
    else:
        _set_integers(model, node, 1, "split", sizes)


def _slice(model: ir.Model, node: ir.Node, kept: Kept) -> None:
    parts = slices(node) or {}
    starts, ends = integers(node, 1, "starts") or [], integers(node, 2, "ends") or []
    for position, (axis, part) in enumerate(parts.items()):
        mask = kept.along(node.inputs[0], axis)
        if mask is not None:
            start, stop, _ = part.indices(len(mask))
            starts[position], ends[position] = int(mask[:start].sum()), int(mask[: max(start, stop)].sum())
    _set_integers(model, node, 1, "starts", starts)
    _set_integers(model, node, 2, "ends", ends)


def _pad(model: ir.Model, node: ir.Node, kept: Kept) -> None:
    added, pads = paddings(node) or {}, integers(node, 1, "pads") or []
    for position, (axis, (before, after)) in enumerate(added.items()):
        mask = kept.along(node.outputs[0], axis)
        if mask is not None:
            pads[position] = int(mask[:before].sum())
            pads[position + len(added)] = int(mask[len(mask) - after :].sum())
    _set_integers(model, node, 1, "pads", pads)


def _gather(model: ir.Model, node: ir.Node, kept: Kept) -> None:
    axis = graph.attribute_int(node, "axis", 0) % len(graph.shape(node.inputs[0]) or ())
    mask, chosen = kept.along(node.inputs[0], axis), graph.constant(node.inputs[1])
    if mask is not None and chosen is not None:
        place = np.cumsum(mask) - 1
        _set_integers(model, node, 1, "indices", place[chosen[mask[chosen]]].tolist())


def _expand(model: ir.Model, node: ir.Node, kept: Kept) -> None:
    shape = integers(node, 1, "shape") or []
    missing = len(graph.shape(node.outputs[0]) or ()) - len(shape)
    for axis in kept.values().get(node.outputs[0], {}):
        if axis >= missing:
            shape[axis - missing] = 1
    _set_integers(model, node, 1, "shape", shape)


def _resize(model: ir.Model, node: ir.Node, kept: Kept) -> None:
    sizes = integers(node, 3, "sizes") if len(node.inputs) > 3 else None
    masks = kept.values().get(node.outputs[0])
    if not sizes or masks is None:
        return
    axes = list(range(len(sizes)))
    if "axes" in node.attributes:
        axes = [axis % len(graph.shape(node.outputs[0]) or ()) for axis in node.attributes["axes"].as_ints()]
    for axis, mask in masks.items():
        if axis in axes:
            sizes[axes.index(axis)] = int(mask.sum())
    _set_integers(model, node, 3, "sizes", sizes)


Rewrite = Callable[[ir.Model, ir.Node, Kept], None]
REWRITES: dict[str, Rewrite] = {
    "Conv": _grouped,
    "GroupNormalization": _group_norm,
    "ConvTranspose": _grouped,
    "Reshape": _reshape,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Expand": _expand,
    "Resize": _resize,
    **dict.fromkeys(RECURRENT, _recurrent),
}


def _size(kept: Kept, value: ir.Value | None, axis: int) -> int:
    mask = kept.along(value, axis)
    size = int(mask.sum()) if mask is not None else (graph.shape(value) or ())[axis]
    assert size is not None  # noqa: S101 - an axis that is cut, or a weight's
    return size


def _set_integers(model: ir.Model, node: ir.Node, position: int, attribute: str, values: Sequence[int]) -> None:
    """Give a node its own list of integers, as an attribute where it has one, else as a new constant input."""
    if attribute in node.attributes:
        node.attributes[attribute] = ir.AttrInt64s(attribute, values)
        return
    old = node.inputs[position] if position < len(node.inputs) else None
    dtype = np.int64 if old is None or old.dtype is None else old.dtype.numpy()
    constant = initializer(model.graph, f"{node.outputs[0].name}_{attribute}", ir.tensor(np.asarray(values, dtype)))
    if position >= len(node.inputs):
        node.resize_inputs(position + 1)
    node.replace_input_with(position, constant)
