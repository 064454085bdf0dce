"""The inspect command: what a model file holds, layer by layer, without running it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from onnxpress import artifact, graph, parameters
from onnxpress.quantization.placement import place
from onnxpress.units import format_bytes, format_count

SCHEMA = "onnxpress.inspect/1"
SHOWN_LAYERS = 20


def inspect(path: Path) -> dict[str, Any]:
    """Describe a model file.

    Returns:
        The document ``onnxpress.inspect/1``: inputs, outputs, opset, operators, bytes by dtype, layers (the weighted
        nodes, with parameters, bytes, dtype and MACs for one sample), lineage, and what could run as int8.

    Raises:
        UsageError, ModelError: see `artifact.load`.
    """
    found = artifact.read(path)
    model = artifact.load(path)
    common.ShapeInferencePass()(model)
    bytes_by_dtype: Counter[str] = Counter()
    for tensor in artifact.tensors(model):
        bytes_by_dtype[tensor.dtype.name.lower()] += tensor.nbytes
    placement = place(model, lambda name: True)  # noqa: ARG005
    layers = [layer for node in graph.nodes(model) if (layer := _layer(node)) is not None]
    return {
        "schema": SCHEMA,
        "path": str(path),
        "sha256": found.sha256,
        "size_bytes": found.size_bytes,
        "ir_version": model.ir_version,
        "opset": {domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        "producer": " ".join(filter(None, [model.producer_name, model.producer_version])),
        "inputs": [_value(value) for value in graph.inputs(model)],
        "outputs": [_value(value) for value in model.graph.outputs],
        "parameters": parameters.count(model),
        "bytes_by_dtype": dict(sorted(bytes_by_dtype.items())),
        "macs": sum(layer["macs"] or 0 for layer in layers),
        "operators": dict(Counter(graph.operator(node) for node in graph.nodes(model)).most_common()),
        "layers": layers,
        "quantizable": {
            "nodes": len(placement.weighted),
            "macs": sum(graph.macs(node) or 0 for node in placement.weighted),
            "refused": [{"where": skip.where, "op": skip.op, "reason": skip.reason} for skip in placement.skipped],
        },
        "lineage": list(found.lineage),
    }


def render(document: dict[str, Any]) -> list[str]:
    """Return the description for people, in lines."""
    lines = [
        f"{document['path']}  {format_bytes(document['size_bytes'])}  sha256 {document['sha256'][:12]}",
        f"  opset {', '.join(f'{name} {version}' for name, version in document['opset'].items())}, "
        f"IR {document['ir_version']}, made by {document['producer'] or 'unknown'}",
        *(f"  input  {value}" for value in document["inputs"]),
        *(f"  output {value}" for value in document["outputs"]),
        f"  {document['parameters']:,} parameters, {_macs(document['macs'])} MACs for one sample",
        "  weights: "
        + ", ".join(f"{format_bytes(size)} {dtype}" for dtype, size in document["bytes_by_dtype"].items()),
        "  operators: " + ", ".join(f"{name} {count}" for name, count in document["operators"].items()),
        "",
        f"  {'layer':<48} {'operator':<14} {'weight':<18} {'bytes':>10} {'MACs':>9}",
    ]
    heaviest = sorted(document["layers"], key=lambda layer: -(layer["macs"] or 0))
    for layer in heaviest[:SHOWN_LAYERS]:
        shape = "x".join(map(str, layer["shape"]))
        lines.append(
            f"  {layer['name'][-48:]:<48} {layer['op']:<14} {shape + ' ' + layer['dtype']:<18} "
            f"{format_bytes(layer['bytes']):>10} {_macs(layer['macs']):>9}"
        )
    if len(heaviest) > SHOWN_LAYERS:
        lines.append(f"  and {len(heaviest) - SHOWN_LAYERS} lighter layers (--json lists all)")
    could = document["quantizable"]
    if could["nodes"]:
        share = 100 * could["macs"] / document["macs"] if document["macs"] else 0
        lines += ["", f"  could run as static int8: {could['nodes']} layers with {share:.0f} % of the MACs"]
    lines += [f"  stays float: {each['op']} {each['where']}: {each['reason']}" for each in could["refused"]]
    lines += ["", "  lineage:" if document["lineage"] else "  lineage: not made by onnxpress"]
    for step in document["lineage"]:
        chosen = ", ".join(f"{key}={value}" for key, value in step.get("options", {}).items() if value is not None)
        lines.append(
            f"    {step.get('step')} {chosen} from {str(step.get('input_sha256') or step.get('source_sha256'))[:12]}"
        )
    return lines


def _layer(node: ir.Node) -> dict[str, Any] | None:
    """Describe a node that holds a weight; None for others."""
    facts = graph.weighted(node)
    index = facts.weight if facts is not None else 1 if node.op_type in ("LSTM", "GRU", "RNN") else None
    tensor = None if index is None else _stored(node.inputs[index])
    if tensor is None:
        return None
    return {
        "name": node.name or "",
        "op": node.op_type,
        "shape": [int(size) for size in tensor.shape.numpy()],
        "dtype": tensor.dtype.name.lower(),
        "bytes": tensor.nbytes,
        "macs": graph.macs(node),
    }


def _stored(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the weight as it is stored: behind a DequantizeLinear the integers."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        value = producer.inputs[0]
    return graph.constant_tensor(value)


def _value(value: ir.Value) -> str:
    dims = "?" if value.shape is None else "x".join(str(size) for size in value.shape)
    return f"{value.name}: {value.dtype.name.lower() if value.dtype is not None else '?'} {dims}"


def _macs(count: int | None) -> str:
    if count is None:
        return "?"
    return format_count(float(f"{count:.3g}"))
