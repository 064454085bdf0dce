"""Proof in the runtime: what a *loaded* onnxruntime session executes, kernel by kernel.

Counting inserted QuantizeLinear nodes says what was asked for. This reads back the graph after all of onnxruntime's
optimizations and says what runs: which layers became int8 kernels, which stayed float and why, on which provider, and
how many bytes of float weights are left. onnxruntime renames and drops nodes when it fuses; a layer is found again by
what it reads and writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from onnxpress import artifact, graph
from onnxpress.artifact import Skip
from onnxpress.errors import ModelError, UsageError
from onnxpress.quantization.layers import FOURTH, INTEGERS, Layer, layers
from onnxpress.scratch import temporary
from onnxpress.session import SessionOptions, loaded

INT8 = frozenset(
    {
        *INTEGERS,
        *FOURTH,
        "QEmbedLayerNormalization",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
    }
)
HEAVY = frozenset(
    {
        "Attention",
        "Conv",
        "ConvTranspose",
        "DeformConv",
        "Einsum",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "GRU",
        "Gemm",
        "LSTM",
        "MatMul",
        "MultiHeadAttention",
        "NhwcFusedConv",
        "RNN",
    }
)
"""Float operators that do the multiplying; where one is left, there was something to win."""
MULTIPLYING = HEAVY | frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
"""What can be the kernel of a layer."""
CONVERSIONS = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


COPIES = frozenset({"MemcpyFromHost", "MemcpyToHost"})


NOT_FUSED = "onnxruntime did not fuse it to an int8 kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKernel:
    """How one layer of the file runs."""

    name: str
    op: str
    int8: bool
    reason: str
    """Why it stayed float; empty when it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What runs."""

    int8: int
    """Nodes that compute on integers."""
    float: int
    """Multiplying nodes that compute on floats (`HEAVY`)."""
    conversions: int
    """Nodes that only convert between the two."""
    other: int
    stayed_float: tuple[Skip, ...]
    float_bytes: int
    """Bytes of float weights in the file."""
    layers: tuple[LayerKernel, ...] = ()
    """Every layer of the file: what holds a weight and multiplies."""
    copies: int = 0
    """Nodes that copy tensors between host and device."""
    providers: Mapping[str, int] = field(default_factory=dict)
    """Nodes by the execution provider that runs them; empty where onnxruntime cannot tell (before 1.24)."""


def kernels(path: Path, skipped: Iterable[Skip] = (), options: SessionOptions | None = None) -> Kernels:
    """Load a model and report the kernels that its session runs.

    Args:
        path: The model file.
        skipped: What the quantize step left alone, for the reasons.
        options: Provider and threads; the optimization level stays "all".

    Raises:
        ModelError: onnxruntime cannot load the model.
    """
    file = artifact.load(path)
    optimized, providers = loaded(path, options)
    running = list(graph.nodes(optimized))
    reasons = {word: skip.reason for skip in skipped for word in (skip.op, skip.where)}
    by_name = {node.name: node for node in running if node.name}
    by_output = {value.name: _before_reordering(node) for node in running for value in node.outputs}
    by_weight = {value.name: node for node in running for value in node.inputs if value is not None}
    found, ran = [], {}
    for layer in layers(file):
        node = _runs(layer, by_name, by_output, by_weight)
        int8 = node is not None and node.op_type in INT8
        reason = "" if int8 else _reason(layer, reasons)
        found.append(LayerKernel(name=layer.name, op=layer.op, int8=int8, reason=reason))
        if node is not None:
            ran[node] = layer
    heavy = [node for node in running if node.op_type in HEAVY]
    int8_nodes = sum(node.op_type in INT8 or _on_integers(node) for node in running)
    conversions = sum(node.op_type in CONVERSIONS for node in running)
    floats = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    return Kernels(
        int8=int8_nodes,
        float=len(heavy),
        conversions=conversions,
        other=len(running) - int8_nodes - len(heavy) - conversions,
        stayed_float=tuple(_stayed(node, ran.get(node), reasons) for node in heavy),
        float_bytes=sum(tensor.nbytes for tensor in artifact.tensors(file) if tensor.dtype in floats),
        layers=tuple(found),
        copies=sum(node.op_type in COPIES for node in running),
        providers=providers,
    )


def require(
    model: Path | ir.Model, pattern: str, skipped: Iterable[Skip] = (), options: SessionOptions | None = None
) -> None:
    """Make sure that every layer whose name matches runs as an int8 kernel.

    Args:
        model: A quantized model.
        pattern: Regular expression, searched in the names of layers.
        skipped: What the quantize step left alone, for the reasons.
        options: Where it is to run.

    Raises:
        UsageError: the expression is none, or matches no layer.
        ModelError: a layer runs as float; the message names the layers, and why.
    """
    if isinstance(model, ir.Model):
        with temporary() as folder:
            require(artifact.save(model, folder / "model.onnx").path, pattern, skipped, options)
        return
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--require-int8 {pattern!r}: no regular expression ({error}).") from error
    running = kernels(model, skipped, options).layers
    asked = [layer for layer in running if expression.search(layer.name)]
    if not asked:
        names = ", ".join(layer.name for layer in running[:8]) or "none"
        raise UsageError(f"--require-int8 {pattern!r}: matches none of the {len(running)} layers ({names}, …).")
    stayed = [layer for layer in asked if not layer.int8]
    if stayed:
        reasons = "; ".join(f"{layer.op} {layer.name}: {layer.reason}" for layer in stayed[:8])
        more = f"; and {len(stayed) - 8} more" if len(stayed) > 8 else ""
        raise ModelError(
            f"--require-int8 {pattern!r}: {len(stayed)} of {len(asked)} layers run as float: {reasons}{more}."
        )


def _runs(
    layer: Layer,
    by_name: Mapping[str, ir.Node],
    by_output: Mapping[str | None, ir.Node],
    by_weight: Mapping[str | None, ir.Node],
) -> ir.Node | None:
    """Return the multiplying node that runs a layer, if it can be told."""
    candidates = [by_output.get(name) for name in layer.results]
    candidates += [by_name.get(layer.name), *(by_weight.get(name) for name in layer.weights)]
    return next((node for node in candidates if node is not None and node.op_type in MULTIPLYING), None)


def _before_reordering(node: ir.Node) -> ir.Node:
    """Return the node whose result one brings back to the order of channels that ONNX has, else the node itself."""
    source = node.inputs[0].producer() if node.op_type == "ReorderOutput" and node.inputs[0] is not None else None
    return node if source is None else source


def _stayed(node: ir.Node, layer: Layer | None, reasons: Mapping[str, str]) -> Skip:
    if layer is not None:
        return Skip(where=layer.name, op=node.op_type, reason=_reason(layer, reasons))
    operator = node.op_type.removeprefix("Fused")
    if operator in ("Einsum", "MatMul") and all(graph.constant_tensor(value) is None for value in node.inputs):
        reason = "both operands are computed (attention scores); they stay float for accuracy"
    else:
        reason = reasons.get(node.name or "", reasons.get(operator, NOT_FUSED if reasons else "not quantized"))
    return Skip(where=node.name or "", op=node.op_type, reason=reason)


def _reason(layer: Layer, reasons: Mapping[str, str]) -> str:
    """Return why a layer runs as float."""
    if layer.name in reasons:
        return reasons[layer.name]
    if layer.stored == "unfolded":
        return "weight-only: its integers become float when the model is loaded"
    if layer.stored == "integers":
        return NOT_FUSED
    return reasons.get(layer.op, "not quantized")


def _on_integers(node: ir.Node) -> bool:
    """Tell whether a data-moving node moves 8-bit values."""
    value = node.inputs[0] if node.inputs else None
    moves = node.op_type in ("MaxPool", "NhwcMaxPool", "Gather", "Resize")
    return moves and value is not None and value.dtype in (ir.DataType.UINT8, ir.DataType.INT8)
