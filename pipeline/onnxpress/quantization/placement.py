"""Where int8 goes: which nodes run on integers, which tensors need a range, and why the rest stays float.

The rules follow what onnxruntime fuses on a CPU, measured on real models:

* A *weighted* node (Conv, Gemm, MatMul with a constant weight) runs int8 when its input is quantized. Conv needs a
  quantized output as well; Gemm and MatMul have kernels that return float, which loses less, unless a Relu or Clip
  with further readers follows: then onnxruntime fuses them only together with a quantized output.
* Relu and Clip directly behind a weighted node or an Add are absorbed: the range is taken *after* them. A range before
  the activation costs 5 to 15 dB and breaks the fusion.
* *Pointwise* nodes (Add, Mul, Concat, pooling, …) have int8 kernels; *through* nodes (Reshape, MaxPool, …) move int8
  values unchanged and inherit their input's range. Both join only where all their inputs are int8 already and somebody
  behind them wants int8: an island of its own would convert back and forth for nothing, the constant of an attention
  mask (-10000) never gets to set a range, and a last pooling before the output keeps scores from becoming ties.
* What only a Concat reads takes the range of the Concat's output: its values are rounded once instead of twice, and the
  kernel copies bytes instead of looking each up in a table (a third of its time on SqueezeNet).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from onnxpress import graph
from onnxpress.artifact import Skip
from onnxpress.quantization.layers import candidates

POINTWISE = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"})
THROUGH = frozenset(
    {
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "MaxPool",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""What onnxruntime moves as integers (its QDQ transformer's list; Pad, Identity and DepthToSpace are not on it)."""
BRIDGES = frozenset({"Pad"})
"""What moves values, but only as float: not worth more than a conversion each way between two int8 kernels."""
ABSORBS = frozenset({"Add", "Conv", "Gemm", "MatMul"})
"""What takes a Relu or Clip behind it into its int8 kernel."""
SAME_VALUES = frozenset({"Expand", "Flatten", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"})
"""What keeps every value and so the range, whether it runs on integers or not."""
NO_KERNEL = frozenset({"ConvTranspose", "DeformConv", "GRU", "RNN"})
"""Weighted operators for which onnxruntime has no int8 kernel on the CPU."""
PRELU_PRODUCTS = 64
"""Products per output value from which an int8 Conv is faster than float although its result returns to float."""
FLOATS = (ir.DataType.BFLOAT16, ir.DataType.DOUBLE, ir.DataType.FLOAT, ir.DataType.FLOAT16)
MIN_TABLE = 1024
"""Elements: smaller tables are position indices and the like, with nothing to win."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The decision for one model."""

    weighted: tuple[ir.Node, ...]
    others: tuple[ir.Node, ...]
    """Pointwise and through nodes that run on integers, in topological order."""
    quantized: dict[ir.Value, ir.Value]
    """Each quantized activation, and the tensor whose range it takes (itself, or what it inherits from)."""
    tables: tuple[ir.Node, ...]
    """Gather nodes whose float table is stored as integers."""
    skipped: tuple[Skip, ...]

    @property
    def measured(self) -> tuple[ir.Value, ...]:
        """The tensors whose statistics are needed, each once."""
        return tuple(dict.fromkeys(self.quantized.values()))

    @property
    def candidates(self) -> tuple[ir.Value, ...]:
        """The tensors whose statistics any placement needs that selects some of these nodes: `measured` and more.

        Where a node in the middle stays float, what is behind it no longer inherits the range of what is before it.
        """
        return tuple(dict.fromkeys([*self.quantized.values(), *map(measured_at, self.quantized)]))


def place(model: ir.Model, selects: Callable[[str], bool], *, prelu_products: int = PRELU_PRODUCTS) -> Placement:
    """Decide where int8 goes in the main graph of a prepared model.

    Args:
        model: A prepared model with shapes, after `gemms`; it is only read.
        selects: Tells from a node's name whether it may become static int8.
        prelu_products: A Conv with fewer products per output value stays float before a PRelu.
    """
    skipped: list[Skip] = []
    weighted = []
    for node in graph.nodes(model):
        reason = refusal(node, selects)
        if reason is None and node.graph is not model.graph:
            reason = "inside a subgraph (If, Loop or Scan), where activations are not measured; mode dynamic reaches it"
        if reason is None and _returns_to_float(node, prelu_products):
            reason = "a PRelu follows, which has no int8 kernel: converting back takes longer than int8 saves here"
        if reason is None:
            weighted.append(node)
        elif reason:
            skipped.append(Skip(where=node.name or "", op=node.op_type, reason=reason))
    chosen = set(weighted)
    available = {activation for node in weighted for activation in _activations(node)}
    available.update(activated(node.outputs[0]) for node in weighted if node.op_type == "Conv")
    joined = [node for node in model.graph if selects(node.name or "") and _joins(node, available)]
    wanted = {activation for node in weighted for activation in _activations(node)}
    others = []
    for node in reversed(joined):
        outputs = {activated(output) for output in node.outputs}
        if wanted & outputs:
            wanted.update(_activations(node))
            if node.op_type not in BRIDGES:
                others.append(node)
    others.reverse()
    chosen.update(others)

    quantized: dict[ir.Value, ir.Value] = {}
    for node in model.graph:
        if node not in chosen:
            continue
        for value in _activations(node):
            quantized.setdefault(value, measured_at(value))
        for output in node.outputs:
            after = activated(output)
            if output.dtype == ir.DataType.INT64:  # where a MaxPool found its values
                continue
            if node.op_type in THROUGH:
                quantized[after] = quantized[_activations(node)[0]]
            elif node.op_type == "Conv" or node.op_type in POINTWISE or (after is not output and after.uses()):
                quantized.setdefault(after, measured_at(after))
    for node in reversed(others):
        if node.op_type == "Concat":
            _share(node, quantized)
    return Placement(
        weighted=tuple(weighted),
        others=tuple(others),
        quantized=quantized,
        tables=tuple(tables(model, selects)),
        skipped=tuple(skipped),
    )


def refusal(node: ir.Node, selects: Callable[[str], bool]) -> str | None:
    """Return why a node that carries weights stays float; None when it can run int8, "" when it carries none."""
    if node.op_type in NO_KERNEL and node.domain in graph.ONNX_DOMAINS:
        return "onnxruntime has no int8 kernel for it on the CPU"
    if node.op_type == "LSTM" and node.domain in graph.ONNX_DOMAINS:
        return "static ranges do not fit a recurrence; mode dynamic quantizes it"
    facts = graph.weighted(node)
    if facts is None:
        return no_product(node)
    weight = node.inputs[facts.weight]
    tensor = graph.constant_tensor(weight)
    if tensor is None and graph.constant_tensor(node.inputs[0]) is not None and node.op_type in ("Gemm", "MatMul"):
        return "its weight is the left operand, and no matrix that could go to the right"
    if tensor is None:
        return "" if node.op_type == "MatMul" or _dequantized(weight) else "its weight is computed at run time"
    if not selects(node.name or ""):
        return "excluded by include/exclude"
    if tensor.dtype != ir.DataType.FLOAT:
        return f"its weight is {tensor.dtype.name.lower()}, not float32"
    if graph.constant_tensor(node.inputs[0]) is not None:
        return "its input is constant"
    if tensor.size == 0 or len(tensor.shape) < 2:
        return f"its weight has the shape {list(tensor.shape)}"
    if node.op_type == "MatMul" and len(tensor.shape) != 2:
        return f"its weight has {len(tensor.shape)} axes; the int8 kernel takes 2"
    if node.op_type == "Gemm" and not plain_gemm(node):
        return "alpha, beta or transA differ from the int8 kernel's"
    bias = node.inputs[facts.bias] if facts.bias is not None and len(node.inputs) > facts.bias else None
    if bias is not None:
        constant = graph.constant_tensor(bias)
        if constant is None:
            return "its bias is computed at run time"
        if len(constant.shape) != 1:
            return f"its bias has the shape {list(constant.shape)}; the int8 kernel takes one value per channel"
    return None


def no_product(node: ir.Node) -> str:
    """Return why a node stays float that multiplies by a constant in another way; "" for one that does not."""
    tensors = [graph.constant_tensor(value) for value in candidates(node)]
    if not any(tensor is not None and tensor.dtype in FLOATS for tensor in tensors):
        return ""
    if node.domain == graph.MICROSOFT:
        return "onnxruntime's optimizer has fused it: quantize the model as it was before"
    if node.op_type == "Einsum":
        return f"equation {node.attributes.get_string('equation')} is no product with one matrix, as the int8 kernel is"
    return "no int8 kernel multiplies like it"


def _returns_to_float(node: ir.Node, least: int) -> bool:
    """Tell whether a small Conv feeds nothing but a PRelu (benchmarks/quantization/convolutions.py)."""
    readers = graph.consumers(node.outputs[0])
    weight = graph.shape(node.inputs[1]) if node.op_type == "Conv" else None
    if weight is None or not readers or any(reader.op_type != "PRelu" for reader in readers):
        return False
    return math.prod(size or 1 for size in weight[1:]) < least


def tables(model: ir.Model, selects: Callable[[str], bool]) -> list[ir.Node]:
    """Return the Gather nodes, in bodies of If and Loop too, that look rows up in a float table worth quantizing."""
    found = []
    for node in graph.nodes(model):
        if node.op_type != "Gather" or node.domain not in graph.ONNX_DOMAINS or not selects(node.name or ""):
            continue
        tensor = graph.constant_tensor(node.inputs[0])
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2 or tensor.size < MIN_TABLE:
            continue
        if graph.attribute_int(node, "axis", 0) == 0:
            found.append(node)
    return found


def _share(concat: ir.Node, quantized: dict[ir.Value, ir.Value]) -> None:
    """Give what only this Concat reads, directly or through data movement, the range of the Concat's output.

    A Relu is absorbed only where the zero point is the least integer, so it shares with values of which none is
    negative; a Clip has bounds of its own and keeps its range.
    """
    shared = quantized[concat.outputs[0]]
    inputs = _activations(concat)
    non_negative = all(map(_non_negative, inputs))
    for value in inputs:
        chain = [value]
        while (source := _moved(chain[-1])) is not None and source in quantized:
            chain.append(source)
        alone = all(len(graph.consumers(each)) == 1 and not each.is_graph_output() for each in chain)
        producer = chain[-1].producer()
        kind = "" if producer is None else producer.op_type
        if alone and kind != "Clip" and (non_negative or kind != "Relu"):
            quantized.update(dict.fromkeys(chain, shared))


def _moved(value: ir.Value) -> ir.Value | None:
    """Return what a value is moved from by a through node, or None."""
    producer = value.producer()
    if producer is None or producer.op_type not in THROUGH or producer.domain not in graph.ONNX_DOMAINS:
        return None
    return producer.inputs[0]


def _non_negative(value: ir.Value) -> bool:
    """Tell whether a value is a Relu's, perhaps moved or joined since."""
    producer = value.producer()
    if producer is None or producer.domain not in graph.ONNX_DOMAINS:
        return False
    if producer.op_type in THROUGH | {"AveragePool", "GlobalAveragePool"}:
        return producer.inputs[0] is not None and _non_negative(producer.inputs[0])
    if producer.op_type == "Concat":
        return all(source is not None and _non_negative(source) for source in producer.inputs)
    return producer.op_type in ("Relu", "Sigmoid")


def measured_at(value: ir.Value) -> ir.Value:
    """Return the tensor that a value only rearranges, or the value itself."""
    producer = value.producer()
    while producer is not None and producer.op_type in SAME_VALUES and producer.domain in graph.ONNX_DOMAINS:
        source = producer.inputs[0]
        if source is None or graph.constant_tensor(source) is not None:
            break
        value, producer = source, source.producer()
    return value


def activated(value: ir.Value) -> ir.Value:
    """Return the tensor behind the Relu or Clip that alone reads this one, else the tensor itself."""
    uses = graph.consumers(value)
    producer = value.producer()
    if value.is_graph_output() or len(uses) != 1 or producer is None or producer.op_type not in ABSORBS:
        return value
    follower = uses[0]
    if follower.op_type == "Relu" or (follower.op_type == "Clip" and _constant_bounds(follower)):
        return follower.outputs[0]
    return value


def _dequantized(value: ir.Value | None) -> bool:
    """Tell whether a weight is stored as integers already."""
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _joins(node: ir.Node, available: set[ir.Value]) -> bool:
    """Tell whether a node can take int8 as it comes; if so its outputs become available, too."""
    if node.domain not in graph.ONNX_DOMAINS or node.op_type not in POINTWISE | THROUGH | BRIDGES:
        return False
    if node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") != "nearest":
        return False
    activations = _activations(node)
    if not activations or any(value not in available for value in activations):
        return False
    if node.op_type in ("Add", "Mul") and len(activations) < 2:
        return False
    available.update(activated(output) for output in node.outputs)
    return True


def _activations(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of an int8 node that are computed data: not its weights, shapes, indices or axes."""
    values = node.inputs if node.op_type in ("Add", "Mul", "Concat") else node.inputs[:1]
    return [value for value in values if value is not None and graph.constant_tensor(value) is None]


def plain_gemm(node: ir.Node) -> bool:
    """Tell whether a Gemm computes ``x · W + b`` and nothing more."""
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    return alpha == 1 and beta == 1 and not graph.attribute_int(node, "transA", 0)


def _constant_bounds(node: ir.Node) -> bool:
    return all(value is None or graph.constant_tensor(value) is not None for value in node.inputs[1:])


def gemms(model: ir.Model) -> None:
    """Turn each MatMul on 2 axes and the bias added to it into one Gemm, in place.

    onnxruntime does the same to a float graph, and before it fuses int8: the pair would come apart and stay float.
    """
    for node in list(model.graph):
        add = _bias_add(node)
        if add is None:
            continue
        bias = next(value for value in add.inputs if value is not node.outputs[0])
        gemm = ir.node(
            "Gemm", [*node.inputs, bias], {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}, name=node.name
        )
        result, old = gemm.outputs[0], add.outputs[0]
        result.shape, result.type = old.shape, old.type
        model.graph.insert_before(add, gemm)
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        result.name, old.name = old.name, None
        model.graph.remove([add, node], safe=True)


def _bias_add(node: ir.Node) -> ir.Node | None:
    """Return the Add behind a two-axis MatMul with a constant weight that adds one constant per column, if any."""
    if node.op_type != "MatMul" or node.domain not in graph.ONNX_DOMAINS:
        return None
    weight, dims = graph.constant_tensor(node.inputs[1]), graph.shape(node.inputs[0])
    added = graph.added_to(node.outputs[0])
    if weight is None or dims is None or len(dims) != 2 or len(weight.shape) != 2 or added is None:
        return None
    add, bias = added[0], graph.constant_tensor(added[1])
    return add if bias is not None and list(bias.shape) == [weight.shape[1]] else None


def remove_unused(model: ir.Model) -> None:
    """Drop the float weights (and whatever else) that nothing reads any more."""
    common.RemoveUnusedNodesPass()(model)
