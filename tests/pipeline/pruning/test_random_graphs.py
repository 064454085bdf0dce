"""Property: on graphs put together at random, cutting channels, or whole branches, gives what masking them gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_ir.passes.common import CheckerPass, ShapeInferencePass

from onnxpress import graph
from onnxpress.pruning import branches, proof, stored, surgery
from onnxpress.pruning.groups import analyze

SIZE = 4  # height and width of all feature maps


@dataclass
class Builder:
    """Adds one random piece after another; `maps` are the feature maps [N, C, 4, 4] made so far."""

    draw: st.DrawFn
    random: np.random.Generator
    main: ir.Graph
    maps: list[ir.Value] = field(default_factory=list)
    count: int = 0

    def node(self, op: str, inputs: list[ir.Value | None], outputs: int = 1, **attributes: object) -> ir.Value:
        node = ir.node(op, inputs, attributes, num_outputs=outputs)
        for value in node.outputs:
            self.count += 1
            value.name = f"{op}_{self.count}"
        self.main.append(node)
        return node.outputs[0]

    def constant(self, array: np.ndarray) -> ir.Value:
        self.count += 1
        return graph.add_initializer(self.main, f"c{self.count}", array)

    def weight(self, *shape: int) -> ir.Value:
        scale = np.sqrt(max(1, int(np.prod(shape[1:]))))
        return self.constant((self.random.standard_normal(shape) / scale).astype(np.float32))

    def channels(self, value: ir.Value) -> int:
        return self.widths[value]

    def made(self, value: ir.Value, width: int) -> ir.Value:
        self.widths[value] = width
        self.maps.append(value)
        return value

    @property
    def widths(self) -> dict[ir.Value, int]:
        return self.__dict__.setdefault("_widths", {})

    def pick(self) -> ir.Value:
        return self.draw(st.sampled_from(self.maps))

    def stored(self, *shape: int) -> ir.Value:
        """A weight as a quantized model has it: integers and a DequantizeLinear, with one scale or one per channel."""
        dtype = self.draw(st.sampled_from([np.int8, np.uint8]))
        per_channel = self.draw(st.booleans())
        limits, count = np.iinfo(dtype), [shape[0]] if per_channel else []
        integers = self.constant(self.random.integers(limits.min, limits.max, shape, dtype, endpoint=True))
        scale = self.constant(np.asarray((self.random.random(count) + 0.5) / 256, np.float32))
        zero = self.constant(np.asarray(self.random.integers(limits.min, limits.max, count), dtype))
        return self.node("DequantizeLinear", [integers, scale, zero], axis=0)

    def conv(self, x: ir.Value, width: int, kernel: int = 1, group: int = 1) -> ir.Value:
        made = self.stored if self.draw(st.booleans()) else self.weight
        weight = made(width, self.channels(x) // group, kernel, kernel)
        bias = [made(width)] if self.draw(st.booleans()) else []
        pads = [kernel // 2] * 4
        return self.made(self.node("Conv", [x, weight, *bias], group=group, pads=pads), width)

    def dense(self) -> None:
        self.conv(self.pick(), self.draw(st.integers(1, 8)), self.draw(st.sampled_from([1, 3])))

    def grouped(self) -> None:
        x = self.pick()
        divisors = [n for n in range(1, self.channels(x) + 1) if self.channels(x) % n == 0]
        group = self.draw(st.sampled_from(divisors))
        self.conv(x, group * self.draw(st.integers(1, 2)), 3, group)

    def transposed(self) -> None:
        x = self.pick()
        group = self.draw(st.sampled_from([n for n in range(1, self.channels(x) + 1) if self.channels(x) % n == 0]))
        each = self.draw(st.integers(1, 3))
        weight = self.weight(self.channels(x), each, 1, 1)
        self.made(self.node("ConvTranspose", [x, weight], group=group), group * each)

    def activation(self) -> None:
        x = self.pick()
        op = self.draw(st.sampled_from(["Relu", "Sigmoid", "Softplus", "Cos", "HardSwish"]))
        self.made(self.node(op, [x]), self.channels(x))

    def rounded(self) -> None:
        """An activation on an integer grid, of one step for all or one per channel."""
        x = self.pick()
        count = [self.channels(x)] if self.draw(st.booleans()) else []
        scale = self.constant(np.asarray((self.random.random(count) + 0.5) / 32, np.float32))
        zero = self.constant(np.asarray(self.random.integers(0, 256, count), np.uint8))
        integers = self.node("QuantizeLinear", [x, scale, zero], axis=1)
        self.made(self.node("DequantizeLinear", [integers, scale, zero], axis=1), self.channels(x))

    def affine(self) -> None:
        x = self.pick()
        width = self.channels(x)
        if self.draw(st.booleans()):
            parameters = [self.weight(width), self.weight(width), self.weight(width)]
            variance = self.constant(self.random.random(width).astype(np.float32) + 0.5)
            self.made(self.node("BatchNormalization", [x, *parameters, variance]), width)
        else:
            op = self.draw(st.sampled_from(["Add", "Mul", "PRelu"]))
            self.made(self.node(op, [x, self.weight(width, 1, 1)]), width)

    def merge(self) -> None:
        """Join two maps element by element; where widths differ a convolution adapts one."""
        x, y = self.pick(), self.pick()
        if self.channels(x) != self.channels(y):
            y = self.conv(y, self.channels(x))
        op = self.draw(st.sampled_from(["Add", "Mul", "Sub", "Max"]))
        self.made(self.node(op, [x, y]), self.channels(x))

    def residual(self) -> None:
        """A branch of two or three layers beside a shortcut."""
        x = self.pick()
        inner = x
        for _ in range(self.draw(st.integers(1, 2))):
            width = self.draw(st.integers(1, 6))
            made = self.conv(inner, width, 3)
            inner = self.node(self.draw(st.sampled_from(["Relu", "Sigmoid"])), [made])
            self.widths[inner] = width
            self.maps.remove(made)  # it serves nothing but the branch
        last = self.conv(inner, self.channels(x))
        self.maps.remove(last)
        self.made(self.node("Add", self.draw(st.permutations([last, x]))), self.channels(x))

    def concat(self) -> None:
        parts = [self.pick() for _ in range(self.draw(st.integers(2, 3)))]
        self.made(self.node("Concat", parts, axis=1), sum(map(self.channels, parts)))

    def split(self) -> None:
        x = self.pick()
        cut = self.draw(st.integers(0, self.channels(x)))
        if not 0 < cut < self.channels(x):
            return
        sizes = [cut, self.channels(x) - cut]
        first = self.node("Split", [x, self.constant(np.array(sizes))], outputs=2, axis=1)
        for value, size in zip(first.producer().outputs, sizes, strict=True):
            self.made(value, size)

    def part(self) -> None:
        x = self.pick()
        start = self.draw(st.integers(0, self.channels(x) - 1))
        stop = self.draw(st.integers(start + 1, self.channels(x)))
        limits = [self.constant(np.array([number])) for number in (start, stop, 1)]
        self.made(self.node("Slice", [x, *limits]), stop - start)

    def pad(self) -> None:
        x = self.pick()
        before, after = self.draw(st.integers(0, 2)), self.draw(st.integers(0, 2))
        pads = self.constant(np.array([0, before, 0, 0, 0, after, 0, 0]))
        filling = self.constant(np.array(0.5, np.float32))
        self.made(self.node("Pad", [x, pads, filling]), self.channels(x) + before + after)

    def choose(self) -> None:
        x = self.pick()
        indices = self.draw(st.lists(st.integers(0, self.channels(x) - 1), min_size=1, max_size=5))
        self.made(self.node("Gather", [x, self.constant(np.array(indices))], axis=1), len(indices))

    def shuffle(self) -> None:
        x = self.pick()
        width = self.channels(x)
        group = self.draw(st.sampled_from([n for n in range(1, width + 1) if width % n == 0]))
        rows = self.node("Reshape", [x, self.constant(np.array([0, group, width // group, SIZE, SIZE]))])
        turned = self.node("Transpose", [rows], perm=[0, 2, 1, 3, 4])
        self.made(self.node("Reshape", [turned, self.constant(np.array([0, -1, SIZE, SIZE]))]), width)

    def excite(self) -> None:
        x = self.pick()
        pooled = self.node("GlobalAveragePool", [x])
        inner = self.draw(st.integers(1, 4))
        down = self.node("Relu", [self.node("Conv", [pooled, self.weight(inner, self.channels(x), 1, 1)])])
        up = self.node("Sigmoid", [self.node("Conv", [down, self.weight(self.channels(x), inner, 1, 1)])])
        self.made(self.node("Mul", [x, up]), self.channels(x))

    def attend(self) -> None:
        """One gate per position: [N, 1, 4, 4] times [N, C, 4, 4]."""
        x = self.pick()
        gate = self.node("Sigmoid", [self.node("Conv", [x, self.weight(1, self.channels(x), 1, 1)])])
        self.made(self.node("Mul", [x, gate]), self.channels(x))

    def channels_last(self) -> None:
        x = self.pick()
        width = self.draw(st.integers(1, 8))
        last = self.node("Transpose", [x], perm=[0, 2, 3, 1])
        dense = self.node("MatMul", [last, self.weight(self.channels(x), width)])
        shifted = self.node("Add", [self.weight(width), self.node("Gelu", [dense])])
        self.made(self.node("Transpose", [shifted], perm=[0, 3, 1, 2]), width)

    def normalize(self) -> None:
        """Over all channels (which then must stay), or over the positions of each."""
        x = self.pick()
        axis = self.draw(st.sampled_from([1, 2]))
        self.made(self.node("Softmax", [x], axis=axis), self.channels(x))

    def pool(self) -> None:
        x = self.pick()
        op = self.draw(st.sampled_from(["MaxPool", "AveragePool"]))
        self.made(self.node(op, [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), self.channels(x))


PIECES = [name for name, value in vars(Builder).items() if callable(value) and not name.startswith("_")]
PIECES = [n for n in PIECES if n not in ("node", "constant", "weight", "channels", "made", "pick", "conv", "stored")]


@st.composite
def models(draw: st.DrawFn) -> ir.Model:
    x = ir.Value(name="x", shape=ir.Shape(["N", 3, SIZE, SIZE]), type=ir.TensorType(ir.DataType.FLOAT))
    main = ir.Graph([x], [], nodes=[], opset_imports={"": 20}, name="net")
    builder = Builder(draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))), main)
    builder.widths[x] = 3
    builder.conv(x, draw(st.integers(2, 8)))
    for _ in range(draw(st.integers(1, 10))):
        getattr(builder, draw(st.sampled_from(PIECES)))()
    # Every map ends in one of two heads, so that nothing is unused and several consumers are the rule.
    ends = [value for value in builder.maps if not value.uses()]
    joined = builder.node("Concat", ends, axis=1) if len(ends) > 1 else ends[0]
    width = sum(map(builder.channels, ends))
    if draw(st.booleans()):
        flat = builder.node("Flatten", [joined])
        out = builder.node("Gemm", [flat, builder.weight(5, width * SIZE * SIZE)], transB=1)
    else:
        out = builder.node("Conv", [joined, builder.weight(5, width, 1, 1)])
    main.outputs.append(out)
    out.type = ir.TensorType(ir.DataType.FLOAT)
    model = ir.Model(main, ir_version=10)
    ShapeInferencePass()(model)
    CheckerPass(full_check=True)(model)
    return model


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(model=models(), seed=st.integers(0, 1000))
def test_cut_equals_masked(model: ir.Model, seed: int) -> None:
    integers = {value.name: graph.constant(value) for value in model.graph.initializers.values()}
    stored.unpack(model)
    ShapeInferencePass()(model)
    analysis = analyze(model)
    random = np.random.default_rng(seed)
    choice = {}
    for group in analysis.prunable:
        keep = random.random(group.size) < 0.6
        keep[random.integers(group.size)] = True
        choice[group] = keep & (random.random() < 0.2) if branches.gone(group) else keep
    masked = surgery.masked(model, choice)
    surgery.cut(model, choice)
    CheckerPass(full_check=True)(model)
    error = proof.prove(model, masked, None)
    assert error is not None and error < 1e-3
    kept = {value.name: masks for value, masks in surgery.Kept(choice).values().items()}
    stored.pack(model)
    CheckerPass(full_check=True)(model)
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if source is not None and source.is_initializer():  # nothing is rounded twice
            expected = integers[source.name]
            for axis, mask in kept.get(node.outputs[0].name, {}).items():
                expected = np.compress(mask, expected, axis=axis)
            np.testing.assert_array_equal(graph.constant(source), expected)
