"""Compute at preparation what is the same in every run.

A node is folded when all of its inputs are constants and its result is not much larger than they are; so is the size of
an axis that is fixed, asked for at run time by Shape, Size, or a Gather or Slice behind a Shape. What stays: random
operators, those that take long to compute here, control flow, operators of other domains, and DequantizeLinear, whose
float result is what quantization had got rid of.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress import graph, watch
from onnxpress.export.passes.rewiring import NONDETERMINISTIC, initializer, named, remove
from onnxpress.export.protos import INLINE_BYTES

LIMIT_BYTES = 1_000_000
"""A result may be so much larger than what it is computed from."""
LAZY_BYTES = 64_000_000
"""Larger results of operators that only move data are computed when they are read, and not kept in memory."""
MOVING = frozenset({"Cast", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
BOUNDED = frozenset({"Compress", "NonZero", "Unique"})
"""Their result's shape depends on values, but it is never much larger than the input."""
SLOW = frozenset(
    {
        *(
            "Attention",
            "Col2Im",
            "Conv",
            "ConvInteger",
            "ConvTranspose",
            "DFT",
            "DeformConv",
            "GridSample",
            "GRU",
            "LSTM",
        ),
        *("ImageDecoder", "MaxRoiPool", "MaxUnpool", "NonMaxSuppression", "QLinearConv", "RNN", "RegexFullMatch"),
        *("Resize", "RoiAlign", "STFT", "Upsample", "AveragePool", "LpPool", "MaxPool"),
    }
)
"""The evaluator computes these value by value, for hours if an attribute says so; onnxruntime folds them, too."""
KEPT = NONDETERMINISTIC | SLOW | {"Constant", "DequantizeLinear", "QuantizeLinear"}

_log = logging.getLogger(__name__)


def fold_constants(model: ir.Model) -> list[str]:
    """Replace nodes whose result is known by initializers of the main graph."""
    changed = []
    for node in list(model.graph.all_nodes()):
        if node.domain not in graph.ONNX_DOMAINS or node.op_type in KEPT or graph.subgraphs(node):
            continue
        if any(output.is_graph_output() for output in node.outputs):
            continue
        results = _axis_sizes(node) or _computed(node, model.opset_imports)
        if results is None:
            continue
        for output, tensor in zip(node.outputs, results, strict=True):
            if output.uses():
                name, output.name = output.name or "", None
                output.replace_all_uses_with(initializer(model.graph, name, tensor))
        remove(node)
        changed.append(node.name or "")
    return changed


def _axis_sizes(node: ir.Node) -> list[ir.TensorProtocol] | None:
    """Return the value of Shape or Size, or of Gather or Slice behind a Shape, where the axes asked for are fixed."""
    sizes = _asked_for(node)
    if sizes is None or any(size is None for size in sizes.flat):
        return None
    array = sizes.astype(np.int64)
    return [ir.tensor(array.prod() if node.op_type == "Size" else array)]


def _asked_for(node: ir.Node) -> graph.Array | None:
    """Return the sizes that a node asks for, with None for those that are not fixed; None for any other node."""
    if node.op_type in ("Shape", "Size"):
        return _shape(node)
    if node.op_type not in ("Gather", "Slice") or node.inputs[0] is None:
        return None
    producer = node.inputs[0].producer()
    dims = _shape(producer) if producer is not None and producer.op_type == "Shape" else None
    operands = [graph.constant(value) for value in node.inputs[1:]]
    if dims is None or any(operand is None for operand in operands):
        return None
    if node.op_type == "Gather":
        index = operands[0]
        fits = index is not None and ((index >= -dims.size) & (index < dims.size)).all()
        return np.asarray(dims[index], dtype=object) if fits else None
    start, end = (int(operand.item()) for operand in operands[:2] if operand is not None)
    step = int(operands[3].item()) if len(operands) > 3 and operands[3] is not None else 1
    return dims[start:end:step] if step > 0 else None


def _shape(node: ir.Node) -> graph.Array | None:
    """Return what a Shape node returns, with None for what is not known; for a Size node, what it multiplies."""
    dims = graph.shape(node.inputs[0])
    if dims is None:
        return None
    asked = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", len(dims)))
    return np.array(dims[asked], dtype=object)


def _computed(node: ir.Node, opsets: Mapping[str, int]) -> list[ir.TensorProtocol] | None:
    """Return the results of a node whose inputs are all constant; None where they are not, or are too large."""
    tensors = [graph.constant_tensor(value) for value in node.inputs]
    if any(tensor is None and value is not None for value, tensor in zip(node.inputs, tensors, strict=True)):
        return None
    single = _alone(node, tensors, opsets)
    # One that is given twice counts once: else a chain of Concat(a, a) doubles without end.
    given_bytes = sum({id(tensor): tensor.nbytes for tensor in tensors if tensor is not None}.values())
    outputs = _inferred(single)
    if outputs is None:
        return None
    sizes = [_nbytes(dtype, shape) for dtype, shape in outputs]
    if any(size is None for size in sizes):
        if node.op_type not in BOUNDED or given_bytes > LIMIT_BYTES:
            return None
    elif sum(size or 0 for size in sizes) > given_bytes + LIMIT_BYTES:
        return None

    def evaluate() -> list[ir.TensorProtocol]:
        from onnx.reference import ReferenceEvaluator  # 20 MB of code: only for models that have something to fold

        feeds = {f"in{index}": tensor.numpy() for index, tensor in enumerate(tensors) if tensor is not None}
        what = f"computing the constant node {node.name!r} ({node.op_type})"
        with np.errstate(all="ignore"), watch.native(what, given_bytes):
            arrays = ReferenceEvaluator(single).run(None, feeds)
        return [ir.tensor(np.asarray(array)) for array in arrays]

    dtype, shape = outputs[0]
    if node.op_type in MOVING and shape is not None and (sizes[0] or 0) > LAZY_BYTES:
        return [ir.LazyTensor(lambda: evaluate()[0], dtype=dtype, shape=ir.Shape(shape))]
    try:
        results = evaluate()
    except Exception as error:  # the evaluator is Python code for each operator, and raises whatever that raises
        _log.info("node %s (%s) is constant, but cannot be computed: %s", node.name, node.op_type, error)
        return None
    return results if [result.dtype for result in results] == [dtype for dtype, _ in outputs] else None


def _alone(node: ir.Node, tensors: Sequence[ir.TensorProtocol | None], opsets: Mapping[str, int]) -> onnx.ModelProto:
    """Return a model of this node only; small inputs are initializers, because shapes follow from their values."""
    inputs = [
        None if tensor is None else ir.val(f"in{index}", dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()))
        for index, tensor in enumerate(tensors)
    ]
    copy = ir.Node("", node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
    for index, output in enumerate(copy.outputs):
        output.name = f"out{index}"
    alone = ir.Graph([value for value in inputs if value], copy.outputs, nodes=[copy], opset_imports=dict(opsets))
    for value, tensor in zip(inputs, tensors, strict=True):
        if value is not None and tensor is not None and tensor.nbytes <= INLINE_BYTES:
            value.const_value = named(tensor, value.name or "")
            alone.register_initializer(value)
    return ir.to_proto(ir.Model(alone, ir_version=10))


def _inferred(single: onnx.ModelProto) -> list[tuple[ir.DataType, list[int] | None]] | None:
    """Return dtype and shape (None where it depends on values) of each output; None where not even that is known."""
    try:
        inferred = onnx.shape_inference.infer_shapes(single, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return None
    outputs = []
    for value in inferred.graph.output:
        described = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in described.shape.dim]
        if not described.elem_type:
            return None
        shape = [size for size in dims if size is not None]
        known = described.HasField("shape") and len(shape) == len(dims)
        outputs.append((ir.DataType(described.elem_type), shape if known else None))
    return outputs


def _nbytes(dtype: ir.DataType, shape: list[int] | None) -> int | None:
    if shape is None:
        return None
    return math.ceil(math.prod(shape) * (8 if dtype == ir.DataType.STRING else dtype.itemsize))
