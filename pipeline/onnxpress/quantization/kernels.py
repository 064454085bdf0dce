"""Proof in the runtime: what a *loaded* onnxruntime session executes, kernel by kernel.

Counting inserted QuantizeLinear nodes says what was asked for. This reads back the graph after all of onnxruntime's
optimizations and says what runs: which nodes became int8 kernels, which stayed float, and how many bytes of float
weights are left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxpress import artifact, graph
from onnxpress.artifact import Skip
from onnxpress.session import SessionOptions, optimized_graph

INT8 = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
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
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "GRU",
        "Gemm",
        "LSTM",
        "MatMul",
        "RNN",
    }
)
"""Float operators that do the multiplying; where one is left, there was something to win."""
CONVERSIONS = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


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


def kernels(path: Path, skipped: Iterable[Skip] = (), options: SessionOptions | None = None) -> Kernels:
    """Load a model and report the kernels that its session runs.

    Args:
        path: The model file.
        skipped: What the quantize step left alone, for the reasons.
        options: Provider and threads; the optimization level stays "all".

    Raises:
        ModelError: onnxruntime cannot load the model.
    """
    running = list(graph.nodes(optimized_graph(path, options)))
    reasons = {word: skip.reason for skip in skipped for word in (skip.op, skip.where)}
    stayed = [
        Skip(where=node.name or "", op=node.op_type, reason=_reason(node, reasons))
        for node in running
        if node.op_type in HEAVY
    ]
    int8 = sum(node.op_type in INT8 or _on_integers(node) for node in running)
    conversions = sum(node.op_type in CONVERSIONS for node in running)
    floats = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    return Kernels(
        int8=int8,
        float=len(stayed),
        conversions=conversions,
        other=len(running) - int8 - len(stayed) - conversions,
        stayed_float=tuple(stayed),
        float_bytes=sum(tensor.nbytes for tensor in artifact.tensors(artifact.load(path)) if tensor.dtype in floats),
    )


def _reason(node: ir.Node, reasons: dict[str, str]) -> str:
    """Return why a node stayed float: by its name, or by its operator where the optimizer dropped the name."""
    operator = node.op_type.removeprefix("Fused")
    if node.name in reasons:
        return reasons[node.name]
    if operator == "MatMul" and all(graph.constant_tensor(value) is None for value in node.inputs):
        return "both operands are computed (attention scores); they stay float for accuracy"
    return reasons.get(operator, "onnxruntime did not fuse it to an int8 kernel" if reasons else "not quantized")


def _on_integers(node: ir.Node) -> bool:
    """Tell whether a data-moving node moves 8-bit values."""
    value = node.inputs[0] if node.inputs else None
    moves = node.op_type in ("MaxPool", "NhwcMaxPool", "Gather", "Resize")
    return moves and value is not None and value.dtype in (ir.DataType.UINT8, ir.DataType.INT8)
