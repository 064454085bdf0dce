"""Models whose difference in work is known, for checking the benchmark."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

REAL = Path(os.environ.get("ONNXPRESS_REAL_DATA", Path(__file__).parents[3] / "shared" / "real"))
FILES = {
    "squeezenet": "imagenet500/squeezenet1_1_torchvision.onnx",
    "resnet20": "cifar10/resnet20.onnx",
    "kws": "audio/kws_dscnn_fp32.onnx",
    "magika": "magika/magika_standard_v3_3.onnx",
}


def real(name: str) -> Path:
    """Return the file of a real model, or stop."""
    path = REAL / FILES[name]
    if not path.is_file():
        sys.exit(f"skipped: there is no {path} (set ONNXPRESS_REAL_DATA)")
    return path


def chain(folder: Path, operators: int, size: int = 192) -> Path:
    """Write a model of equal matrix products, one after the other: eleven are ten percent more work than ten."""
    weight = (np.random.default_rng(0).standard_normal((size, size)) / np.sqrt(size)).astype(np.float32)
    steps = " ".join(f"h{i + 1} = MatMul (h{i}, w)" for i in range(operators - 1))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N, {size}, {size}] h0) => (float[N, {size}, {size}] y) '
        f"{{ {steps} y = MatMul (h{operators - 1}, w) }}"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = folder / f"chain-{operators}.onnx"
    onnx.save(model, path)
    return path


def with_more_work(source: Path, target: Path, repeats: int) -> Path:
    """Write a copy of a model that computes ``x + 0 · (exp(x) + …)`` of its image first: work without an effect."""
    model = ir.load(source)
    image = model.graph.inputs[0]
    zero = ir.Value(name="zero_", const_value=ir.tensor(np.zeros(1, np.float32), name="zero_"))
    model.graph.initializers["zero_"] = zero
    users = list(image.uses())
    nodes = []
    value = image
    for _ in range(repeats):
        nodes.append(ir.node("Exp", [value]))
        nodes.append(ir.node("Mul", [nodes[-1].outputs[0], zero]))
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], image]))
        value = nodes[-1].outputs[0]
    model.graph.insert_before(next(iter(model.graph)), nodes)
    for user in users:
        user.node.replace_input_with(user.idx, value)
    ir.save(model, target)
    return target
