"""Repair after cutting: weights re-solved in closed form, so that each layer gives what the float model gave there.

Layer by layer, in the order of the graph, every Conv, Gemm and MatMul that reads something the cut has changed gets
the weights and bias that solve the ridge regression::

    minimize  Σ ‖ W x' + b - y ‖²  +  λ ‖ W - W₀ ‖²

over calibration samples, where ``x'`` is the layer's input in the pruned model (layers before it repaired already),
``y`` the float model's output of the same layer at the channels that are kept, and ``W₀`` the weights as they were cut.
No labels, no training code: Y. He et al., "Channel pruning for accelerating very deep neural networks", 2017
(arXiv:1707.06168), section 3.1. Only the normal equations are kept, so memory does not grow with the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxpress import graph
from onnxpress.pruning.layout import label
from onnxpress.pruning.surgery import Kept
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import LABELS, Dataset

Array = np.ndarray[Any, np.dtype[Any]]
RIDGE = 1e-3
"""λ, relative to the mean square of an input feature times the number of rows."""
POSITIONS = 64
"""Output positions taken of each sample, drawn from a fixed seed; neighbours say almost the same."""
BATCH = 8
SLEEPING = SessionOptions(spin="off")
"""Spinning threads of one session take the cores from the other and from the sums in between."""


def repair(
    pruned: ir.Model,
    reference: ir.Model,
    kept: Kept,
    outputs: Mapping[str, ir.Value],
    data: Dataset,
    advance: Callable[[int], object] = lambda layers: None,  # noqa: ARG005
) -> list[str]:
    """Re-solve the weights of a pruned model, in place; return the names of the nodes that were re-solved.

    Args:
        pruned: The model after `surgery.cut`.
        reference: The model before it, with the same tensor names.
        kept: Which channels were kept, by the values of ``pruned``.
        outputs: Those values by name.
        data: Calibration samples; labels are not used.
        advance: Called with 1 after each layer.
    """
    changed_inputs = _reached(pruned, kept)
    repaired = []
    for node in list(pruned.graph):
        layer = _layer(node, kept, outputs) if node.inputs and node.inputs[0] in changed_inputs else None
        if layer is None:
            continue
        equations = _collect(pruned, reference, layer, data)
        _write(pruned, layer, *equations.solve(layer.start()))
        repaired.append(label(node))
        advance(1)
    return repaired


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A node whose weights can be solved for, as a linear map from rows of features to rows of channels."""

    node: ir.Node
    weight: Array
    bias: Array | None
    facts: graph.Weighted
    kept: Array | None
    """Mask of the float model's output channels; None when all were kept."""

    def start(self) -> Array:
        """Return the weights as a matrix [features + 1, channels], the bias in the last row."""
        channels_last = np.moveaxis(self.weight, self.facts.out_axis, -1)
        matrix = channels_last.reshape(-1, channels_last.shape[-1])
        bias = np.zeros(matrix.shape[1]) if self.bias is None else self.bias
        return np.vstack([matrix, bias]).astype(np.float64)

    def rows(self, entering: Array, wanted: Array, random: np.random.Generator) -> tuple[Array, Array]:
        """Return features [rows, features] and targets [rows, channels] of one batch."""
        if self.node.op_type == "Conv":
            windows = _windows(self.node, entering, self.weight.shape[2:])  # [N, C, o…, k…]
            axes = self.weight.ndim - 2
            positions = np.unravel_index(_draw(wanted[0, 0].size, random), windows.shape[2 : 2 + axes])
            chosen: tuple[Any, ...] = (slice(None), slice(None), *positions)
            features = np.moveaxis(windows[chosen], 2, 1).reshape(-1, self.weight[0].size)  # [N · positions, C · k…]
            targets = np.moveaxis(wanted[chosen], 2, 1)
        else:
            patches = entering.reshape(len(entering), -1, entering.shape[-1])
            rows = _draw(patches.shape[1], random)
            features = patches[:, rows].reshape(-1, entering.shape[-1])
            targets = wanted.reshape(len(wanted), -1, wanted.shape[-1])[:, rows]
        if self.kept is not None:
            targets = targets[..., self.kept]
        return features, targets.reshape(len(features), -1)


def _draw(count: int, random: np.random.Generator) -> Array:
    """Choose output positions, the same for every sample of a batch."""
    if count <= POSITIONS:
        return np.arange(count)
    return np.sort(random.choice(count, POSITIONS, replace=False))


@dataclass(slots=True)
class _Equations:
    """The normal equations of a least-squares problem, summed over rows."""

    size: int
    channels: int
    squares: Array = field(init=False)
    products: Array = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.squares = np.zeros((self.size + 1, self.size + 1))
        self.products = np.zeros((self.size + 1, self.channels))

    def add(self, features: Array, targets: Array) -> None:
        rows = np.hstack([features, np.ones((len(features), 1), features.dtype)])
        self.squares += rows.T @ rows
        self.products += rows.T @ targets
        self.count += len(rows)

    def solve(self, start: Array) -> tuple[Array, Array]:
        """Return weights [features, channels] and bias [channels]."""
        penalty = RIDGE * np.trace(self.squares[:-1, :-1]) / max(self.size, 1) * np.eye(self.size + 1)
        penalty[-1, -1] = 1e-9 * max(self.count, 1)  # the bias is free, up to what keeps the system regular
        solution = start + np.linalg.solve(self.squares + penalty, self.products - self.squares @ start)
        return solution[:-1], solution[-1]


def _reached(model: ir.Model, kept: Kept) -> set[ir.Value]:
    """Return every value that the cut has changed: cut ones, and whatever is computed from them."""
    reached = set(kept.values())
    for node in model.graph:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
    return reached


def _layer(node: ir.Node, kept: Kept, outputs: Mapping[str, ir.Value]) -> _Layer | None:
    """Describe a node, or return None where its weights cannot be solved for on their own."""
    facts = graph.weighted(node)
    if facts is None or node.op_type == "ConvTranspose" or graph.attribute_int(node, "group", 1) != 1:
        return None
    weight = node.inputs[facts.weight]
    array = graph.constant(weight)
    if weight is None or array is None or array.dtype != np.float32 or len(graph.consumers(weight)) != 1:
        return None  # computed, or shared with another node
    if node.op_type == "MatMul" and array.ndim != 2:
        return None
    if node.op_type == "Gemm" and any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta")):
        return None
    if node.op_type == "Conv" and node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    value = node.inputs[facts.bias] if facts.bias is not None and len(node.inputs) > facts.bias else None
    bias = graph.constant(value)
    if value is not None and (bias is None or bias.ndim != 1 or len(graph.consumers(value)) != 1):
        return None
    output = outputs[node.outputs[0].name or ""]
    rank = len(output.shape or ())
    mask = kept.along(output, 1 if node.op_type == "Conv" else rank - 1)
    return _Layer(node=node, weight=array, bias=bias, facts=facts, kept=mask)


def _collect(pruned: ir.Model, reference: ir.Model, layer: _Layer, data: Dataset) -> _Equations:
    """Run both models up to this layer and sum its normal equations."""
    entering, leaving = layer.node.inputs[0], layer.node.outputs[0]
    assert entering is not None and entering.name is not None and leaving.name is not None  # noqa: S101
    specs = graph.input_specs(reference)
    feeding = entering.name if entering.producer() is not None else None
    now = open_session(_until(pruned, entering.name), SLEEPING) if feeding is not None else None
    before = open_session(_until(reference, leaving.name), SLEEPING)
    start = layer.start()
    equations = _Equations(len(start) - 1, start.shape[1])
    random = np.random.default_rng(0)
    for batch in data.batches(specs, BATCH):
        feeds = {name: value for name, value in batch.items() if name != LABELS}
        inputs = run(now, _needed(now, feeds))[entering.name] if now is not None else feeds[entering.name]
        equations.add(*layer.rows(inputs, run(before, _needed(before, feeds))[leaving.name], random))
    return equations


def _needed(session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:  # noqa: ANN401
    return {value.name: feeds[value.name] for value in session.get_inputs()}


def _until(model: ir.Model, name: str) -> ir.Model:
    """Return a copy that computes one tensor and nothing else: onnxruntime runs nodes that nobody reads, too."""
    copy = model.clone()
    target = next(value for node in copy.graph for value in node.outputs if value.name == name)
    copy.graph.outputs.clear()
    copy.graph.outputs.append(target)
    RemoveUnusedNodesPass()(copy)
    return copy


def _windows(node: ir.Node, values: Array, kernel: tuple[int, ...]) -> Array:
    """Return what a convolution multiplies at each output position, as a view: [N, C, o…, k…]."""
    axes = len(kernel)
    pads = node.attributes.get_ints("pads", [0] * 2 * axes)
    strides = node.attributes.get_ints("strides", [1] * axes)
    dilations = node.attributes.get_ints("dilations", [1] * axes)
    padded = np.pad(values, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + axes)))
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    view: Array = windows[:, :, *steps]
    return view


def _write(model: ir.Model, layer: _Layer, weights: Array, bias: Array) -> None:
    """Put solved weights back; a node that had no bias gets one where its operator has a place for it."""
    node, facts = layer.node, layer.facts
    weight = node.inputs[facts.weight]
    assert weight is not None  # noqa: S101
    moved = np.moveaxis(layer.weight, facts.out_axis, -1)
    array = np.moveaxis(weights.reshape(moved.shape), -1, facts.out_axis)
    weight.const_value = ir.tensor(np.ascontiguousarray(array, np.float32), name=weight.name)
    if facts.bias is None:
        return
    if layer.bias is not None:
        value = node.inputs[facts.bias]
        assert value is not None  # noqa: S101
        value.const_value = ir.tensor(bias.astype(np.float32), name=value.name)
        return
    node.resize_inputs(facts.bias + 1)
    added = graph.add_initializer(model.graph, f"{weight.name}_repaired_bias", bias.astype(np.float32))
    node.replace_input_with(facts.bias, added)
