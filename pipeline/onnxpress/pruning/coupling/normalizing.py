"""Operators that normalize, pool, resize or reduce: some axes must stay whole."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxpress import graph
from onnxpress.pruning.coupling.arguments import input_of, integers, output_of, renumbered
from onnxpress.pruning.layout import Layout, length, obstacle


def batch_norm(layout: Layout, node: ir.Node) -> None:
    """Tie one scale, shift, mean and variance to each channel."""
    _per_channel(layout, node, node.inputs[1:5])


def instance_norm(layout: Layout, node: ir.Node) -> None:
    """Tie one scale and shift to each channel; the other axes must stay whole."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for axis in range(2, len(graph.shape(x) or ())):
        layout.seal(x, axis, obstacle(node, "averages over this axis"))
    _per_channel(layout, node, node.inputs[1:3])


def group_norm(layout: Layout, node: ir.Node) -> None:
    """Each group is normalized by itself: only whole groups can go."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for axis in range(2, len(graph.shape(x) or ())):
        layout.seal(x, axis, obstacle(node, "averages over this axis"))
    if not layout.blocks(x) or length(x, 1) is None:
        layout.refuse(node, "its channels are not known")
        return
    grid = layout.track(x, 1, node).reshape(graph.attribute_int(node, "num_groups", 1), -1)
    layout.channels.unite(grid, grid[:, :1])
    for parameter in node.inputs[1:3]:
        assert parameter is not None  # noqa: S101 - required by the operator
        if length(parameter, 0) == grid.size:
            layout.couple(x, 1, parameter, 0, node)
        else:  # before opset 21: one for each group
            layout.channels.unite(layout.track(parameter, 0, node), grid[:, 0])
    layout.put(output_of(node), layout.blocks(x))


def quantization(layout: Layout, node: ir.Node) -> None:
    """Tie scales and zero points to the channels they are of; one for all ties nothing."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    if graph.attribute_int(node, "block_size", 0):
        layout.skips.append(obstacle(node, "its scales are for blocks of channels"))
        layout.refuse(node, "its scales are for blocks of channels")
        return
    for parameter in filter(None, node.inputs[1:]):
        if any(size != 1 for size in graph.shape(parameter) or ()):
            layout.couple(x, graph.attribute_int(node, "axis", 1), parameter, 0, node)
    layout.put(output_of(node), layout.blocks(x))


def _per_channel(layout: Layout, node: ir.Node, parameters: Sequence[ir.Value | None]) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for parameter in parameters:
        if parameter is not None:
            layout.couple(x, 1, parameter, 0, node)
    layout.put(output_of(node), layout.blocks(x))


def softmax(layout: Layout, node: ir.Node) -> None:
    """Keep what is normalized over whole."""
    if layout.opset < 13:
        _normalize_from(layout, node, graph.attribute_int(node, "axis", 1), None)
    else:
        axis = graph.attribute_int(node, "axis", -1)
        _normalize_from(layout, node, axis, axis + 1 or None)


def layer_norm(layout: Layout, node: ir.Node) -> None:
    """Keep what is normalized over whole."""
    _normalize_from(layout, node, graph.attribute_int(node, "axis", -1), None)


def _normalize_from(layout: Layout, node: ir.Node, first: int, stop: int | None) -> None:
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for axis in range(len(graph.shape(x) or ()))[first:stop]:
        layout.seal(x, axis, obstacle(node, "normalizes over these channels"))
    layout.put(output_of(node), layout.blocks(x))


def pool(layout: Layout, node: ir.Node) -> None:
    """Keep what is pooled over whole."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    for axis in range(2, len(graph.shape(x) or ())):
        layout.seal(x, axis, obstacle(node, "pools over this axis"))
    layout.put(output_of(node), layout.blocks(x))


def resize(layout: Layout, node: ir.Node) -> None:
    """Keep what is resized whole."""
    x, result = node.inputs[0], output_of(node)
    assert x is not None  # noqa: S101 - required by the operator
    before, after = graph.shape(x) or (), graph.shape(result) or ()
    scales = graph.constant(input_of(node, 1 if node.op_type == "Upsample" or layout.opset < 11 else 2))
    sizes = graph.constant(input_of(node, 3))
    resized = list(range(len(before)))
    if "axes" in node.attributes:
        resized = [axis % len(before) for axis in node.attributes["axes"].as_ints()]
    crops = node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    for axis, (size, new) in enumerate(zip(before, after, strict=True)):
        scale = scales[resized.index(axis)] if scales is not None and len(scales) and axis in resized else None
        unchanged = axis not in resized or scale == 1 or (sizes is not None and scale is None and size == new)
        if crops or not unchanged:
            layout.seal(x, axis, obstacle(node, "resizes this axis, or to a size known only at run time"))
    layout.put(result, layout.blocks(x))


def reduce(layout: Layout, node: ir.Node) -> None:
    """Keep what is reduced whole, and drop its axes."""
    x = node.inputs[0]
    assert x is not None  # noqa: S101 - required by the operator
    rank = len(graph.shape(x) or ())
    single = graph.attribute_int(node, "axis", 0) if node.op_type in ("ArgMax", "ArgMin") else None
    axes = integers(node, 1, "axes") if single is None else [single]
    if axes is None and input_of(node, 1) is not None:
        layout.refuse(node, "reduces over axes computed at run time")
        return
    if not axes:
        axes = [] if graph.attribute_int(node, "noop_with_empty_axes", 0) else list(range(rank))
    axes = [axis % rank for axis in axes]
    for axis in axes:
        layout.seal(x, axis, obstacle(node, "reduces over these channels"))
    if graph.attribute_int(node, "keepdims", 1):
        kept = {axis: axis for axis in range(rank) if axis not in axes}
    else:
        kept = {axis: new for new, axis in enumerate(axis for axis in range(rank) if axis not in axes)}
    layout.put(output_of(node), renumbered(layout.blocks(x), kept))
