"""What calibration data say about each weight: moments of what it is multiplied with, collected in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.evaluation.fidelity import MASK
from onnxpress.graph import Array
from onnxpress.progress import Stage, unshown
from onnxpress.pruning.linear import Linear, Moments, linear, with_ones
from onnxpress.pruning.surgery import Mask
from onnxpress.pruning.walk import BATCH
from onnxpress.pruning.weights import Weight
from onnxpress.running import over
from onnxpress_calibration.dataset import Dataset, samples_in

DAMPING = 1e-3
"""Added to every variance, relative to the mean one: features that never vary together still count as two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of one weight [out, in, …]; each array has its shape."""

    energy: Array
    """Mean square of the input that it multiplies."""
    variance: Array
    """Variance of that input, given all others of the same output: what no change of theirs and no bias can replace."""
    derivative: Array
    """Mean square of the derivative of the model's outputs; see `gradients`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen, by weight. One that was not observed (in a recurrent layer, say) gets moments of white noise."""

    moments: Mapping[ir.Value, tuple[Linear, Moments]] = field(default_factory=dict)
    derivatives: Mapping[ir.Value, Array] = field(default_factory=dict)

    def seen(self, weight: Weight) -> Seen:
        """Return what was seen of a weight."""
        ones = np.ones(weight.rows().shape)
        found = self.derivatives.get(weight.value)
        derivative = ones if found is None else np.moveaxis(found, (weight.out_axis, weight.in_axis), (0, 1))
        if weight.value not in self.moments:
            return Seen(energy=ones, variance=ones, derivative=derivative)
        layer, moments = self.moments[weight.value]
        inverse = np.linalg.inv(damped(moments.covariance))
        variance = 1 / np.diagonal(inverse, axis1=1, axis2=2)
        energy = layer.spread(moments.energy)
        return Seen(energy=energy, variance=layer.spread(variance), derivative=derivative)

    def problems(self, weight: Weight) -> Iterator[tuple[Array, Array]]:
        """Yield (covariance [features, features], matrix [features, channels]) of each group of a weight."""
        if weight.value in self.moments:
            layer, moments = self.moments[weight.value]
            yield from zip(damped(moments.covariance), layer.matrix(), strict=True)
        else:
            rows = weight.rows().astype(np.float64)
            matrix = np.moveaxis(rows, 1, 0).reshape(rows.shape[1], -1)
            yield np.eye(len(matrix)), matrix

    def refitted(self, weight: Weight, keep: Mask) -> Array:
        """Return a weight tensor that reads some of its inputs only, and gives by them what it gave, as far as it can.

        Args:
            weight: Where it is.
            keep: Mask over its input axis.
        """
        if weight.value not in self.moments:
            rows = weight.rows() * keep.reshape(1, -1, *[1] * (weight.rows().ndim - 2))
            return np.moveaxis(rows, (0, 1), (weight.out_axis, weight.in_axis))
        layer, moments = self.moments[weight.value]
        matrix = layer.matrix()
        feature = np.repeat(keep, matrix.shape[1] // len(keep))
        squares = damped(moments.squares[:, :-1, :-1] / max(moments.count, 1))
        wanted = squares[:, feature] @ matrix
        matrix[:, feature] = np.linalg.solve(squares[:, feature][:, :, feature], wanted)
        matrix[:, ~feature] = 0
        return layer.tensor(matrix)


def collect(model: ir.Model, data: Dataset, stage: Stage = unshown) -> Evidence:
    """Run a model over calibration data and sum the moments of what enters each Conv, Gemm and MatMul.

    Memory holds one batch of activations and one square matrix per layer, however many samples there are.
    """
    layers = [layer for layer in map(linear, model.graph) if layer is not None]
    moments = {layer.weight: (layer, Moments.zeros(layer)) for layer in layers}
    randoms = [np.random.default_rng(0) for _ in layers]
    walked = exposing(model, [str(layer.entering.name) for layer in layers])
    with stage("see what enters the layers", data.count) as advance:
        for feeds, (computed,) in over([walked], data.batches(graph.input_specs(model), BATCH)):
            found = feeds | computed
            for layer, random in zip(layers, randoms, strict=True):
                features = layer.features(found[str(layer.entering.name)], random, feeds.get(MASK))
                moments[layer.weight][1].add(with_ones(features))
            advance(samples_in(feeds))
    return Evidence(moments=moments)


def exposing(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """Return a copy of a model that also outputs these values; inputs among them, and initializers, are left out."""
    copy = model.clone()
    computed = {value.name: value for node in copy.graph for value in node.outputs}
    known = {value.name for value in copy.graph.outputs}
    copy.graph.outputs.extend(computed[name] for name in dict.fromkeys(names) if name in computed.keys() - known)
    return copy


def damped(covariance: Array) -> Array:
    """Return covariances [groups, features, features] that can be inverted."""
    mean = np.trace(covariance, axis1=1, axis2=2) / covariance.shape[1]
    result: Array = covariance + np.maximum(DAMPING * mean, 1e-12)[:, None, None] * np.eye(covariance.shape[1])
    return result
