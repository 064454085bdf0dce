"""LSTM and GRU, by torch's own kernels: the gates are put into torch's order on the way in.

ONNX keeps the gates as i, o, f, c and z, r, h; torch as i, f, g, o and r, z, n. Layout [steps, batch, features].
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from onnxpress.distillation.operators.facts import Function, Make, Unsupported
from onnxpress.graph import attribute_int

GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}


def _recurrent(node: ir.Node) -> Function:
    direction = node.attributes.get_string("direction", "forward")
    if node.op_type == "GRU" and attribute_int(node, "linear_before_reset", 0) == 0:
        raise Unsupported("multiplies by the reset gate before the product (linear_before_reset=0)")
    if "activations" in node.attributes or "clip" in node.attributes or attribute_int(node, "input_forget", 0):
        raise Unsupported("has activations, clip or input_forget of its own")
    if attribute_int(node, "layout", 0):
        raise Unsupported("has layout 1")
    if any(len(node.inputs) > index and node.inputs[index] is not None for index in (4, 7)):
        raise Unsupported("has sequence lengths or peepholes")
    gates = GATES[node.op_type]

    def run(
        x: Tensor,
        weight: Tensor,
        recurrence: Tensor,
        bias: Tensor | None = None,
        _: Tensor | None = None,
        hidden: Tensor | None = None,
        cell: Tensor | None = None,
        *_rest: Tensor | None,
    ) -> tuple[Tensor, ...]:
        directions, size = len(weight), recurrence.shape[-1]
        flat = []
        for way in range(directions):
            flat += [_ordered(weight[way], gates), _ordered(recurrence[way], gates)]
            if bias is not None:
                flat += [_ordered(half, gates) for half in bias[way].chunk(2)]
        start = x.new_zeros(directions, x.shape[1], size)
        hidden = start if hidden is None else hidden
        steps = x.flip(0) if direction == "reverse" else x
        shared = (flat, bias is not None, 1, 0.0, False, directions == 2, False)
        if node.op_type == "LSTM":
            out, *last = torch.lstm(steps, [hidden, start if cell is None else cell], *shared)
        else:
            out, *last = torch.gru(steps, hidden, *shared)
        out = out.flip(0) if direction == "reverse" else out
        return out.reshape(*out.shape[:2], directions, size).transpose(1, 2), *last

    return run


def _ordered(stacked: Tensor, gates: tuple[int, ...]) -> Tensor:
    parts = stacked.chunk(len(gates))
    return torch.cat([parts[gate] for gate in gates])


OPERATORS: dict[str, Make] = {"GRU": _recurrent, "LSTM": _recurrent}
