"""Weight-only integers: how fast MatMulNBits is, and what rounding with calibration data wins.

    python benchmarks/quantization/weight_only.py [CASE …]

Without cases, each number is a time as a multiple of a float MatMul's, the best of 15 interleaved runs, on a [rows,
inputs] x [inputs, outputs] product of random values, one thread: which bits, block size and accuracy level pay? The
last column is dynamic int8 (DynamicQuantizeMatMul). With cases (minilm, resnet20, …): dB of the worst output and the
drop of the metric on the first 200 test samples, weights rounded to nearest and with calibration data.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import onnx_ir as ir
from cases import cases
from techniques import answers, cell

from onnxpress import artifact
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.blocks import pack, quantize_blocks
from onnxpress.quantization.quantize import quantize
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


def accuracy(names: list[str], samples: int = 200) -> None:
    """Print what each case loses with 8 and 4 bits, rounded to nearest and with data."""
    print("| model | bits | bytes | nearest | with data |\n|---|---|---|---|---|")
    for case in (cases()[name] for name in names):
        model = prepare(artifact.load(case.model)).model
        expected = answers(case, model, samples)
        for bits in (8, 4):
            options = QuantizeOptions(mode="weight-only", bits=bits, verify=False)
            made = [quantize(model, options, data).model for data in (None, case.data("calibration"))]
            cells = [cell(expected, answers(case, each, samples)) for each in made]
            size = len(ir.to_proto(made[1]).SerializeToString())
            print(f"| {case.name} | {bits} | {size:,} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    names = parser.parse_args().cases
    if names:
        accuracy(names)
    else:
        speed()


def speed() -> None:
    """Print the table of times."""
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
