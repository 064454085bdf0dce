"""Element-wise operators: activations, arithmetic, comparisons, casts."""

from __future__ import annotations

import functools

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxpress.distillation.operators.facts import Function, Make, Unsupported, number, plain

DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _pow(base: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(base, exponent).to(base.dtype)


def _mod(node: ir.Node) -> Function:
    return torch.fmod if node.attributes.get_int("fmod", 0) else torch.remainder


def _cast(node: ir.Node) -> Function:
    kind = ir.DataType(node.attributes.get_int("to"))
    if kind not in DTYPES:
        raise Unsupported(f"casts to {kind.name}")
    return lambda x: x.to(DTYPES[kind])


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x if low is None and high is None else torch.clamp(x, low, high)


def _leaky_relu(node: ir.Node) -> Function:
    return functools.partial(F.leaky_relu, negative_slope=number(node, "alpha", 0.01))


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return F.relu(x) - slope * F.relu(-x)


def _elu(node: ir.Node) -> Function:
    return functools.partial(F.elu, alpha=number(node, "alpha", 1.0))


def _celu(node: ir.Node) -> Function:
    return functools.partial(F.celu, alpha=number(node, "alpha", 1.0))


def _selu(node: ir.Node) -> Function:
    alpha, gamma = number(node, "alpha", 1.6732632), number(node, "gamma", 1.0507010)
    return lambda x: gamma * F.elu(x, alpha)


def _hard_sigmoid(node: ir.Node) -> Function:
    alpha, beta = number(node, "alpha", 0.2), number(node, "beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def _thresholded_relu(node: ir.Node) -> Function:
    return functools.partial(F.threshold, threshold=number(node, "alpha", 1.0), value=0.0)


def _gelu(node: ir.Node) -> Function:
    return functools.partial(F.gelu, approximate=node.attributes.get_string("approximate", "none"))


def _sum(*terms: Tensor) -> Tensor:
    return functools.reduce(torch.add, terms)


OPERATORS: dict[str, Make] = {
    "Abs": plain(torch.abs),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Cast": _cast,
    "CastLike": plain(lambda x, like: x.to(like.dtype)),
    "Ceil": plain(torch.ceil),
    "Celu": _celu,
    "Clip": plain(_clip),
    "Cos": plain(torch.cos),
    "Div": plain(_div),
    "Dropout": plain(lambda x, *_: x),
    "Elu": _elu,
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Gelu": _gelu,
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": plain(F.hardswish),
    "Identity": plain(lambda x: x),
    "IsNaN": plain(torch.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "Max": plain(lambda *terms: functools.reduce(torch.maximum, terms)),
    "Mean": plain(lambda *terms: _sum(*terms) / len(terms)),
    "Min": plain(lambda *terms: functools.reduce(torch.minimum, terms)),
    "Mish": plain(F.mish),
    "Mod": _mod,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": plain(_prelu),
    "Pow": plain(_pow),
    "Reciprocal": plain(torch.reciprocal),
    "Relu": plain(F.relu),
    "Round": plain(torch.round),
    "Selu": _selu,
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Softplus": plain(F.softplus),
    "Softsign": plain(F.softsign),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Sum": plain(_sum),
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
}
