"""Repair after cutting: weights re-solved in closed form, so that each layer gives what the float model gave there.

Layer by layer, in the order of the graph, every Conv, ConvTranspose, Gemm and MatMul that reads something the cut has
changed gets the weights and bias that solve the ridge regression::

    minimize  Σ ‖ W x' + b - y ‖²  +  λ ‖ W - W₀ ‖²

over calibration samples, where ``x'`` is the layer's input in the pruned model (layers before it repaired already),
``y`` the float model's output of the same layer at the channels that are kept, and ``W₀`` the weights as they were cut.
No labels, no training code: Y. He et al., "Channel pruning for accelerating very deep neural networks", 2017
(arXiv:1707.06168), section 3.1.

Two things that follow a layer are taken into account:

* Where its output is added to another value (a residual connection), what went wrong with that one is made good, too:
  the sum is to be what it was in the float model (the same paper, section 3.3).
* Where a Relu follows, values below zero need not be right, only below zero. With ``y ≤ 0`` an output counts only by
  what it has above zero, which leaves a convex problem. It is solved by Newton steps with the same matrix, each output
  that is right already taken as its own target, and Nesterov's momentum (X. Zhang et al., "Accelerating very deep
  convolutional networks", 2015, arXiv:1505.06798, section 3.2, have the idea for low-rank layers).

Both models go through the data once, a piece from layer to layer at a time. The rows of one layer lie in a file while
it is solved; memory holds the normal equations and one batch, however many samples there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Skip
from onnxpress.graph import Array
from onnxpress.progress import Stage, unshown
from onnxpress.pruning.layout import label
from onnxpress.pruning.linear import Linear, Moments, linear, obstacle, some_rows, with_ones
from onnxpress.pruning.spool import Spool
from onnxpress.pruning.surgery import Kept
from onnxpress.pruning.walk import Walk
from onnxpress.scratch import temporary
from onnxpress_calibration.dataset import Dataset

RIDGE = 1e-3
"""λ, relative to the mean square of an input feature times the number of rows."""
ROUNDS = 5
"""Newton steps for a layer before a Relu; more change the outputs of SqueezeNet and ResNet-56 no more."""


def repair(
    pruned: ir.Model,
    reference: ir.Model,
    kept: Kept,
    outputs: Mapping[str, ir.Value],
    data: Dataset,
    stage: Stage = unshown,
) -> tuple[list[str], list[Skip]]:
    """Re-solve the weights of a pruned model, in place; return the names of the nodes that were, and why others not.

    Args:
        pruned: The model after `surgery.cut`.
        reference: The model before it, with the same nodes in the same order, and those that went with a branch.
        kept: Which channels were kept, by the values of ``pruned``.
        outputs: Those values by name.
        data: Calibration samples; labels are not used.
        stage: Shows how many layers are done.
    """
    reached = _reached(pruned, reference, kept)
    twins = {value.name: value for node in reference.graph for value in (*node.inputs, *node.outputs) if value}
    places = {node.outputs[0].name: place for place, node in enumerate(reference.graph)}
    layers: list[tuple[int, _Layer | _Offset]] = []
    skipped = []
    for position, node in enumerate(pruned.graph):
        layer, offset = _layer(node, kept, outputs), _offset(node, kept, outputs, twins)
        if isinstance(layer, _Layer) and layer.map.entering in reached:
            layers.append((position, layer))
        elif isinstance(layer, str) and layer and reached.intersection(value for value in node.inputs if value):
            skipped.append(Skip(where=label(node), op=node.op_type, reason=f"not repaired: {layer}"))
        elif offset is not None:
            layers.append((position, offset))
    with (
        temporary() as folder,
        stage("re-solve layers", len(layers)) as advance,
    ):
        now, before = (Walk(model, data, folder) for model in (pruned, reference))
        for position, part in layers:
            now.to(position)
            before.to(places[part.node.outputs[0].name] + 1)
            if isinstance(part, _Offset):
                part.solve(now, before, twins)
            else:
                part.solve(pruned, Spool(folder, part.rows(now, before, twins)))
            advance(1)
    return [label(part.node) for _, part in layers], skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A linear map whose weights can be solved for, where its bias is or could be, and what follows."""

    map: Linear
    adder: ir.Node | None
    """The node that adds the bias, as an input or by itself; None where there is no place for one."""
    bias: ir.Value | None
    kept: Array | None
    """Mask of the float model's output channels; None when all were kept."""
    shortcut: ir.Value | None
    """What the output is added to, when that is known before the layer runs."""
    rectified: bool
    """Whether only Relu reads the result."""

    @property
    def node(self) -> ir.Node:
        """The node."""
        return self.map.node

    @property
    def axis(self) -> int:
        """Where the output channels lie."""
        return 1 if self.map.spatial else -1

    def rows(
        self, now: Walk, before: Walk, twins: Mapping[str | None, ir.Value]
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Yield features [groups, rows, features + 1], targets and what is added, both [groups, rows, channels].

        Args:
            now: The pruned model, at this layer.
            before: The float model, just behind it.
            twins: The float model's values by name.
        """
        random = [np.random.default_rng(0) for _ in range(3)]  # the same positions of each
        result = self.map.node.outputs[0]
        reads = [now.values(self.map.entering), before.values(twins[result.name])]
        if self.shortcut is not None:
            reads += [now.values(self.shortcut), before.values(twins[self.shortcut.name])]
        for mask, entering, leaving, *shortcuts in zip(now.masks, *reads, strict=True):
            wanted, added = self._cut(leaving), np.zeros((1, 1, 1), np.float32)
            if shortcuts:
                mine, theirs = shortcuts
                mine = mine.astype(np.float32, copy=False)
                wanted = wanted + self._cut(theirs) - mine
                added = self.map.targets(np.broadcast_to(mine, wanted.shape), random[2], mask)
            if self.adder is not self.map.node:
                added = added + self._old_bias()
            features = with_ones(self.map.features(entering, random[0], mask))
            yield features, self.map.targets(wanted, random[1], mask), added

    def solve(self, model: ir.Model, rows: Spool) -> None:
        """Solve for weights and bias and put them back; a missing bias is added where there is a place.

        Args:
            model: The pruned model.
            rows: Those of `rows`, batch by batch.
        """
        matrix = self.map.matrix()
        old = self._old_bias() if self.adder is self.map.node else np.zeros(matrix.shape[0] * matrix.shape[2])
        start = np.concatenate([matrix, old.reshape(len(matrix), 1, -1)], axis=1)
        free = slice(None) if self.adder is not None else slice(-1)  # without a place for a bias, none is solved for
        moments = Moments.zeros(self.map, with_targets=True)
        for features, targets, _ in rows:
            moments.add(features, targets)
        start, squares = start[:, free], moments.squares[:, free, free]
        energy = moments.energy.mean(axis=1)[:, None]
        energy[energy == 0] = 1.0  # nothing ever enters: any penalty keeps the weights as they are
        penalty = np.repeat(RIDGE * moments.count * energy, squares.shape[1], axis=1)
        penalty[:, matrix.shape[1] :] = 1e-9 * moments.count  # the bias is free, up to what keeps the system regular
        inverse = np.linalg.inv(squares + penalty[:, :, None] * np.eye(squares.shape[1]))
        solution = start + inverse @ (moments.products[:, free] - squares @ start)
        ahead = solution
        for turn in range(ROUNDS if self.rectified else 0):
            products = np.zeros_like(solution)
            for features, targets, added in rows:
                sums = features[..., free] @ ahead.astype(np.float32) + added
                right = np.where(targets + added > 0, targets, np.minimum(sums, 0) - added)
                products += features[..., free].transpose(0, 2, 1) @ right
            last, solution = solution, start + inverse @ (products - squares @ start)
            ahead = solution + turn / (turn + 3) * (solution - last)
        self._store(model, solution[:, : matrix.shape[1]], solution[:, -1].ravel())

    def _store(self, model: ir.Model, matrix: Array, bias: Array) -> None:
        self.map.store(matrix)
        if self.adder is None:
            return
        if self.bias is None:
            name = f"{self.map.weight.name}_repaired_bias"
            added = graph.add_initializer(model.graph, name, bias.astype(self.map.rows().dtype))
            self.adder.resize_inputs(3)
            self.adder.replace_input_with(2, added)
            return
        if self.adder is not self.map.node:
            bias = bias + self._old_bias()
        self.bias.const_value = ir.tensor(bias.astype(self.map.rows().dtype), name=self.bias.name)

    def _old_bias(self) -> Array:
        array = graph.constant(self.bias)
        if array is None:
            return np.zeros(self.map.matrix().shape[2] * self.map.groups, np.float32)
        return array.astype(np.float32)

    def _cut(self, values: Array) -> Array:
        """Leave out the channels that the cut has removed."""
        values = values.astype(np.float32, copy=False)
        return values if self.kept is None else np.compress(self.kept, values, axis=self.axis)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offset:
    """The constant in the place of a branch that is gone: it gives what the branch gave in the mean."""

    node: ir.Node
    """Adds it to the shortcut."""
    shortcut: ir.Value
    constant: ir.Value
    axis: int
    """Where the channels lie."""
    kept: Array | None
    """As in `_Layer`."""

    def solve(self, now: Walk, before: Walk, twins: Mapping[str | None, ir.Value]) -> None:
        """Set it to the mean difference of the float model's sum and the pruned model's shortcut."""
        array = graph.constant(self.constant)
        assert array is not None  # noqa: S101 - surgery has put it there
        random, total, count = np.random.default_rng(0), np.zeros(array.size), 0
        sums = before.values(twins[self.node.outputs[0].name])
        for mask, shortcut, wanted in zip(now.masks, now.values(self.shortcut), sums, strict=True):
            left = wanted if self.kept is None else np.compress(self.kept, wanted, axis=self.axis)
            missing = np.moveaxis(left - shortcut, self.axis, -1)
            rows = some_rows(missing, random, None if self.axis == 1 else mask)
            total, count = total + rows.sum(axis=0, dtype=np.float64), count + len(rows)
        mean = (total / max(count, 1)).reshape(array.shape).astype(array.dtype)
        self.constant.const_value = ir.tensor(mean, name=self.constant.name)


def _reached(model: ir.Model, reference: ir.Model, kept: Kept) -> set[ir.Value]:
    """Return every value that the cut has changed: cut ones, what took their place, what is computed from them."""
    reached = set(kept.values())
    inputs = {node.outputs[0].name: [value and value.name for value in node.inputs] for node in reference.graph}
    for node in model.graph:
        rewired = [value and value.name for value in node.inputs] != inputs[node.outputs[0].name]
        if rewired or any(value in reached for value in node.inputs):
            reached.update(node.outputs)
    return reached


def _layer(node: ir.Node, kept: Kept, outputs: Mapping[str, ir.Value]) -> _Layer | str:
    """Describe a node, or say why its weights cannot be solved for on their own; empty for one that has none."""
    found = linear(node)
    if found is None:
        return "" if node.op_type == "MatMul" and _both_computed(node) else obstacle(node)
    if len(graph.consumers(found.weight)) != 1:
        return "its weight is shared with another node"
    if node.op_type == "Gemm" and any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta")):
        return "alpha or beta is not 1"
    adder, bias = _bias(node)
    if adder is None and node.op_type != "MatMul":
        return "its bias is computed, shared or not one value per channel"
    output = outputs[str(node.outputs[0].name)]
    mask = kept.along(output, 1 if found.spatial else len(output.shape or ()) - 1)
    shortcut, rectified = _follow(node, (adder or node).outputs[0])
    return _Layer(map=found, adder=adder, bias=bias, kept=mask, shortcut=shortcut, rectified=rectified)


def _offset(
    node: ir.Node, kept: Kept, outputs: Mapping[str, ir.Value], twins: Mapping[str | None, ir.Value]
) -> _Offset | None:
    """Describe a node that adds the constant in the place of a branch; return None for any other."""
    if node.op_type != "Add":
        return None
    added = [value for value in node.inputs if value is not None and value.name not in twins and value.is_initializer()]
    shortcuts = [value for value in node.inputs if value is not None and value not in added]
    if len(added) != 1 or len(shortcuts) != 1:
        return None
    axis = len(node.outputs[0].shape or ()) - len(added[0].shape or ())
    mask = kept.along(outputs[str(node.outputs[0].name)], axis)
    return _Offset(node=node, shortcut=shortcuts[0], constant=added[0], axis=axis, kept=mask)


def _bias(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """Return which node adds the bias, and the bias if there is one; no node where a bias cannot be changed."""
    if node.op_type != "MatMul":
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return (node, bias) if bias is None or _is_bias(bias) else (None, None)
    added = graph.added_to(node.outputs[0])
    return added if added is not None and _is_bias(added[1]) else (None, None)


def _follow(node: ir.Node, result: ir.Value) -> tuple[ir.Value | None, bool]:
    """Return what is added to a layer's result, if that is computed before the layer, and whether only Relu follows."""
    shortcut = None
    if (added := graph.added_to(result)) is not None:
        adder, other = added
        producer = other.producer()
        known = producer is None or (node.graph is not None and node.graph.index(producer) < node.graph.index(node))
        if known and not other.is_initializer() and graph.shape(other) == graph.shape(result):
            shortcut, result = other, adder.outputs[0]
    readers = graph.consumers(result)
    only = bool(readers) and all(reader.op_type == "Relu" for reader in readers) and not result.is_graph_output()
    return shortcut, only


def _is_bias(value: ir.Value) -> bool:
    array = graph.constant(value)
    return array is not None and array.ndim == 1 and array.dtype.kind == "f" and len(graph.consumers(value)) == 1


def _both_computed(node: ir.Node) -> bool:
    return all(graph.constant_tensor(value) is None for value in node.inputs)
