"""Repair after cutting: weights re-solved in closed form, so that each layer gives what the float model gave there.

Layer by layer, in the order of the graph, every Conv, Gemm and MatMul that reads something the cut has changed gets
the weights and bias that solve the ridge regression::

    minimize  Σ ‖ W x' + b - y ‖²  +  λ ‖ W - W₀ ‖²

over calibration samples, where ``x'`` is the layer's input in the pruned model (layers before it repaired already),
``y`` the float model's output of the same layer at the channels that are kept, and ``W₀`` the weights as they were cut.
No labels, no training code: Y. He et al., "Channel pruning for accelerating very deep neural networks", 2017
(arXiv:1707.06168), section 3.1. Both models go through the data once, a piece from layer to layer at a time, and only
the normal equations are kept, so memory does not grow with the samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.graph import Array
from onnxpress.pruning.layout import label
from onnxpress.pruning.linear import Linear, Moments, linear
from onnxpress.pruning.surgery import Kept
from onnxpress.pruning.walk import Walk
from onnxpress_calibration.dataset import Dataset

RIDGE = 1e-3
"""λ, relative to the mean square of an input feature times the number of rows."""


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
        reference: The model before it, with the same nodes in the same order.
        kept: Which channels were kept, by the values of ``pruned``.
        outputs: Those values by name.
        data: Calibration samples; labels are not used.
        advance: Called with 1 after each layer.
    """
    reached = _reached(pruned, kept)
    found = [(position, _layer(node, kept, outputs)) for position, node in enumerate(pruned.graph)]
    layers = [(position, layer) for position, layer in found if layer is not None and layer.map.entering in reached]
    names = [node.outputs[0] for node in reference.graph]
    with tempfile.TemporaryDirectory(prefix="onnxpress-repair-") as folder:
        now = Walk(pruned, data, Path(folder) / "pruned")
        before = Walk(reference, data, Path(folder) / "reference")
        for position, layer in layers:
            now.to(position)
            before.to(position + 1)
            random, same = np.random.default_rng(0), np.random.default_rng(0)
            moments = Moments.zeros(layer.map, with_targets=True)
            for entering, leaving in zip(now.values(layer.map.entering), before.values(names[position]), strict=True):
                wanted = leaving if layer.kept is None else np.compress(layer.kept, leaving, axis=layer.axis)
                moments.add(layer.map.features(entering, random), layer.map.targets(wanted, same))
            layer.solve(pruned, moments)
            advance(1)
    return [label(layer.map.node) for _, layer in layers]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A linear map whose weights can be solved for, and where its bias is or could be."""

    map: Linear
    adder: ir.Node | None
    """The node that adds the bias, as an input or by itself; None where there is no place for one."""
    bias: ir.Value | None
    kept: Array | None
    """Mask of the float model's output channels; None when all were kept."""

    @property
    def axis(self) -> int:
        """Where the output channels lie."""
        return 1 if self.map.node.op_type == "Conv" else -1

    def solve(self, model: ir.Model, moments: Moments) -> None:
        """Solve the normal equations and put weights and bias back; a missing bias is added where there is a place."""
        matrix = self.map.matrix()
        old = np.zeros(matrix.shape[0] * matrix.shape[2])
        if self.bias is not None and self.adder is self.map.node:
            old += graph.constant(self.bias)
        start = np.concatenate([matrix, old.reshape(len(matrix), 1, -1)], axis=1)
        free = slice(None) if self.adder is not None else slice(-1)  # without a place for a bias, none is solved for
        squares, start = moments.squares[:, free, free], start[:, free]
        penalty = np.repeat(RIDGE * moments.count * moments.energy.mean(axis=1)[:, None], squares.shape[1], axis=1)
        penalty[:, matrix.shape[1] :] = 1e-9 * moments.count  # the bias is free, up to what keeps the system regular
        ridge = squares + penalty[:, :, None] * np.eye(squares.shape[1])
        solution = start + np.linalg.solve(ridge, moments.products[:, free] - squares @ start)
        self.map.store(solution[:, : matrix.shape[1]])
        if self.adder is None:
            return
        new = solution[:, -1].ravel()
        if self.bias is None:
            name = f"{self.map.weight.name}_repaired_bias"
            added = graph.add_initializer(model.graph, name, new.astype(np.float32))
            self.adder.resize_inputs(3)
            self.adder.replace_input_with(2, added)
            return
        if self.adder is not self.map.node:
            new += graph.constant(self.bias)
        self.bias.const_value = ir.tensor(new.astype(np.float32), name=self.bias.name)


def _reached(model: ir.Model, kept: Kept) -> set[ir.Value]:
    """Return every value that the cut has changed: cut ones, and whatever is computed from them."""
    reached = set(kept.values())
    for node in model.graph:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
    return reached


def _layer(node: ir.Node, kept: Kept, outputs: Mapping[str, ir.Value]) -> _Layer | None:
    """Describe a node, or return None where its weights cannot be solved for on their own."""
    found = linear(node)
    if found is None or len(graph.consumers(found.weight)) != 1:  # shared with another node
        return None
    if node.op_type == "Gemm" and any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta")):
        return None
    adder, bias = _bias(node)
    if adder is None and node.op_type != "MatMul":
        return None
    output = outputs[str(node.outputs[0].name)]
    mask = kept.along(output, 1 if node.op_type == "Conv" else len(output.shape or ()) - 1)
    return _Layer(map=found, adder=adder, bias=bias, kept=mask)


def _bias(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """Return which node adds the bias, and the bias if there is one; no node where a bias cannot be changed."""
    if node.op_type != "MatMul":
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return (node, bias) if bias is None or _is_bias(bias) else (None, None)
    readers = graph.consumers(node.outputs[0])
    if len(readers) == 1 and readers[0].op_type == "Add" and not node.outputs[0].is_graph_output():
        for bias in readers[0].inputs:
            if bias is not None and _is_bias(bias):
                return readers[0], bias
    return None, None


def _is_bias(value: ir.Value) -> bool:
    array = graph.constant(value)
    return array is not None and array.ndim == 1 and array.dtype == np.float32 and len(graph.consumers(value)) == 1
