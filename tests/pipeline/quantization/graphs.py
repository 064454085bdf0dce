"""Small float graphs with seeded weights, one topology each."""

from collections.abc import Mapping

import numpy as np
import onnx.parser
import onnx_ir as ir
from onnx_ir.passes import common

from onnxpress_calibration.dataset import Dataset


def build(text: str, weights: Mapping[str, tuple[int, ...]], seed: int = 0, opset: int = 17) -> ir.Model:
    """Parse the body of a graph and add float initializers of the given shapes."""
    header = f'<ir_version: {8 if opset < 19 else 10}, opset_import: ["": {opset}]>'
    model = ir.from_proto(onnx.parser.parse_model(f"{header} {text}"))
    random = np.random.default_rng(seed)
    for name, shape in weights.items():
        array = random.normal(size=shape, scale=0.5).astype(np.float32)
        value = next(v for node in model.graph.all_nodes() for v in node.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.dtype = ir.Shape(shape), ir.DataType.FLOAT
        model.graph.register_initializer(value)
    common.NameFixPass()(model)
    common.ShapeInferencePass()(model)
    return model


def normal(shape: tuple[int, ...], seed: int = 1, name: str = "x") -> Dataset:
    """Return standard normal samples; ``shape`` counts the samples first."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Dataset(origin="normal", read=lambda: [{name: values}])


def conv_chain() -> ir.Model:
    return build(
        "g (float[N,3,8,8] x) => (float[N,5] y) { a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) "
        "p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r) c = Conv (p, w2, b2) d = Relu(c) "
        "g = GlobalAveragePool(d) f = Flatten(g) y = Gemm <transB=1> (f, w3, b3) }",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (16, 8, 3, 3), "b2": (16,), "w3": (5, 16), "b3": (5,)},
    )


def residual() -> ir.Model:
    return build(
        "g (float[N,8,6,6] x) => (float[N,8,6,6] y) { a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) "
        "c = Conv <pads=[1,1,1,1]> (r, w2, b2) s = Add(c, x) t = Relu(s) y = Conv(t, w3, b3) }",
        {"w1": (8, 8, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 8, 1, 1), "b3": (8,)},
    )


def concat() -> ir.Model:
    return build(
        "g (float[N,4,6,6] x) => (float[N,6,6,6] y) { a = Conv(x, w1) b = Conv(x, w2) c = Concat <axis=1> (a, b) "
        "s = Sigmoid(c) m = Mul(c, s) y = Conv(m, w3) }",
        {"w1": (4, 4, 1, 1), "w2": (4, 4, 1, 1), "w3": (6, 8, 1, 1)},
    )


def attention() -> ir.Model:
    """One head with an additive mask of -10000, as exported transformers have it."""
    return build(
        "g (float[N,6,16] x, float[N,6] keep) => (float[N,6,16] y) <float one = {1}, float far = {-10000}, "
        "int64[1] ax = {1}> { q = MatMul(x, wq) qb = Add(q, bq) k = MatMul(x, wk) kt = Transpose <perm=[0,2,1]> (k) "
        "s = MatMul(qb, kt) d = Sub(one, keep) m = Mul(d, far) mu = Unsqueeze(m, ax) sm = Add(s, mu) "
        "p = Softmax <axis=-1> (sm) v = MatMul(x, wv) o = MatMul(p, v) h = Add(o, x) y = MatMul(h, wo) }",
        {"wq": (16, 16), "bq": (16,), "wk": (16, 16), "wv": (16, 16), "wo": (16, 16)},
    )


def embedding() -> ir.Model:
    return build(
        "g (int64[N,4] ids) => (float[N,4,8] y) { e = Gather(table, ids) y = MatMul(e, w) }",
        {"table": (200, 16), "w": (16, 8)},
    )


def dense() -> ir.Model:
    """A feed-forward block of a transformer."""
    return build(
        "g (float[N,5,16] x) => (float[N,5,16] y) { a = MatMul(x, w1) b = Add(a, b1) r = Relu(b) y = MatMul(r, w2) }",
        {"w1": (16, 32), "b1": (32,), "w2": (32, 16)},
    )


def dense_classifier() -> ir.Model:
    return build(
        "g (float[N,16] x) => (float[N,5] y) { a = MatMul(x, w1) b = Add(a, b1) r = Relu(b) y = MatMul(r, w2) }",
        {"w1": (16, 32), "b1": (32,), "w2": (32, 5)},
    )
