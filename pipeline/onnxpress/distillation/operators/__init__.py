"""ONNX operators as differentiable PyTorch functions, one file per family; importing this imports torch.

Each file has a table from operator to maker: ``make(node)`` reads the attributes once and returns the function of the
input tensors. What an operator may not do here raises `facts.Unsupported`. Operator sets from 13 on are understood.
"""

from __future__ import annotations

from onnxpress.distillation.operators import algebra, pointwise, quantized, recurrent, resize, shapes, windows
from onnxpress.distillation.operators.facts import Make

OPERATORS: dict[str, Make] = {
    name: make
    for family in (algebra, pointwise, quantized, recurrent, resize, shapes, windows)
    for name, make in family.OPERATORS.items()
}
