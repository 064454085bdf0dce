"""What the operator files share: how a node becomes a function of tensors, and how its attributes are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from torch import Tensor

Function = Callable[..., Any]
"""Tensors in the order of the node's inputs (None for one left out) to a tensor, or a tuple of them."""
Make = Callable[[ir.Node], Function]
"""Reads a node's attributes once and returns what it computes."""


class Unsupported(Exception):  # noqa: N818 - a reason that the interpreter completes to an error with the node's name
    """An operator is used in a way that cannot be differentiated here; the message says which, after its name."""


def plain(function: Function) -> Make:
    """Return a maker for an operator without attributes."""
    return lambda node: function  # noqa: ARG005


def number(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute, or its default."""
    value = node.attributes.get_float(name, default)
    return default if value is None else float(value)


def integers(tensor: Tensor) -> list[int]:
    """Return a tensor of sizes, axes or positions as Python numbers."""
    return [int(value) for value in tensor.reshape(-1).tolist()]


def wanted_outputs(node: ir.Node) -> list[int]:
    """Return which outputs of a node anybody reads."""
    return [index for index, value in enumerate(node.outputs) if value.uses() or value.is_graph_output()]


def only_first_output(node: ir.Node) -> None:
    """Refuse a node of which more than the first output is read."""
    if any(index > 0 for index in wanted_outputs(node)):
        raise Unsupported("gives more than one output that is read")
