"""Rounding by reconstruction: a weight goes up or down so that the errors of all weights of a channel cancel.

Nearest rounding is best for each weight alone. What counts is a layer's output ``x · W`` on real inputs, whose features
vary together: what one weight's rounding adds, others can take back. With ``H = E[x xᵀ]`` over calibration data, the
squared error of a channel is ``eᵀ H e``, where ``e`` is its weights minus what they are rounded to: a quadratic problem
in integers for each channel.

It is solved as GPTQ does (E. Frantar et al., 2022, arXiv:2210.17323), in the form of Babai's nearest plane (J. Chen et
al., 2025, arXiv:2507.18553): with ``H = V Vᵀ``, V upper triangular, the error is a sum of squares, in the i-th of which
only the first i errors occur, so that each rounding makes its own square smallest. Features with large values come
first. One sweep of coordinate descent follows (QuantEase, K. Behdin et al., 2023, arXiv:2309.01885), which can only
lower the error; it starts from nearest rounding where that is better, so the result is never worse than it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.evaluation.fidelity import without_padding
from onnxpress.graph import Array
from onnxpress.pruning.linear import Linear, Moments, linear, with_ones
from onnxpress.quantization.options import MEMORY_BUDGET_BYTES, QuantizeOptions
from onnxpress.quantization.params import WeightGrid, along
from onnxpress.quantization.placement import Placement
from onnxpress.quantization.profiling import exposing, groups, named
from onnxpress.running import over, shared
from onnxpress.scratch import temporary
from onnxpress_calibration.dataset import Dataset, samples_in

SAMPLES = 128
"""Each gives up to `onnxpress.pruning.linear.POSITIONS` rows."""
MOST_FEATURES = 8192
"""Layers with more are rounded to nearest: the work grows with the cube."""
DAMPING = 0.01
"""Added to every mean square, relative to the average one: what a few samples never showed may still come."""
FLOAT_NOISE = 1e-3
"""Added to every variance, relative to the mean square: a constant input's is a difference of rounded float32 sums."""
BLOCK = 128
"""Features whose errors are passed on together, by one product of matrices."""
IN_MEMORY_BYTES = 1 << 20
"""Larger moments are kept in a file that goes away with them."""


@dataclass(slots=True)
class Seen:
    """What calibration data say about one weight."""

    layer: Linear
    moments: Moments
    centred: bool
    """Whether bias correction takes mean errors out: then only what varies has to be reconstructed."""

    @property
    def squares(self) -> Array:
        """Mean products of the features with each other, [groups, features, features]."""
        if self.centred:
            noise = FLOAT_NOISE * self.moments.energy.mean(axis=1)[:, None, None]
            regular: Array = self.moments.covariance + noise * np.eye(self.moments.covariance.shape[1])
            return regular
        return self.moments.squares[:, :-1, :-1] / max(self.moments.count, 1)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Rounds the weights that calibration data were seen at; each weight with the same scales is rounded once."""

    seen: Mapping[ir.TensorProtocol, Seen] = field(default_factory=dict)
    _made: dict[tuple[ir.TensorProtocol, WeightGrid, bytes], Array] = field(default_factory=dict)

    def integers(self, tensor: ir.TensorProtocol, axis: int | None, scale: Array, grid: WeightGrid) -> Array | None:
        """Return the integers of a weight, of its shape; None where no data were seen at it.

        Args:
            tensor: The float weight.
            axis: The axis of ``scale`` in the tensor; None for one scale in all.
            scale: As `onnxpress.quantization.params.quantize_weight` returns it.
            grid: The integers to use.
        """
        shape = tensor.shape.numpy()
        if not self.knows(tensor, axis):
            return None
        key = tensor, grid, scale.tobytes()
        if key not in self._made:
            scales = np.broadcast_to(along(scale, axis, len(shape)), shape)
            steps = self.steps(tensor, scales, -grid.limit, grid.limit)
            assert steps is not None  # noqa: S101 - it was seen
            self._made[key] = np.ascontiguousarray(steps + int(grid.zero_point), grid.zero_point.dtype)
        return self._made[key]

    def knows(self, tensor: ir.TensorProtocol, axis: int | None) -> bool:
        """Tell whether data were seen at a weight; a table that is looked up by its rows has its scales elsewhere."""
        found = self.seen.get(tensor)
        return found is not None and axis in (None, found.layer.facts.out_axis % len(tensor.shape))

    def energy(self, tensor: ir.TensorProtocol) -> Array:
        """Return the mean square of what each value of a weight is multiplied with, of the weight's shape."""
        layer, squares = self.seen[tensor].layer, self.seen[tensor].squares
        return layer.tensor(np.broadcast_to(np.diagonal(squares, axis1=1, axis2=2)[:, :, None], layer.matrix().shape))

    def steps(
        self, tensor: ir.TensorProtocol, scales: Array, lowest: Array | int, highest: Array | int
    ) -> Array | None:
        """Return the steps of a weight between the bounds, of its shape and dtype; None where no data were seen at it.

        Args:
            tensor: The float weight.
            scales: Of one step, for each value of the weight.
            lowest: The smallest integer, of each value or of all.
            highest: The largest.
        """
        found = self.seen.get(tensor)
        if found is None:
            return None
        layer = found.layer
        ends = (layer.as_matrix(end) if isinstance(end, np.ndarray) else end for end in (lowest, highest))
        return layer.tensor(reconstruct(layer.matrix(), layer.as_matrix(scales), found.squares, *ends))


def observe(
    model: ir.Model,
    nodes: Iterable[ir.Node],
    data: Dataset,
    *,
    centred: Callable[[ir.Node], bool],
    memory_budget: float = MEMORY_BUDGET_BYTES,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> Reconstruction:
    """Run a float model over calibration data and sum the moments of what enters each weight; tied weights add up.

    Args:
        model: A prepared float model after `placement.gemms`; it is not changed.
        nodes: Those of its nodes whose weights will be rounded.
        data: Calibration samples; `SAMPLES` of them are used, whatever their order.
        centred: Tells of a node whether bias correction takes its mean error out.
        memory_budget: Bytes of activations to hold; with less, more passes over the samples, some layers each time.
        advance: Called with the number of samples after each batch.
    """
    layers = [layer for layer in map(linear, nodes) if layer is not None]
    seen: dict[ir.TensorProtocol, Seen] = {}
    mixed = set()
    for layer in layers:
        tensor = graph.constant_tensor(layer.weight)
        assert tensor is not None  # noqa: S101 - `linear`
        other = seen.get(tensor)
        if other is None:
            seen[tensor] = Seen(layer, _moments(layer), centred(layer.node))
        elif (other.layer.facts, other.layer.groups) != (layer.facts, layer.groups):
            mixed.add(tensor)
        else:
            other.centred &= centred(layer.node)
    for tensor in {*mixed, *(tensor for tensor, each in seen.items() if each.moments.squares.size == 0)}:
        del seen[tensor]
    layers = [layer for layer in layers if graph.constant_tensor(layer.weight) in seen]
    if not layers:
        return Reconstruction()
    specs, by_name = graph.input_specs(model), defaultdict[str, list[Linear]](list)
    for layer in layers:
        by_name[str(layer.entering.name)].append(layer)
    drawn = data.drawn(specs, SAMPLES)
    shares = groups(model, named(model, by_name), drawn, memory_budget / shared()[0])
    for turn, names in enumerate(shares):
        chosen = [(layer, np.random.default_rng(0)) for name in names for layer in by_name[name]]
        for index, (feeds, (found,)) in enumerate(over([exposing(model, names)], drawn.batches(specs))):
            entering = without_padding(feeds | found, feeds)
            for layer, random in chosen:
                tensor = graph.constant_tensor(layer.weight)
                assert tensor is not None  # noqa: S101
                features = layer.features(entering[str(layer.entering.name)], random)
                seen[tensor].moments.add(with_ones(features))
            if index % len(shares) == turn:  # each sample counts once, however often it is looked at
                advance(samples_in(feeds))
    return Reconstruction(seen)


def reconstruction(
    model: ir.Model,
    placement: Placement,
    options: QuantizeOptions,
    data: Dataset,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> Reconstruction:
    """Return what rounds the weights of a placement in ``model``; see `observe`."""
    # Bias correction leaves MatMul alone.
    return observe(
        model,
        placement.weighted,
        data,
        centred=lambda node: options.bias_correction and node.op_type != "MatMul",
        memory_budget=options.memory_budget,
        advance=advance,
    )


def reconstruct(matrix: Array, scales: Array, squares: Array, lowest: Array | int, highest: Array | int) -> Array:
    """Round a matrix to integers with which its products with the data it was made for change least.

    Args:
        matrix: float [groups, features, channels].
        scales: Of one integer step, broadcastable to the matrix.
        squares: Mean products of the features with each other, [groups, features, features].
        lowest: The smallest integer, broadcastable to the matrix.
        highest: The largest.

    Returns:
        float64 integers [groups, features, channels]. Each channel's error is at most that of nearest rounding.
    """
    energy = np.diagonal(squares, axis1=1, axis2=2)
    damping = np.maximum(DAMPING * energy.mean(axis=1), np.finfo(np.float32).tiny)
    order = np.argsort(-energy, axis=1, kind="stable")[:, :, None]
    ordered = np.take_along_axis(np.take_along_axis(squares, order, 1), order.transpose(0, 2, 1), 2)
    ordered = ordered + damping[:, None, None] * np.eye(squares.shape[1])

    def arranged(values: Array | int) -> Array:
        spread = np.broadcast_to(values, matrix.shape)
        return spread if np.ndim(values) == 0 else np.take_along_axis(spread, order, 1)

    problem = _Problem(
        matrix=arranged(matrix), scales=arranged(scales), lowest=arranged(lowest), highest=arranged(highest)
    )
    factor = np.linalg.cholesky(ordered[:, ::-1, ::-1])[:, ::-1, ::-1]  # H = V Vᵀ
    nearest = problem.rounded(problem.matrix, slice(None))
    steps = problem.sweep(np.triu(_coupling(factor), 1), problem.matrix / problem.scales)
    better = problem.loss(nearest, ordered) < problem.loss(steps, ordered)
    steps = problem.sweep(_coupling(ordered), np.where(better[:, None], nearest, steps))
    result = np.empty_like(steps)
    np.put_along_axis(result, order, steps, 1)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    matrix: Array
    scales: Array
    lowest: Array
    highest: Array

    def rounded(self, wanted: Array, at: slice | int) -> Array:
        """Return the nearest integers to what the features ``at`` should be."""
        return np.clip(np.rint(wanted / self.scales[:, at]), self.lowest[:, at], self.highest[:, at])

    def loss(self, steps: Array, squares: Array) -> Array:
        """Return the squared error of each channel, [groups, channels]."""
        errors = self.matrix - steps * self.scales
        total: Array = (errors * (squares @ errors)).sum(axis=1)
        return total

    def sweep(self, coupling: Array, steps: Array) -> Array:
        """Round feature after feature to what makes up best for the errors of the others, beginning with ``steps``.

        Args:
            coupling: What one unit of error of a feature (row) asks of another (column), [groups, features, features].
            steps: Where to begin, not necessarily integers.
        """
        errors, result = self.matrix - steps * self.scales, np.empty_like(self.matrix)
        for start in range(0, self.matrix.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            wanted = self.matrix[:, block] + coupling[:, :, block].transpose(0, 2, 1) @ errors
            before = errors[:, block].copy()
            for index in range(wanted.shape[1]):
                at, done = start + index, slice(start, start + index)
                change = errors[:, done] - before[:, :index]
                target = wanted[:, index] + (coupling[:, None, done, at] @ change)[:, 0]
                result[:, at] = self.rounded(target, at)
                errors[:, at] = self.matrix[:, at] - result[:, at] * self.scales[:, at]
        return result


def _coupling(squares: Array) -> Array:
    coupled: Array = squares / np.diagonal(squares, axis1=1, axis2=2)[:, None, :]
    return coupled * (1 - np.eye(coupled.shape[1]))


def _moments(layer: Linear) -> Moments:
    """Start the moments of a layer, large ones in a file; empty ones where there are too many features."""
    rows = layer.rows()
    features = rows[0].size
    if features > MOST_FEATURES:
        return Moments(np.zeros((0, 0, 0)), np.zeros((0, 0, 0)))
    shape = layer.groups, features + 1, features + 1
    empty = np.zeros((layer.groups, features + 1, 0))
    if np.prod(shape) * 8 <= IN_MEMORY_BYTES:
        return Moments(np.zeros(shape), empty)
    with temporary() as folder, (folder / "moments").open("w+b") as file:
        if hasattr(os, "posix_fallocate"):  # else a disk that fills up later ends the process
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * 8)
        return Moments(np.memmap(file, np.float64, "w+", shape=shape), empty)
