"""Operators that move, select or repeat elements, and those that compute shapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxpress.distillation.operators.facts import Function, Make, Unsupported, integers, plain


def _reshape(node: ir.Node) -> Function:
    zero_is_zero = bool(node.attributes.get_int("allowzero", 0))

    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes = integers(shape)
        return x.reshape(sizes if zero_is_zero else [size or x.shape[axis] for axis, size in enumerate(sizes)])

    return run


def _flatten(node: ir.Node) -> Function:
    axis = node.attributes.get_int("axis", 1)

    def run(x: Tensor) -> Tensor:
        at = axis % x.ndim if axis < 0 else axis
        return x.reshape(int(np.prod(x.shape[:at], dtype=int)), -1)

    return run


def _transpose(node: ir.Node) -> Function:
    order = node.attributes.get_ints("perm")
    return lambda x: x.permute(tuple(order or range(x.ndim - 1, -1, -1)))


def _squeeze(node: ir.Node) -> Function:
    given = node.attributes.get_ints("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = tuple(given or ()) if axes is None else tuple(integers(axes))
        return x.squeeze(chosen) if chosen else x.squeeze()

    return run


def _unsqueeze(node: ir.Node) -> Function:
    given = node.attributes.get_ints("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = list(given or ()) if axes is None else integers(axes)
        for axis in sorted(axis % (x.ndim + len(chosen)) for axis in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


def _concat(node: ir.Node) -> Function:
    axis = node.attributes.get_int("axis")
    return lambda *parts: torch.cat(parts, dim=axis)


def _split(node: ir.Node) -> Function:
    axis, given = node.attributes.get_int("axis", 0), node.attributes.get_ints("split")
    count = node.attributes.get_int("num_outputs", len(node.outputs))

    def run(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        if given is None and sizes is None:
            return torch.split(x, -(-x.shape[axis] // count), dim=axis)
        return torch.split(x, list(given or ()) if sizes is None else integers(sizes), dim=axis)

    return run


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    begin, end = integers(starts), integers(ends)
    chosen = list(range(len(begin))) if axes is None else integers(axes)
    step = [1] * len(begin) if steps is None else integers(steps)
    index: list[slice] = [slice(None)] * x.ndim
    for axis, *bounds in zip(chosen, begin, end, step, strict=True):
        start, stop, stride = slice(*bounds).indices(x.shape[axis])
        if stride < 0:  # torch has no negative strides: turn the axis round and count from its end
            x, last = x.flip(axis), x.shape[axis] - 1
            start, stop, stride = last - start, last - stop, -stride
        index[axis] = slice(start, max(start, stop), stride)
    return x[tuple(index)]


def _gather(node: ir.Node) -> Function:
    axis = node.attributes.get_int("axis", 0)

    def run(data: Tensor, indices: Tensor) -> Tensor:
        at = axis % data.ndim
        found = torch.where(indices < 0, indices + data.shape[at], indices)
        if at == 0 and data.ndim == 2:
            return F.embedding(found, data)
        picked = data.index_select(at, found.reshape(-1))
        return picked.reshape((*data.shape[:at], *indices.shape, *data.shape[at + 1 :]))

    return run


def _gather_elements(node: ir.Node) -> Function:
    axis = node.attributes.get_int("axis", 0)
    return lambda x, at: torch.gather(x, axis, torch.where(at < 0, at + x.shape[axis], at).long())


def _gather_nd(node: ir.Node) -> Function:
    if node.attributes.get_int("batch_dims", 0):
        raise Unsupported("has batch_dims")
    return lambda data, indices: data[tuple(indices.unbind(-1))]


def _scatter_elements(node: ir.Node) -> Function:
    axis = node.attributes.get_int("axis", 0)
    if node.attributes.get_string("reduction", "none") != "none":
        raise Unsupported("reduces")
    return lambda x, at, updates: x.scatter(axis, torch.where(at < 0, at + x.shape[axis], at), updates)


def _scatter_nd(node: ir.Node) -> Function:
    if node.attributes.get_string("reduction", "none") != "none":
        raise Unsupported("reduces")
    return lambda x, at, updates: x.index_put(tuple(at.unbind(-1)), updates)


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(np.broadcast_shapes(x.shape, tuple(integers(shape))))


def _pad(node: ir.Node) -> Function:
    mode = node.attributes.get_string("mode", "constant")

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        amounts = integers(pads)
        chosen = [axis % x.ndim for axis in (range(x.ndim) if axes is None else integers(axes))]
        pairs = dict(zip(chosen, zip(amounts[: len(chosen)], amounts[len(chosen) :], strict=True), strict=True))
        if mode == "constant":
            flat = [pad for axis in reversed(range(x.ndim)) for pad in pairs.get(axis, (0, 0))]
            return F.pad(x, flat, value=0.0 if value is None else value.item())
        for axis, pair in pairs.items():
            places = np.pad(np.arange(x.shape[axis]), pair, mode=mode)  # type: ignore[call-overload]  # ONNX's own words
            x = x.index_select(axis, torch.from_numpy(places).to(x.device))
        return x

    return run


def _depth_to_space(node: ir.Node) -> Function:
    block, mode = node.attributes.get_int("blocksize"), node.attributes.get_string("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        depth = channels // block**2
        if mode == "DCR":
            parts = x.reshape(batch, block, block, depth, height, width).permute(0, 3, 4, 1, 5, 2)
        else:
            parts = x.reshape(batch, depth, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
        return parts.reshape(batch, depth, height * block, width * block)

    return run


def _space_to_depth(node: ir.Node) -> Function:
    block = node.attributes.get_int("blocksize")

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = x.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(batch, channels * block**2, height // block, width // block)

    return run


def _shape(node: ir.Node) -> Function:
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _constant_of_shape(node: ir.Node) -> Function:
    given = node.attributes.get("value")
    value = torch.zeros(1) if given is None else torch.from_numpy(given.as_tensor().numpy().copy())
    return lambda shape: value.expand(integers(shape))


def _one_hot(node: ir.Node) -> Function:
    axis = node.attributes.get_int("axis", -1)

    def run(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        classes = integers(depth)[0]
        hot = F.one_hot(indices.long() % classes, classes).to(values.dtype)
        return (values[0] + (values[1] - values[0]) * hot).movedim(-1, axis)

    return run


def _trilu(node: ir.Node) -> Function:
    keep = torch.triu if node.attributes.get_int("upper", 1) else torch.tril
    return lambda x, k=None: keep(x, 0 if k is None else integers(k)[0])


def _range(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(integers(repeats))


OPERATORS: dict[str, Make] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": plain(_expand),
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": plain(lambda x: torch.nonzero(x).T),
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": plain(_range),
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Size": plain(lambda x: torch.tensor(x.numel())),
    "Slice": plain(_slice),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": plain(_tile),
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
