"""Equalization: channels rescaled so that the one step of a whole activation tensor fits all of them.

An int8 activation has one scale for all channels; a channel a hundred times smaller than the largest keeps two of its
eight bits. Weights have one scale per output channel, so dividing the channels a layer makes costs nothing there; what
it costs is that the next layer's weights spread. Both are predicted from statistics, and for each set of coupled
channels the exponent ``α`` is taken that loses least::

    s = (peak of the activation)^α / (peak of the weights that read it)^(1 - α),   α = 0.25, 0.5, 0.75, 1, or s = 1

M. Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019 (arXiv:1906.04721);
G. Xiao et al., "SmoothQuant", 2022 (arXiv:2211.10438), for the exponent. With ``α = 1`` a depthwise layer, whose
weights have one input channel each and so do not care, gets what would be one scale per channel of its input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit
from onnxpress.errors import DataError
from onnxpress.graph import Array
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.placement import gemms, place
from onnxpress.quantization.profiling import profile
from onnxpress.quantization.techniques.proof import proven
from onnxpress.quantization.techniques.scaling import Reader, Scaling
from onnxpress_calibration.channels import ChannelStatistics
from onnxpress_calibration.dataset import Dataset

SAMPLES = 32
"""The scales need the size of channels, not exact ranges: those are measured afterwards, on all samples."""
EXPONENTS = (0.25, 0.5, 0.75, 1.0)
GAIN = 1.5
"""The predicted squared error must fall by this factor: predictions are no better than that."""
LIMIT = 2.0**10
"""Largest factor between two channels; what is smaller yet carries nothing."""


def equalize(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> Edit:
    """Rescale channels of a float model so that they fit int8 better.

    Args:
        model: A prepared float model; it is not changed.
        options: Which nodes will be quantized.
        data: Calibration samples; `SAMPLES` of them are used.
        advance: Called with the number of samples after each batch.

    Returns:
        A model that gives the same outputs, proven on samples, and the names of the tensors that were equalized. Where
        it would not (sums of floats that cancel), the model as it was, and the reason.
    """
    equal = model.clone()
    layout = Scaling(equal)
    problem = _Problem(equal, layout, options)
    if not problem.tensors:
        return Edit(model=equal)
    few = data.drawn(graph.input_specs(model), SAMPLES)
    axes = {name: axis for name, (axis, _) in problem.tensors.items()}
    try:
        collected = profile(model, axes, few, channels=axes, memory_budget=options.memory_budget, advance=advance)
    except DataError:  # activations overflow: the statistics of all samples, taken next, say in which
        return Edit(model=equal)
    scales = problem.solve({name: each.channels for name, each in collected.tensors.items() if each.channels})
    layout.apply(equal, scales)
    changed = tuple(name for name, (_, roots) in problem.tensors.items() if (scales[roots] != 1).any())
    return proven(model, Edit(model=equal, changed=changed), few, op="equalize", done="rescaled")


class _Problem:
    """The channels that may be scaled, the quantized tensors they lie in, and the layers that read them."""

    def __init__(self, model: ir.Model, layout: Scaling, options: QuantizeOptions) -> None:
        fused = model.clone()
        gemms(fused)
        placement = place(fused, options.selects)
        sources = {value.name or "": source.name or "" for value, source in placement.quantized.items()}
        int8 = {node.name for node in placement.weighted}
        values = {value.name: value for node in model.graph for value in node.outputs}
        numbered = {name: layout.numbers(values[name]) for name in dict.fromkeys(sources.values()) if name in values}
        self.layout = layout
        self.size = layout.channels.count
        self.tensors = {
            name: found
            for name, found in numbered.items()
            if found is not None and not layout.fixed.issuperset(found[1].tolist())
        }
        """Channel axis, and root of each channel on it, by the name of a quantized tensor."""
        self.readers: dict[str, list[LayerWeights]] = {name: [] for name in self.tensors}
        for reader in layout.readers:
            entering = reader.node.inputs[0]
            source = sources.get(entering.name or "") if entering is not None else None
            if source in self.readers and reader.node.name in int8:
                self.readers[source].append(LayerWeights.of(reader, layout.channels.roots(reader.entering())))

    def solve(self, statistics: Mapping[str, ChannelStatistics]) -> Array:
        """Return the scale of every root."""
        scales = np.ones(self.size)
        signals = [Signal.of(self.size, self.tensors[name][1], statistics[name]) for name in self.tensors]
        readers = [self.readers[name] for name in self.tensors]
        for cluster in self._clusters():
            touched = [i for i, signal in enumerate(signals) if signal.present[cluster].any()]
            activation = np.max([signals[i].relative_peak() for i in touched], axis=0)[cluster]
            rows = [np.zeros(self.size), *(r.relative_peak(self.size) for i in touched for r in readers[i])]
            candidates = scalings(activation, np.max(rows, axis=0)[cluster])
            losses = []
            for candidate in candidates:
                scales[cluster] = candidate
                losses.append(sum(each.loss(signals[i], scales) for i in touched for each in readers[i]))
            best = int(np.argmin(losses))
            scales[cluster] = candidates[best if losses[best] * GAIN < losses[0] else 0]
        return scales

    def _clusters(self) -> list[Array]:
        """Return the free roots, those that share a tensor together."""
        parent = np.arange(self.size)
        for _, roots in self.tensors.values():
            free = [root for root in roots.tolist() if root not in self.layout.fixed]
            joined = np.isin(parent, parent[free])
            parent[joined] = parent[free].min()
        found = {root for _, roots in self.tensors.values() for root in roots.tolist()} - self.layout.fixed
        members = np.array(sorted(found))
        return [members[parent[members] == top] for top in np.unique(parent[members])]


def scalings(activation: Array, weight: Array) -> list[Array]:
    """Return candidate scales of channels from relative peaks; the first changes nothing."""
    candidates = [np.ones(len(activation))]
    for exponent in EXPONENTS:
        wide = np.maximum(activation, 1 / LIMIT) ** exponent
        narrow = np.maximum(weight, 1 / LIMIT) ** (1 - exponent)
        candidates.append(np.where((activation > 0) & (weight > 0), wide / narrow, 1))
    return candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What is known of the values of one quantized tensor; arrays by root, zero where a root is not in it."""

    present: Array
    low: Array
    high: Array
    mean_square: Array

    @classmethod
    def of(cls, size: int, roots: Array, statistics: ChannelStatistics) -> Signal:
        """Spread statistics over ``size`` roots; ``roots`` says which one each channel of the tensor has."""
        low, high, mean_square = np.zeros(size), np.zeros(size), np.zeros(size)
        np.minimum.at(low, roots, statistics.low)
        np.maximum.at(high, roots, statistics.high)
        np.maximum.at(mean_square, roots, statistics.mean_square)
        present = np.zeros(size, np.bool_)
        present[roots] = True
        return cls(present=present, low=low, high=high, mean_square=mean_square)

    def relative_peak(self) -> Array:
        """Return each channel's largest magnitude, relative to the tensor's."""
        peak = np.maximum(self.high, -self.low)
        result: Array = peak / max(float(peak.max()), np.finfo(np.float32).tiny)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """The weights of one layer, by output and by the root of the input channel."""

    roots: Array
    """[outputs, input channels]."""
    square: Array
    """Sum of squares over the positions of a kernel, [outputs, input channels]."""
    peak: Array
    positions: int

    @classmethod
    def of(cls, reader: Reader, roots: Array) -> LayerWeights:
        """Sum up a layer's weights; ``roots`` are those of the input channel behind each, see `Reader.entering`."""
        weight = reader.weight()
        return cls(
            roots=roots,
            square=np.square(weight, dtype=np.float64).sum(axis=2),
            peak=np.abs(weight).max(axis=2, initial=0),
            positions=weight.shape[2],
        )

    def relative_peak(self, size: int) -> Array:
        """Return by root the largest share that a channel has of what sets an output channel's scale."""
        found = np.zeros(size)
        widest = np.maximum(self.peak.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        np.maximum.at(found, self.roots, self.peak / widest)
        return found

    def loss(self, signal: Signal, scales: Array) -> float:
        """Return the expected squared error of the layer's output relative to its signal, both channels' noise added.

        Rounding to a step ``d`` adds noise of variance ``d² / 12``.
        """
        step = ((signal.high / scales).max() - (signal.low / scales).min()) / 255
        scale = scales[self.roots]
        power = signal.mean_square[self.roots]
        steps = (self.peak * scale).max(axis=1, keepdims=True) / 127
        activation = step**2 / 12 * (self.square * scale**2).sum()
        weight = (steps**2 / 12 * self.positions * power / scale**2).sum()
        return float((activation + weight) / max((self.square * power).sum(), np.finfo(np.float64).tiny))
