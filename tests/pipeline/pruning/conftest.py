"""Tiny models for pruning, written as ONNX text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

Build = Callable[..., ir.Model]
CHAIN = """
net (float[N,3,8,8] x, float[16,3,1,1] aw, float[32,16,1,1] bw, float[64,32,1,1] cw, float[10,64,1,1] dw)
  => (float[N,10,8,8] y) {
  a = Conv (x, aw)
  b = Conv (a, bw)
  c = Conv (b, cw)
  y = Conv (c, dw)
}
"""


def _model(text: str, *, opset: int = 17, seed: int = 0) -> ir.Model:
    """Parse ``net (float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] y) {…}``.

    Inputs whose name starts with ``x`` stay inputs; float tensors among the others become random initializers.
    """
    head = f'<ir_version: 10, opset_import: ["": {opset}, "custom": 1]>'
    model = ir.from_proto(onnx.parser.parse_model(f"{head} {text}"))
    generator = np.random.default_rng(seed)
    for value in list(model.graph.inputs):
        assert value.name is not None and value.shape is not None and value.dtype is not None
        if value.name.startswith("x"):
            continue
        model.graph.inputs.remove(value)
        shape = [int(size) for size in value.shape]
        array = generator.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        if "var" in value.name:
            array = np.abs(array) + 0.5
        value.const_value = ir.tensor(array.astype(value.dtype.numpy()), name=value.name)
        model.graph.register_initializer(value)
    ShapeInferencePass()(model)
    return model


@pytest.fixture
def build() -> Build:
    return _model


@pytest.fixture
def chain() -> ir.Model:
    """Four convolutions in a row, of 16, 32, 64 and 10 channels."""
    return _model(CHAIN)
