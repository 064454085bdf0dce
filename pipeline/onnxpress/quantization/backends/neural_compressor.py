"""neural-compressor for PyTorch models: PT2E static int8, exported to QDQ ONNX, weights folded to int8.

neural-compressor quantizes the PyTorch graph (its X86 scheme: uint8 activations, int8 weights), torch exports
what it made, and the QuantizeLinear that still stands before each weight is computed here, so that the file holds int8.
From 3.8 on neural-compressor has no ONNX code of its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit
from onnxpress.errors import DataError, ModelError, UsageError
from onnxpress.export import sources
from onnxpress.export.account import first_line
from onnxpress.export.prepare import prepare
from onnxpress.export.torch_export import Network, to_onnx, trace_sizes
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import quantize_bias
from onnxpress.quantization.placement import remove_unused
from onnxpress.quantization.verification import judged, judges
from onnxpress.quiet import quiet
from onnxpress_calibration.dataset import Dataset, InputSpec

if TYPE_CHECKING:
    import torch

BATCH = 4


def quantize(
    network: Network,
    options: QuantizeOptions,
    data: Dataset,
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
    *,
    evaluation: Dataset | None = None,
    metric: str | None = None,
) -> Edit:
    """Quantize a PyTorch model and export the result; the exported float model is what it is judged by.

    Args:
        network: The float model (`onnxpress.export.sources`).
        options: Mode static; ``per_tensor``, ``samples`` and those of the guard apply.
        data: Calibration samples.
        advance: Called with the number of samples after each batch.
        evaluation: Samples to judge by; the calibration samples where there are none.
        metric: What must be kept, see `onnxpress.evaluation.evaluate.evaluate`; None for fidelity.

    Raises:
        UsageError: neural-compressor is not installed, or the options are not what it can do.
        ModelError: neural-compressor or torch's exporter fails, or the int8 model lost too much; says how.
        DataError: the data does not fit, or has no labels though the metric needs them.
    """
    torch = sources.import_torch()
    limited = data if options.samples is None else replace(data, limit=options.samples)
    judging = judges(limited, evaluation, metric)
    sizes = trace_sizes(network)
    reference = prepare(to_onnx(network, sizes)).model if options.verify else None
    specs = {
        argument.name: InputSpec(
            dtype=np.dtype(argument.dtype),
            shape=tuple(size if isinstance(size, int) else None for size in argument.shape),
        )
        for argument in network.arguments
    }
    samples = [argument.name for argument in network.arguments]
    batches = (tuple(torch.from_numpy(batch[name]) for name in samples) for batch in limited.batches(specs, BATCH))
    try:
        with quiet():
            made = _converted(network, options, batches, advance)
    except ImportError as error:
        raise UsageError(
            f"backend neural-compressor: cannot be imported ({first_line(error)}). Install onnxpress[torch]."
        ) from error
    except DataError:
        raise
    except Exception as error:  # whatever torch and neural-compressor raise on a graph that they do not expect
        raise ModelError(
            f"source {network.origin}: neural-compressor cannot quantize it ({first_line(error)}). "
            "Export it and use the backend onnxpress."
        ) from error
    quantized = Network(origin=network.origin, module=made, arguments=network.arguments, outputs=network.outputs)
    model = to_onnx(quantized, sizes)
    changed = fold_weights(model, halved=options.saturates)
    quantize_biases(model)
    if not changed:
        raise ModelError(f"source {network.origin}: neural-compressor quantized no weight of it.")
    edit = Edit(model=prepare(model).model, changed=tuple(changed), facts={"int8_weights": len(changed)})
    return edit if reference is None else judged(edit, reference, options, judging, advance, metric)


def _converted(
    network: Network,
    options: QuantizeOptions,
    batches: Iterator[tuple[torch.Tensor, ...]],
    advance: Callable[[int], object],
) -> torch.nn.Module:
    """Return the PyTorch model with its pairs of quantize and dequantize."""
    import torch

    os.environ.setdefault("HABANA_LOGS", tempfile.gettempdir())  # else it keeps a log in the home folder
    from neural_compressor.torch import export, quantization

    first = next(batches)
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(argument.shape) if isinstance(size, str)}
        for argument in network.arguments
    )
    captured = export.export(network.module, first, dynamic_shapes=dynamic)
    granularity = "per_tensor" if options.per_tensor else "per_channel"
    config = quantization.StaticQuantConfig(w_granularity=granularity, act_dtype="uint8", act_algo="minmax")
    prepared = quantization.prepare(captured, config, example_inputs=first)
    with torch.no_grad():
        for batch in chain([first], batches):
            prepared(*batch)
            advance(len(batch[0]))
    converted: torch.nn.Module = quantization.convert(prepared)
    return converted


def fold_weights(model: ir.Model, *, halved: bool = False) -> list[str]:
    """Compute each QuantizeLinear of a constant, in place, and the Clip behind it; return the weights' names.

    Args:
        model: What torch exported.
        halved: Store int8 in 7 bits, with which no pair of products saturates (see `onnxpress.quantization.pairs`).
    """
    folded = []
    for node in list(model.graph):
        array, scale = graph.constant(node.inputs[0] if node.inputs else None), None
        if node.op_type != "QuantizeLinear" or array is None:
            continue
        scale, zero = (graph.constant(value) for value in node.inputs[1:3])
        if scale is None or zero is None:
            continue
        axis = graph.attribute_int(node, "axis", 1) % array.ndim
        shape = [-1 if scale.ndim and index == axis else 1 for index in range(array.ndim)]
        coarser = halved and zero.dtype == np.int8 and not zero.any()
        scale = scale * np.float32(2 if coarser else 1)
        limits = np.iinfo(zero.dtype)
        steps = np.round(array / scale.reshape(shape)) + zero.reshape(shape).astype(np.float32)
        integers, result = np.clip(steps, limits.min, limits.max), node.outputs[0]
        (reader,) = graph.consumers(result) if len(result.uses()) == 1 else (None,)
        if reader is not None and reader.op_type == "Clip":
            low, high = (graph.constant(value) for value in reader.inputs[1:3])
            if low is not None and high is not None:
                integers, result = np.clip(integers, low, high), reader.outputs[0]
        weight = node.inputs[0]
        name = f"{weight.name if weight is not None else node.name}_q"
        result.replace_all_uses_with(stored := graph.add_initializer(model.graph, name, integers.astype(zero.dtype)))
        for back in graph.consumers(stored) if coarser else ():
            back.replace_input_with(1, graph.add_initializer(model.graph, f"{name}_s", scale))
        folded.append(name.removesuffix("_q"))
    remove_unused(model)
    return folded


def quantize_biases(model: ir.Model) -> None:
    """Store the biases between quantized inputs and weights as int32, in place: onnxruntime fuses no Gemm without."""
    for node in list(model.graph):
        bias = node.inputs[2] if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2 else None
        array = graph.constant(bias)
        scales = [_scale(value) for value in node.inputs[:2]]
        if bias is None or array is None or array.ndim != 1 or scales[0] is None or scales[1] is None:
            continue
        integers, scale = quantize_bias(array, np.float32(scales[0]), scales[1])
        stored = graph.add_initializer(model.graph, f"{bias.name}_{node.name}_q", integers)
        step = graph.add_initializer(model.graph, f"{bias.name}_{node.name}_s", scale)
        back = ir.node(
            "DequantizeLinear", [stored, step], {"axis": 0} if scale.ndim else {}, name=f"{bias.name}_{node.name}_dq"
        )
        back.outputs[0].name = back.name
        model.graph.insert_before(node, back)
        node.replace_input_with(2, back.outputs[0])


def _scale(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """Return the scale of a value that a DequantizeLinear makes."""
    producer = None if value is None else value.producer()
    return (
        graph.constant(producer.inputs[1]) if producer is not None and producer.op_type == "DequantizeLinear" else None
    )
