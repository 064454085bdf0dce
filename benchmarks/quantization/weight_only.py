"""MatMulNBits against a float MatMul: which bits, block size and accuracy level pay, one thread.

    python benchmarks/quantization/weight_only.py

Each number is a time as a multiple of the float MatMul's, the best of 15 interleaved runs, on a [rows, inputs] x
[inputs, outputs] product of random values. The last column is dynamic int8 (DynamicQuantizeMatMul).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress.quantization.blocks import pack, quantize_blocks
from onnxpress.session import SessionOptions, open_session

FORMS = [(bits, level, size) for bits in (4, 8) for level in (0, 4) for size in (32, 128)]
SIZES = [(384, 384), (384, 1536), (2048, 1000), (4096, 4096)]


def session(node: ir.Node, arrays: dict[str, np.ndarray[Any, Any]], inputs: int) -> Any:  # noqa: ANN401
    """Open a session of one node."""
    x = ir.Value(name="x", shape=ir.Shape(["N", inputs]), type=ir.TensorType(ir.DataType.FLOAT))
    node.replace_input_with(0, x)
    for value in node.inputs[1:]:
        assert value is not None
        value.const_value = ir.tensor(arrays[value.name or ""], name=value.name)
    output = node.outputs[0]
    output.name, output.type, output.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", "M"])
    weights = [value for value in node.inputs[1:] if value is not None]
    opsets = {"": 17, "com.microsoft": 1}
    graph = ir.Graph([x], [output], nodes=[node], initializers=weights, opset_imports=opsets)
    return open_session(ir.Model(graph, ir_version=8), SessionOptions(threads=1))


def values(*names: str) -> list[ir.Value]:
    """Return values of these names."""
    return [ir.Value(name=name) for name in names]


def main() -> None:
    """Print the table."""
    random = np.random.default_rng(0)
    heads = " ".join(f"{bits}b/l{level}/{size}".rjust(9) for bits, level, size in FORMS)
    print(f"inputs outputs rows  float us {heads}   dynamic")
    for inputs, outputs in SIZES:
        weight = random.normal(size=(inputs, outputs)).astype(np.float32)
        sessions = [session(ir.node("MatMul", values("x", "w")), {"w": weight}, inputs)]
        for bits, level, size in FORMS:
            integers, scales = quantize_blocks(weight.T, bits, size)
            attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": size, "accuracy_level": level}
            node = ir.node("MatMulNBits", values("x", "q", "s"), attributes, domain="com.microsoft")
            sessions.append(session(node, {"q": pack(integers, bits), "s": scales}, inputs))
        node = ir.node("DynamicQuantizeMatMul", values("x", "q", "s"), domain="com.microsoft")
        rounded = np.clip(np.round(weight * 30), -127, 127).astype(np.int8)
        sessions.append(session(node, {"q": rounded, "s": np.full(outputs, 1 / 30, np.float32)}, inputs))
        for rows in (1, 16, 128):
            feeds = {"x": random.normal(size=(rows, inputs)).astype(np.float32)}
            best = [float("inf")] * len(sessions)
            for _ in range(15):
                for index, each in enumerate(sessions):
                    start = time.perf_counter()
                    each.run(None, feeds)
                    best[index] = min(best[index], time.perf_counter() - start)
            cells = " ".join(f"{taken / best[0]:9.2f}" for taken in best[1:])
            print(f"{inputs:6} {outputs:7} {rows:4} {best[0] * 1e6:9.0f} {cells}")


if __name__ == "__main__":
    main()
