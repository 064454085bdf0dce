"""How long one more decision takes: re-quantizing a ResNet-50 when ranges and integers are there already.

    python benchmarks/quantization/requantize.py [--repeats 20]

The graph has ResNet-50's layers (54 weighted nodes, 25.5 million weights) with random values; ranges are made up, too:
neither changes the work. Each row is the median of the repeats, in milliseconds; no data is run and no file written.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxpress.quantization import QuantizeOptions, dynamic, static
from onnxpress.quantization.placement import gemms, place
from onnxpress.quantization.weights import Weights

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


class Builder:
    """Adds layers to a graph."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []

    def weight(self, name: str, shape: tuple[int, ...]) -> ir.Value:
        """Add a random weight."""
        tensor = ir.tensor(self.random.normal(scale=0.05, size=shape).astype(np.float32), name=name)
        value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype))
        self.initializers.append(value)
        return value

    def add(self, op: str, inputs: list[ir.Value], shape: list[int | str], **attributes: object) -> ir.Value:
        """Add a node with one output of the given shape."""
        name = f"{op.lower()}{len(self.nodes)}"
        node = ir.node(op, inputs, attributes, name=name)  # type: ignore[arg-type]
        output = node.outputs[0]
        output.name, output.shape, output.type = f"{name}_y", ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        self.nodes.append(node)
        return output

    def conv(self, x: ir.Value, out: int, kernel: int, stride: int, *, relu: bool = True) -> ir.Value:
        """Add a convolution with a bias, and a Relu behind it."""
        channels, side = int(x.shape[1]), int(x.shape[2]) // stride  # type: ignore[index, arg-type]
        index, shape = len(self.nodes), ["N", out, side, side]
        weight = self.weight(f"w{index}", (out, channels, kernel, kernel))
        pads = [kernel // 2] * 4
        y = self.add("Conv", [x, weight, self.weight(f"b{index}", (out,))], shape, strides=[stride] * 2, pads=pads)
        return self.add("Relu", [y], shape) if relu else y


def resnet50() -> ir.Model:
    """Return a graph of ResNet-50's shape (He et al. 2015), BatchNorm folded."""
    build = Builder()
    x = ir.Value(name="x", shape=ir.Shape(["N", 3, 224, 224]), type=ir.TensorType(ir.DataType.FLOAT))
    y = build.conv(x, 64, 7, 2)
    y = build.add("MaxPool", [y], ["N", 64, 56, 56], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, (width, blocks) in enumerate(STAGES):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            branch = build.conv(build.conv(y, width, 1, 1), width, 3, stride)
            branch = build.conv(branch, 4 * width, 1, 1, relu=False)
            skip = y if block else build.conv(y, 4 * width, 1, stride, relu=False)
            shape = list(branch.shape)  # type: ignore[arg-type]
            y = build.add("Relu", [build.add("Add", [branch, skip], shape)], shape)  # type: ignore[arg-type]
    y = build.add("GlobalAveragePool", [y], ["N", 2048, 1, 1])
    y = build.add("Flatten", [y], ["N", 2048])
    y = build.add("Gemm", [y, build.weight("fc", (2048, 1000)), build.weight("fc_b", (1000,))], ["N", 1000])
    graph = ir.Graph([x], [y], nodes=build.nodes, initializers=build.initializers, opset_imports={"": 17})
    return ir.Model(graph, ir_version=8)


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Time a function."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    model, options, chance = resnet50(), QuantizeOptions(), np.random.default_rng(0)
    gemms(model)
    layers = [node.name or "" for node in model.graph if node.op_type in ("Conv", "Gemm")]
    ranges = {value.name or "": (-1.0, 3.0) for value in place(model, options.selects).candidates}

    def write(weights: Weights, mixed: bool) -> ir.Model:
        float_layers = {name for name in layers if mixed and chance.random() < 0.3}
        copy = model.clone()
        static.write(copy, place(copy, lambda name: name not in float_layers), ranges, options, weights)
        if mixed:
            dynamic.write(copy, float_layers.__contains__, options, weights)
        return copy

    weights = Weights()
    print(f"{len(layers)} weighted nodes, {sum(value.size for value in weights_of(model)) / 1e6:.1f} million weights")
    print(f"first time, every weight rounded       {median_ms(lambda: write(Weights(), mixed=False), 3):8.1f} ms")
    write(weights, mixed=False)
    print(f"again, all layers static               {median_ms(lambda: write(weights, mixed=False), repeats):8.1f} ms")
    print(f"again, a random third float or dynamic {median_ms(lambda: write(weights, mixed=True), repeats):8.1f} ms")
    print(f"of which the copy of the graph         {median_ms(model.clone, repeats):8.1f} ms")


def weights_of(model: ir.Model) -> list[ir.TensorProtocol]:
    """Return the weights of a model."""
    return [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]


if __name__ == "__main__":
    main()
