"""What each operator does to channels: one small rule per kind of operator.

A rule reads the channel numbers on a node's inputs, ties together what the operator ties, and puts numbers on its
output. It never guesses: where it cannot prove what happens along an axis, that axis must stay whole, and the node and
the reason are kept. An operator without a rule stops every channel that reaches it.

==============================  ========================================================================================
Conv, ConvTranspose             input channels = the weight's input axis, output channels = its output axis = the bias;
                                with ``group`` > 1 see `weighted`
Gemm, MatMul                    the summed axes of both sides are tied; all others go on to the output, broadcasting
Add, Mul, Where, PRelu …        aligned from the right; positions that meet are tied; constants shrink along
BatchNorm, InstanceNorm         one scale and shift per channel
QuantizeLinear, Dequantize…     one scale and zero point for all, or one per channel
GroupNorm                       whole groups of channels only
LayerNorm, Softmax, Reduce*     average or sum over some axes: those must stay whole
LSTM, GRU, RNN                  a hidden unit lies in every gate, in the state and in what reads the state
Concat, Split, Slice, Pad       move numbers; padding adds channels of its own
Reshape, Flatten, Transpose …   move numbers, also where one axis becomes several (see `layout`)
Gather                          selects numbers; from a table (an embedding) it makes channels of the table's columns
==============================  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnxpress import graph
from onnxpress.pruning.coupling.arguments import is_used
from onnxpress.pruning.coupling.broadcasting import elementwise, same_axes
from onnxpress.pruning.coupling.moving import (
    concat,
    depth_to_space,
    expand,
    gather,
    pad,
    shape_of,
    slice_,
    source_of_sizes,
    split,
    transpose,
)
from onnxpress.pruning.coupling.normalizing import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    pool,
    quantization,
    reduce,
    resize,
    softmax,
)
from onnxpress.pruning.coupling.reshaping import reshape
from onnxpress.pruning.coupling.weighted import conv, gemm, matmul, recurrent
from onnxpress.pruning.layout import Layout, obstacle
from onnxpress.pruning.stored import OPERATORS
from onnxpress.pruning.weights import RECURRENT


def follow(model: ir.Model) -> Layout:
    """Run every node's rule over the main graph, in order, and return where its channels lie."""
    layout = Layout(model)
    walk(layout, model, RULES)
    return layout


def walk(layout: Layout, model: ir.Model, rules: Mapping[str, Rule]) -> None:
    """Run a rule for every node over the main graph, in order; channels that enter any other operator must stay."""
    for node in model.graph:
        rule = rules.get(graph.operator(node))
        if rule is None:
            layout.refuse(node, "this operator is not followed")
            if any(len(tensor.shape) > 1 for tensor in map(graph.constant_tensor, node.inputs) if tensor is not None):
                layout.skips.append(obstacle(node, "this operator is not followed, nor are its weights"))
        elif any(shape is None for shape in map(graph.shape, _given(node))):
            layout.refuse(node, "the rank of its inputs or outputs is not known")
        elif node.op_type not in SEVERAL_OUTPUTS and any(is_used(value) for value in node.outputs[1:]):
            layout.refuse(node, "its further outputs are used")
        else:
            if rule in FIRST_INPUT_ONLY:
                layout.refuse(node, "takes sizes, positions or limits from it", node.inputs[1:])
            rule(layout, node)
    layout.settle(model.graph)


def _given(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None] + [value for value in node.outputs if is_used(value)]


SEVERAL_OUTPUTS = ("Split", *RECURRENT)

# fmt: off
UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Dropout",
    "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log",
    "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)
ELEMENTWISE = (
    "Add", "And", "BitShift", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min",
    "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)
REDUCTIONS = (
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)
# fmt: on
Rule = Callable[[Layout, ir.Node], None]
RULES: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), layer_norm),
    "Resize": resize,
    "Upsample": resize,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Pad": pad,
    "Gather": gather,
    "Expand": expand,
    "Shape": shape_of,
    **dict.fromkeys(OPERATORS, quantization),
    **dict.fromkeys(RECURRENT, recurrent),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), depth_to_space),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), pool),
    **dict.fromkeys(REDUCTIONS, reduce),
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(UNARY, same_axes),
    **dict.fromkeys(("ConstantOfShape", "Range", "Constant"), source_of_sizes),
}
FIRST_INPUT_ONLY = (same_axes, reshape, slice_, pad, resize, expand, split, reduce)
