"""The inspect command: what a model file holds, layer by layer, without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress import artifact, graph, macs, parameters
from onnxpress.errors import ModelError
from onnxpress.export.passes import shapes
from onnxpress.export.prepare import prepare
from onnxpress.quantization.layers import Layer, layers
from onnxpress.quantization.placement import gemms, place
from onnxpress.units import format_bytes, format_count

SCHEMA = "onnxpress.inspect/1"
SHOWN_LAYERS = 20


def inspect(path: Path, shape: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Describe a model file.

    Args:
        path: The file.
        shape: Sizes of free axes of the inputs, for the MACs; the others count as 1.

    Returns:
        The document ``onnxpress.inspect/1``: inputs, outputs, opset, operators, bytes by dtype, layers (the weighted
        nodes, with parameters, bytes, dtype and MACs for one sample), lineage, and what could run as int8.

    Raises:
        UsageError, ModelError: see `artifact.load`; or the model has no axis of a name.
    """
    shape = shape or {}
    found = artifact.read(path)
    model = artifact.load(path)
    stated = shapes.known(model)
    shapes.infer(model)
    shapes.restore(model, stated)
    known = macs.sizes(model, shape)
    bytes_by_dtype: Counter[str] = Counter()
    for tensor in artifact.tensors(model):
        bytes_by_dtype[tensor.dtype.name.lower()] += tensor.nbytes
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
        "macs": macs.total(model, known),
        "free_axes": macs.stated(model, shape),
        "operators": dict(Counter(graph.operator(node) for node in graph.nodes(model)).most_common()),
        "layers": [_layer(layer, known) for layer in layers(model)],
        "quantizable": _quantizable(model, shape),
        "lineage": list(found.lineage),
    }


def _quantizable(model: ir.Model, shape: Mapping[str, int]) -> dict[str, Any]:
    """Describe what could run as static int8 once the model is prepared, and why the rest could not."""
    try:
        prepared = prepare(model).model
    except ModelError as error:
        return {"nodes": 0, "macs": 0, "refused": [{"where": "", "op": "model", "reason": str(error)}]}
    gemms(prepared)
    known, placement = macs.sizes(prepared, shape), place(prepared, lambda name: True)  # noqa: ARG005
    return {
        "nodes": len(placement.weighted),
        "macs": sum(macs.of(node, known) or 0 for node in placement.weighted),
        "refused": [{"where": skip.where, "op": skip.op, "reason": skip.reason} for skip in placement.skipped],
    }


def render(document: dict[str, Any]) -> list[str]:
    """Return the description for people, in lines."""
    lines = [
        f"{document['path']}  {format_bytes(document['size_bytes'])}  sha256 {document['sha256'][:12]}",
        f"  opset {', '.join(f'{name} {version}' for name, version in document['opset'].items())}, "
        f"IR {document['ir_version']}, made by {document['producer'] or 'unknown'}",
        *(f"  input  {value}" for value in document["inputs"]),
        *(f"  output {value}" for value in document["outputs"]),
        f"  {document['parameters']:,} parameters, {_macs(document['macs'])} MACs for one sample"
        + (f" (free axes: {document['free_axes']}; --shape NAME=SIZE)" if document["free_axes"] else ""),
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


def _layer(layer: Layer, known: macs.Sizes) -> dict[str, Any]:
    """Describe a node that holds a weight."""
    return {
        "name": layer.name,
        "op": layer.op,
        "shape": [int(size) for size in layer.weight.shape.numpy()],
        "dtype": layer.weight.dtype.name.lower(),
        "bytes": layer.weight.nbytes,
        "macs": macs.of(layer.node, known),
    }


def _value(value: ir.Value) -> str:
    dims = "?" if value.shape is None else "x".join(str(size) for size in value.shape)
    return f"{value.name}: {value.dtype.name.lower() if value.dtype is not None else '?'} {dims}"


def _macs(count: int | None) -> str:
    if count is None:
        return "?"
    return format_count(float(f"{count:.3g}"))
