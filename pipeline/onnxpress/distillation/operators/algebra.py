"""Products, normalizations and reductions."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxpress.distillation.operators.facts import (
    Function,
    Make,
    Unsupported,
    integers,
    number,
    only_first_output,
    plain,
)


def _gemm(node: ir.Node) -> Function:
    alpha, beta = number(node, "alpha", 1.0), number(node, "beta", 1.0)
    turn_a, turn_b = bool(node.attributes.get_int("transA", 0)), bool(node.attributes.get_int("transB", 0))

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.T if turn_a else a, b.T if turn_b else b
        if c is None:
            return alpha * (a @ b)
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return run


def _einsum(node: ir.Node) -> Function:
    equation = node.attributes.get_string("equation")
    return lambda *terms: torch.einsum(equation, *terms)


def _softmax(log: bool) -> Make:
    def make(node: ir.Node) -> Function:
        axis, function = node.attributes.get_int("axis", -1), F.log_softmax if log else F.softmax
        return lambda x: function(x, dim=axis)

    return make


def _batch_norm(node: ir.Node) -> Function:
    only_first_output(node)
    if node.attributes.get_int("training_mode", 0):
        raise Unsupported("is in training mode")
    epsilon = number(node, "epsilon", 1e-5)
    return lambda x, scale, bias, mean, variance: F.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


def _instance_norm(node: ir.Node) -> Function:
    epsilon = number(node, "epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _layer_norm(node: ir.Node) -> Function:
    only_first_output(node)
    axis, epsilon = node.attributes.get_int("axis", -1), number(node, "epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = x.shape[axis:]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            return F.layer_norm(x, shape, scale, bias, epsilon)
        normal = F.layer_norm(x, shape, eps=epsilon) * scale
        return normal if bias is None else normal + bias

    return run


def _rms_norm(node: ir.Node) -> Function:
    only_first_output(node)
    axis, epsilon = node.attributes.get_int("axis", -1), number(node, "epsilon", 1e-5)
    return lambda x, scale: F.rms_norm(x, x.shape[axis:], eps=epsilon) * scale


def _group_norm(node: ir.Node) -> Function:
    groups, epsilon = node.attributes.get_int("num_groups"), number(node, "epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        each = x.shape[1] // len(scale)  # opset 18 has a scale per group, opset 21 one per channel
        return F.group_norm(x, groups, scale.repeat_interleave(each), bias.repeat_interleave(each), epsilon)

    return run


def _lrn(node: ir.Node) -> Function:
    size = node.attributes.get_int("size")
    alpha, beta, bias = number(node, "alpha", 1e-4), number(node, "beta", 0.75), number(node, "bias", 1.0)
    if size % 2 == 0:
        raise Unsupported("has an even size")
    return lambda x: F.local_response_norm(x, size, alpha, beta, bias)


def _lp_normalization(node: ir.Node) -> Function:
    axis, power = node.attributes.get_int("axis", -1), node.attributes.get_int("p", 2)
    return lambda x: F.normalize(x, p=float(power), dim=axis)


def _reduction(reduce: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Make:
    """Return the maker of a reduction; its axes are an attribute (before opset 18), or an input."""

    def make(node: ir.Node) -> Function:
        keep, given = bool(node.attributes.get_int("keepdims", 1)), node.attributes.get_ints("axes")
        idle = bool(node.attributes.get_int("noop_with_empty_axes", 0))

        def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
            chosen = tuple(given or ()) if axes is None else tuple(integers(axes))
            if not chosen and idle:
                return x
            return reduce(x, chosen or tuple(range(x.ndim)), keep)

        return run

    return make


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(dim=axis, keepdim=keep)
    return x


def _arg(largest: bool) -> Make:
    def make(node: ir.Node) -> Function:
        axis, keep = node.attributes.get_int("axis", 0), bool(node.attributes.get_int("keepdims", 1))
        if node.attributes.get_int("select_last_index", 0):
            raise Unsupported("takes the last index of several")
        return lambda x: (x.argmax if largest else x.argmin)(dim=axis, keepdim=keep)

    return make


def _top_k(node: ir.Node) -> Function:
    axis, largest = node.attributes.get_int("axis", -1), bool(node.attributes.get_int("largest", 1))

    def run(x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        best = torch.topk(x, integers(k)[0], dim=axis, largest=largest, sorted=True)
        return best.values, best.indices

    return run


def _cumulative_sum(node: ir.Node) -> Function:
    exclusive, reverse = (bool(node.attributes.get_int(name, 0)) for name in ("exclusive", "reverse"))

    def run(x: Tensor, axis: Tensor) -> Tensor:
        at = integers(axis)[0]
        turned = x.flip(at) if reverse else x
        total = turned.cumsum(at) - (turned if exclusive else 0)
        return total.flip(at) if reverse else total

    return run


OPERATORS: dict[str, Make] = {
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
    "BatchNormalization": _batch_norm,
    "CumSum": _cumulative_sum,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax(log=True),
    "LpNormalization": _lp_normalization,
    "MatMul": plain(torch.matmul),
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: x.logsumexp(axes, keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "SimplifiedLayerNormalization": _rms_norm,
    "Softmax": _softmax(log=False),
    "TopK": _top_k,
}
