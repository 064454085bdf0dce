"""onnxruntime's own static quantizer, as its users know it, with ranges from our statistics.

Its calibrators keep every activation of every sample, or mislead (docs/calibration.md), so they are not run: the ranges
go straight to the classes that write the graph. What they quantize is onnxruntime's choice, attention masks included.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxpress import artifact, graph, maps
from onnxpress.artifact import Edit
from onnxpress.errors import ModelError
from onnxpress.export.passes.names import name_uniquely
from onnxpress.quantization.forms import is_float
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.scratch import temporary
from onnxpress.session import onnxruntime

TYPES = {"int8": "QInt8", "uint8": "QUInt8", "int16": "QInt16", "uint16": "QUInt16"}


def measured(model: ir.Model) -> list[str]:
    """Return the tensors whose ranges onnxruntime may ask for: every float32 tensor of the main graph."""
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return [value.name or "" for value in values if is_float(value) and value.name]


def write(model: ir.Model, ranges: Mapping[str, tuple[float, float]], options: QuantizeOptions) -> Edit:
    """Quantize a prepared model with onnxruntime's QDQQuantizer, or ONNXQuantizer for format qoperator.

    Args:
        model: A prepared model; it is not changed.
        ranges: (low, high) by tensor name, of all `measured`.
        options: The types, the format and the choice of nodes.

    Raises:
        ModelError: onnxruntime's quantizer fails; says how.
    """
    onnxruntime()
    quantization = importlib.import_module("onnxruntime.quantization")
    utilities = importlib.import_module("onnxruntime.quantization.quant_utils")
    registry = importlib.import_module("onnxruntime.quantization.registry")
    calibrate = importlib.import_module("onnxruntime.quantization.calibrate")
    types = {name: getattr(quantization.QuantType, word) for name, word in TYPES.items()}
    method = calibrate.CalibrationMethod.MinMax
    values = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    qdq = options.format == "qdq"
    excluded = [
        node.name or ""
        for node in model.graph
        if not options.selects(node.name or "") or (options.saturates and _multiplies_signed(node, options))
    ]
    with temporary() as folder:
        path = artifact.save(model, folder / "model.onnx").path
        try:
            shared = (
                utilities.load_model_with_shape_infer(path),
                not options.per_tensor,
                options.saturates,  # reduce_range: weights of 7 bits
                *(() if qdq else (quantization.QuantizationMode.QLinearOps, True)),
                types[options.weights],
                types[options.activations],
                calibrate.TensorsData(method, values),
                [],
                excluded,
                list((registry.QDQRegistry if qdq else registry.QLinearOpsRegistry).keys()),
                {"ActivationSymmetric": options.symmetric},
            )
            quantizer = (
                quantization.QDQQuantizer
                if qdq
                else importlib.import_module("onnxruntime.quantization.onnx_quantizer").ONNXQuantizer
            )(*shared)
            quantizer.quantize_model()
            made = maps.from_proto(quantizer.model.model)
        except Exception as error:  # whatever it raises on a graph that it does not expect
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"backend onnxruntime: its quantizer fails on this model ({reason}). Use the backend onnxpress."
            ) from error
    name_uniquely(made)
    changed = [node.name or "" for node in made.graph if node.op_type == "QuantizeLinear" or "QLinear" in node.op_type]
    return Edit(model=made, changed=tuple(changed), facts={"pairs": len(changed)})


def _multiplies_signed(node: ir.Node, options: QuantizeOptions) -> bool:
    """Tell whether a node would multiply two int8 activations: such pairs saturate, and no weight could be smaller."""
    computed = len(node.inputs) > 1 and graph.constant_tensor(node.inputs[1]) is None
    return options.activations == "int8" and node.op_type in ("Conv", "Gemm", "MatMul") and computed
