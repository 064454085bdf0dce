"""Which int8 kernels of onnxruntime saturate on an x86 CPU without VNNI: each run here, and in QEMU as such a CPU.

    python benchmarks/quantization/kernels_without_vnni.py [--cpu Haswell]

Needs ``qemu-x86_64`` (Debian: ``apt-get install qemu-user``), which executes onnxruntime's AVX2 kernels on any x86.
Each form of layer is computed with random integers and compared with two definitions: exact, and with the sum of each
two neighbouring products clipped to an int16, as ``vpmaddubsw`` does it. Neighbours are consecutive in the order
(kernel position, input channel) of a convolution, and consecutive rows of a matrix. Signed activations are shifted to
unsigned ones first. QEMU knows no AVX-512, whose kernels without VNNI use the same instruction (mlas/lib/platform.cpp).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from onnxpress import artifact
from onnxpress.session import open_session, optimized_graph, run

Array = np.ndarray[Any, np.dtype[Any]]
Width = Literal["uint8", "int8"]
X_SCALE, W_SCALE = 1 / 64, 1 / 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A convolution over a square (or a line) of random pixels."""

    channels: int = 16
    filters: int = 16
    kernel: int = 3
    group: int = 1
    stride: int = 1
    dilation: int = 1
    rank: int = 2
    zero: int = 100
    """Zero point of the activations, as uint8."""
    activations: Width = "uint8"
    weights: Width = "int8"

    def product(self, random: np.random.Generator) -> tuple[Array, Array, list[tuple[Array, Array]]]:
        """Return activations, weights, and what is multiplied for each group: ([positions, K], [K, M])."""
        values = random.integers(0, 256, (self.channels, *[12] * self.rank))
        weights = integers(
            random, (self.filters, self.channels // self.group, *[self.kernel] * self.rank), self.weights
        )
        reach = self.dilation * (self.kernel - 1)
        padded = np.pad(values, ((0, 0), *[(reach // 2, reach // 2)] * self.rank), constant_values=self.zero)
        windows = sliding_window_view(padded, [reach + 1] * self.rank, list(range(1, self.rank + 1)))
        step, inside = slice(None, None, self.stride), slice(None, None, self.dilation)
        windows = windows[(slice(None), *[step] * self.rank, *[inside] * self.rank)]
        pairs = []
        for one, other in zip(np.split(windows, self.group), np.split(weights, self.group), strict=True):
            ordered = np.moveaxis(one, 0, -1)  # [positions…, kernel…, channels]
            rows = ordered.reshape(int(np.prod(ordered.shape[: self.rank])), -1)
            pairs.append((rows, np.moveaxis(other, (0, 1), (-1, -2)).reshape(rows.shape[1], -1)))
        return values[None], weights, pairs

    def node(self, value: Callable[[str], ir.Value]) -> ir.Node:
        """Return the float operator."""
        attributes = {
            "pads": [self.dilation * (self.kernel - 1) // 2] * 2 * self.rank,
            "strides": [self.stride] * self.rank,
            "dilations": [self.dilation] * self.rank,
            "group": self.group,
        }
        return ir.node("Conv", [value("xd"), value("wd")], attributes, outputs=[value("y0")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A product of random activations with a constant matrix."""

    op: Literal["Gemm", "MatMul", "MatMul to float", "dynamic"]
    rows: int = 12
    inputs: int = 65
    outputs: int = 33
    zero: int = 100
    activations: Width = "uint8"
    weights: Width = "int8"

    def product(self, random: np.random.Generator) -> tuple[Array, Array, list[tuple[Array, Array]]]:
        """Return activations, weights, and what is multiplied."""
        values = random.integers(0, 256, (self.rows, self.inputs))
        values.flat[:2] = 0, 255  # dynamic quantization then finds the same scale and zero point
        weights = integers(random, (self.inputs, self.outputs), self.weights)
        return values, weights, [(values, weights)]

    def node(self, value: Callable[[str], ir.Value]) -> ir.Node:
        """Return the float operator, or onnxruntime's dynamic one."""
        if self.op == "dynamic":
            inputs = [value(name) for name in ("x", "w", "ws", "wz")]
            return ir.node("DynamicQuantizeMatMul", inputs, domain="com.microsoft", outputs=[value("y0")])
        return ir.node(self.op.split()[0], [value("xd"), value("wd")], outputs=[value("y0")])


FORMS: dict[str, Convolution | Matrix] = {
    **{
        f"{channels} channels, {k}x{k}": Convolution(channels=channels, kernel=k)
        for channels in (3, 5, 8)
        for k in (1, 3)
    },
    "3 channels, 7x7, stride 2": Convolution(channels=3, kernel=7, stride=2),
    "dilated": Convolution(dilation=2),
    "1-D": Convolution(channels=5, kernel=5, rank=1),
    "2 groups of 3 channels": Convolution(channels=6, group=2),
    "4 groups of 8 channels": Convolution(channels=32, filters=32, group=4),
    "depthwise 3x3": Convolution(group=16),
    "depthwise 5x5, 7 channels": Convolution(channels=7, filters=7, kernel=5, group=7),
    "depthwise 7x7": Convolution(kernel=7, group=16),
    "depthwise 1-D": Convolution(kernel=5, group=16, rank=1),
    "depthwise, two filters each": Convolution(filters=32, group=16),
    "uint8 weights": Convolution(weights="uint8"),
    "int8 activations": Convolution(activations="int8"),
    "Gemm": Matrix(op="Gemm"),
    "Gemm, one row": Matrix(op="Gemm", rows=1),
    "Gemm, uint8 weights": Matrix(op="Gemm", weights="uint8"),
    "Gemm, int8 activations": Matrix(op="Gemm", activations="int8"),
    "MatMul": Matrix(op="MatMul", rows=128, inputs=384),
    "MatMul, float output": Matrix(op="MatMul to float"),
    "MatMul, dynamic": Matrix(op="dynamic"),
    "MatMul, dynamic, uint8 weights": Matrix(op="dynamic", weights="uint8"),
}


def main() -> None:
    """Run every form on both CPUs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="Haswell", help="a CPU that QEMU knows (qemu-x86_64 -cpu help)")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)  # inside QEMU
    asked = parser.parse_args()
    if asked.run:
        execute(asked.run)
        return
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        sys.exit("skipped: there is no qemu-x86_64 (Debian: apt-get install qemu-user)")
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as name:
        folder = Path(name)
        expected = {form: write(FORMS[form], folder / f"{i}.onnx", seed=i) for i, form in enumerate(FORMS)}
        execute(folder)
        here = dict(np.load(folder / "results.npz"))
        command = [qemu, "-cpu", asked.cpu, sys.executable, __file__, "--run", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{asked.cpu}: {done.stderr.strip().splitlines()[-1]}")
        there = dict(np.load(folder / "results.npz"))
        print(f"| layer | kernel | steps between exact and saturated | this CPU | {asked.cpu} |\n{'|---' * 5}|")
        for i, (form, (exact, saturated)) in enumerate(expected.items()):
            kernels = {node.op_type for node in optimized_graph(folder / f"{i}.onnx").graph} - {"QuantizeLinear"}
            cells = [verdict(found[str(i)], exact, saturated) for found in (here, there)]
            apart = np.abs(exact - saturated).max()
            named = ", ".join(sorted(kernels - {"DequantizeLinear", "Transpose"}))
            print(f"| {form} | {named} | {apart:.0f} | {' | '.join(cells)} |")


def integers(random: np.random.Generator, shape: tuple[int, ...], kind: Width) -> Array:
    """Return random weights of a type."""
    return random.integers(-127, 128, shape) if kind == "int8" else random.integers(0, 256, shape)


def write(form: Convolution | Matrix, path: Path, seed: int) -> tuple[Array, Array]:
    """Write a model of one layer and its input; return its exact and its saturated output in steps of its output."""
    values, weights, pairs = form.product(np.random.default_rng(seed))
    weight_zero = 0 if form.weights == "int8" else 128
    shift = 0 if form.activations == "uint8" else 128
    sums = []
    for clip in (False, True):
        parts = []
        for rows, matrix in pairs:
            offsets = weight_zero * rows.sum(1, keepdims=True) + form.zero * (matrix.sum(0) - weight_zero * len(matrix))
            parts.append((saturating(rows, matrix) if clip else rows @ matrix) - offsets)
        joined = np.concatenate(parts, axis=1)
        sums.append(joined.T if isinstance(form, Convolution) else joined)  # a convolution's channels come first
    step = np.abs(sums[0]).max() / 120
    scale = step * X_SCALE * W_SCALE
    whole = isinstance(form, Convolution) or form.op in ("Gemm", "MatMul")
    dynamic = isinstance(form, Matrix) and form.op == "dynamic"
    arrays = {
        "xs": np.float32(X_SCALE),
        "xz": np.asarray(form.zero - shift, form.activations),
        "w": weights.astype(form.weights),
        "ws": np.float32(W_SCALE),
        "wz": np.asarray(weight_zero, form.weights),
        "ys": np.float32(scale),
        "yz": np.asarray(128 - shift, form.activations),
    }
    known = {name: ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in arrays.items()}

    def value(name: str) -> ir.Value:
        return known.setdefault(name, ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT)))

    def node(op: str, *names: str) -> ir.Node:
        return ir.node(op, [value(name) for name in names[:-1]], outputs=[value(names[-1])])

    nodes = [form.node(value)]
    if not dynamic:
        read = [node("QuantizeLinear", "x", "xs", "xz", "xq"), node("DequantizeLinear", "xq", "xs", "xz", "xd")]
        nodes = [*read, node("DequantizeLinear", "w", "ws", "wz", "wd"), *nodes]
    if whole:
        nodes += [node("QuantizeLinear", "y0", "ys", "yz", "yq"), node("DequantizeLinear", "yq", "ys", "yz", "y")]
    value("x").shape = ir.Shape(values.shape)
    output = value("y" if whole else "y0")
    used = {each for one in nodes for each in one.inputs}
    graph = ir.Graph(
        [value("x")],
        [output],
        nodes=nodes,
        initializers=[known[name] for name in arrays if known[name] in used],
        opset_imports={"": 17, "com.microsoft": 1},
        name="layer",
    )
    for quantized in ("xq", "yq"):
        if quantized in known:
            known[quantized].type = ir.TensorType(ir.DataType.UINT8 if shift == 0 else ir.DataType.INT8)
    artifact.save(ir.Model(graph, ir_version=8), path)
    np.savez(path.with_suffix(".npz"), x=((values - form.zero) * X_SCALE).astype(np.float32), step=scale)
    exact, saturated = (np.clip(np.round(total / step), -128, 127) if whole else total / step for total in sums)
    return exact, saturated


def saturating(rows: Array, matrix: Array) -> Array:
    """Return rows @ matrix with the sum of each two products clipped to an int16."""
    if rows.shape[1] % 2:
        rows, matrix = np.pad(rows, ((0, 0), (0, 1))), np.pad(matrix, ((0, 1), (0, 0)))
    terms = rows[:, :, None] * matrix
    return np.clip(terms[:, 0::2] + terms[:, 1::2], -32768, 32767).sum(1)


def execute(folder: Path) -> None:
    """Run every model of a folder and write the outputs in steps, by number."""
    results = {}
    for path in models(folder):
        with np.load(path.with_suffix(".npz")) as given:
            (output,) = run(open_session(path), {"x": given["x"]}).values()
            results[path.stem] = output.astype(np.float64) / given["step"]
    np.savez(folder / "results.npz", **results)


def models(folder: Path) -> Iterator[Path]:
    """Yield the models of a folder."""
    return (path for path in sorted(folder.glob("*.onnx")) if path.stem.isdecimal())


def verdict(output: Array, exact: Array, saturated: Array) -> str:
    """Tell which definition an output follows, to one step of rounding."""
    apart = {"exact": exact, "saturates": saturated}
    follows = [name for name, one in apart.items() if np.abs(output.reshape(one.shape) - one).max() <= 1.01]
    return follows[0] if len(follows) == 1 else "either" if follows else "**neither**"


if __name__ == "__main__":
    main()
