"""When static int8 pays for a convolution, before a Relu and before a PRelu, which has no int8 kernel. One thread.

    python benchmarks/quantization/convolutions.py

Each row is a chain of four equal convolutions of random values with their activations; the numbers are the int8 chain's
time as a multiple of float's, the median of interleaved runs. `PRELU_PRODUCTS` in `onnxpress.quantization.placement`
comes from here.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions, static
from onnxpress.quantization.params import Array
from onnxpress.quantization.placement import place
from onnxpress.session import SessionOptions, open_session

LAYERS = 4
SECONDS = 0.5


def chain(channels: int, kernel: int, group: int, side: int, activation: str) -> ir.Model:
    """Return the float chain."""
    random = np.random.default_rng(0)
    weights: list[ir.Value] = []
    nodes: list[ir.Node] = []

    def weight(name: str, array: Array) -> ir.Value:
        tensor = ir.tensor(array.astype(np.float32), name=name)
        weights.append(
            ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
        )
        return weights[-1]

    def add(op: str, inputs: list[ir.Value], attributes: dict[str, Any], name: str) -> ir.Value:
        nodes.append(ir.node(op, inputs, attributes, name=name))
        nodes[-1].outputs[0].name = f"{name}_y"
        return nodes[-1].outputs[0]

    shape, kind = ir.Shape([1, channels, side, side]), ir.TensorType(ir.DataType.FLOAT)
    x = y = ir.Value(name="x", shape=shape, type=kind)
    inner = channels // group
    for index in range(LAYERS):
        filters = random.normal(size=(channels, inner, kernel, kernel)) * (2 / (inner * kernel**2)) ** 0.5
        inputs = [y, weight(f"w{index}", filters), weight(f"b{index}", 0.1 * random.normal(size=channels))]
        y = add("Conv", inputs, {"pads": [kernel // 2] * 4, "group": group}, f"conv{index}")
        slope = [weight(f"s{index}", 0.25 * random.random((channels, 1, 1)))] if activation == "PRelu" else []
        y = add(activation, [y, *slope], {}, f"act{index}")
    y.shape, y.type = shape, kind
    graph = ir.Graph([x], [y], nodes=nodes, initializers=weights, opset_imports={"": 17}, name="chain")
    return prepare(ir.Model(graph, ir_version=8)).model


def ratio(model: ir.Model) -> float:
    """Return the time of the int8 model as a multiple of the float model's, every convolution quantized."""
    copy, options = model.clone(), QuantizeOptions()
    placement = place(copy, options.selects, prelu_products=0)
    producers = {value.name or "": value.producer() for value in placement.measured}
    ranges = {
        name: (0.0 if producer is not None and producer.op_type == "Relu" else -3.0, 3.0)
        for name, producer in producers.items()
    }
    static.write(copy, placement, ranges, options)
    sessions = [open_session(each, SessionOptions(threads=1)) for each in (model, copy)]
    feeds = {"x": np.random.default_rng(1).normal(size=model.graph.inputs[0].shape.numpy()).astype(np.float32)}
    ratios, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        times = []
        for session in sessions:
            start = time.perf_counter()
            session.run(None, feeds)
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


def main() -> None:
    """Print the table."""
    print("kind       kernel channels products/value   Relu  PRelu")
    for name, kernel in (("full", 1), ("full", 3), ("depthwise", 3)):
        for channels in (8, 16, 32, 64, 128, 256):
            group = channels if name == "depthwise" else 1
            side = 28 if channels > 64 else 56
            found = [ratio(chain(channels, kernel, group, side, activation)) for activation in ("Relu", "PRelu")]
            print(
                f"{name:10} {kernel:6} {channels:8} {channels // group * kernel**2:14} {found[0]:6.2f} {found[1]:6.2f}"
            )


if __name__ == "__main__":
    main()
