"""Smoothing: what equalization does, where the layer before cannot absorb the scale: one multiplication is inserted.

In transformers a few channels of a MatMul's input are tens of times larger than the others, behind a GELU or a
LayerNormalization whose output a residual connection reads too. ``x W = (x / s) (s W)`` moves the size of such channels
into the weights; dividing costs one elementwise multiplication in float, so it is done only where the predicted error
falls by `equalization.GAIN`, and only where the input is made in float anyway.

G. Xiao et al., "SmoothQuant: accurate and efficient post-training quantization for large language models", 2022
(arXiv:2211.10438). Scales and their exponent are chosen as in `equalization`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit
from onnxpress.errors import DataError
from onnxpress.graph import Array
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.placement import gemms, place
from onnxpress.quantization.profiling import profile
from onnxpress.quantization.techniques.equalization import (
    GAIN,
    SAMPLES,
    LayerWeights,
    Signal,
    scalings,
)
from onnxpress.quantization.techniques.proof import proven
from onnxpress.quantization.techniques.scaling import Reader
from onnxpress.quantization.twins import activation
from onnxpress_calibration.channels import ChannelStatistics
from onnxpress_calibration.dataset import Dataset


def smooth(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> Edit:
    """Divide the channels of MatMul inputs so that they fit int8 better.

    Args:
        model: A prepared float model; it is not changed.
        options: Which nodes will be quantized.
        data: Calibration samples; `SAMPLES` of them are used.
        advance: Called with the number of samples after each batch.

    Returns:
        A model that gives the same outputs, proven on samples, and the names of the tensors that were smoothed.
    """
    smoothed, few = model.clone(), data.drawn(graph.input_specs(model), SAMPLES)
    readers = _readers(model, options)
    if not readers:
        return Edit(model=smoothed)
    axes = dict.fromkeys(readers, -1)
    try:
        collected = profile(model, axes, few, channels=axes, memory_budget=options.memory_budget, advance=advance)
    except DataError:  # activations overflow: the statistics of all samples, taken next, say in which
        return Edit(model=smoothed)
    changed = []
    for name, nodes in readers.items():
        statistics = collected.tensors[name].channels
        scales = None if statistics is None else _choose(statistics, nodes)
        if scales is not None:
            _divide(smoothed, name, {node.name for node in nodes}, scales)
            changed.append(name)
    return proven(model, Edit(model=smoothed, changed=tuple(changed)), few, op="smooth", done="smoothed")


def _readers(model: ir.Model, options: QuantizeOptions) -> dict[str, list[ir.Node]]:
    """Return the int8 MatMul and Gemm nodes by the name of the input they read, where that is made in float."""
    fused = model.clone()
    gemms(fused)
    placement = place(fused, options.selects)
    chosen = {*placement.weighted, *placement.others}
    found: dict[str, list[ir.Node]] = {}
    for node in placement.weighted:
        value, weight = activation(node), node.inputs[1]
        made_by, facts = value.producer(), graph.weighted(node)
        inner = made_by.inputs[0].producer() if made_by is not None and made_by.inputs and made_by.inputs[0] else None
        assert facts is not None and weight is not None  # noqa: S101 - placement chose it for that
        in_float = made_by is not None and made_by not in chosen and inner not in chosen
        if node.op_type != "Conv" and in_float and len(weight.uses()) == 1:
            found.setdefault(value.name or "", []).append(node)
    return found


def _choose(statistics: ChannelStatistics, nodes: list[ir.Node]) -> Array | None:
    """Return the scales that lose least, or None where that is not worth a multiplication."""
    channels = np.arange(len(statistics.low))
    signal = Signal.of(len(channels), channels, statistics)
    layers = [Reader(node=node, numbers=channels) for node in nodes]
    weights = [LayerWeights.of(layer, layer.entering()) for layer in layers]
    candidates = scalings(
        signal.relative_peak(), np.max([each.relative_peak(len(channels)) for each in weights], axis=0)
    )
    losses = [sum(each.loss(signal, candidate) for each in weights) for candidate in candidates]
    best = int(np.argmin(losses))
    return candidates[best] if losses[best] * GAIN < losses[0] else None


def _divide(model: ir.Model, name: str, readers: set[str | None], scales: Array) -> None:
    """Insert the division by the scales, as a multiplication, and put the scales into the weights."""
    value = next(value for node in model.graph for value in node.outputs if value.name == name)
    producer = value.producer()
    assert producer is not None  # noqa: S101 - `_readers` chose it for that
    inverse = graph.add_initializer(model.graph, f"{name}_smoothing", (1 / scales).astype(np.float32))
    division = ir.node("Mul", [value, inverse], name=f"{name}_smoothed")
    result = division.outputs[0]
    result.name, result.shape, result.type = f"{name}_smoothed", value.shape, value.type
    model.graph.insert_after(producer, division)
    for node in graph.consumers(value):
        facts = graph.weighted(node)
        if node.name not in readers or facts is None:
            continue
        array = graph.constant(node.inputs[facts.weight])
        assert array is not None  # noqa: S101
        factor = scales[:, None] if facts.in_axis % 2 == 0 else scales
        graph.set_constant(model.graph, node, facts.weight, (array * factor).astype(np.float32))
        node.replace_input_with(0, result)
