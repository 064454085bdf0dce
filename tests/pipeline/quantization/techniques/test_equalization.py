"""Equalization: the float model stays what it was, channels that differ stop costing bits, and where chains end."""

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import session
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.techniques.equalization import equalize
from onnxpress.quantization.techniques.scaling import Scaling
from onnxpress_calibration.dataset import Dataset

OPTIONS = QuantizeOptions(bias_correction=False, verify=False)


def spread(model: ir.Model, *names: str) -> ir.Model:
    """Make the output channels of some convolutions differ by up to a thousand."""
    for name in names:
        value = model.graph.initializers[name]
        array = value.const_value.numpy()  # type: ignore[union-attr]
        factors = np.logspace(-3, 0, len(array), dtype=np.float32).reshape(-1, *[1] * (array.ndim - 1))
        value.const_value = ir.tensor(array * factors, name=name)
    return model


def run(model: ir.Model, data: Dataset) -> np.ndarray:
    feeds = dict(next(iter(data.read())))
    return next(iter(session.run(session.open_session(model), feeds).values()))


def sqnr_db(expected: np.ndarray, given: np.ndarray) -> float:
    noise = max(float(np.square(expected - given).sum()), 1e-30)
    return float(10 * np.log10(np.square(expected).sum() / noise))


def depthwise() -> ir.Model:
    return graphs.build(
        "g (float[N,3,8,8] x) => (float[N,4,8,8] y) { a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) "
        "d = Conv <group=8, pads=[1,1,1,1]> (r, w2, b2) y = Conv(d, w3, b3) }",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (4, 8, 1, 1), "b3": (4,)},
    )


def test_a_depthwise_layer_gets_its_bits_back() -> None:
    model = spread(depthwise(), "w1", "b1")
    weight = model.graph.initializers["w2"]
    inverse = np.logspace(3, 0, 8, dtype=np.float32).reshape(8, 1, 1, 1)  # so that every channel matters
    weight.const_value = ir.tensor(weight.const_value.numpy() * inverse, name="w2")  # type: ignore[union-attr]
    data = graphs.normal((32, 3, 8, 8))
    expected = run(model, data)
    equal = equalize(model, OPTIONS, data)
    assert "r" in equal.changed
    assert sqnr_db(expected, run(equal.model, data)) > 100
    with_it, without = (
        sqnr_db(expected, run(quantize(model, OPTIONS.model_copy(update={"equalize": on}), data).model, data))
        for on in (True, False)
    )
    assert with_it > without + 10


@pytest.mark.parametrize(
    ("build", "shape", "names"),
    [
        (graphs.conv_chain, (16, 3, 8, 8), ("w1", "w2")),
        (graphs.residual, (16, 8, 6, 6), ("w1", "w2")),
        (graphs.concat, (16, 4, 6, 6), ("w1", "w2")),
        (depthwise, (16, 3, 8, 8), ("w1", "w2")),
    ],
)
def test_the_float_model_computes_what_it_did(build: object, shape: tuple[int, ...], names: tuple[str, ...]) -> None:
    model = spread(build(), *names)  # type: ignore[operator]
    before = ir.to_proto(model).SerializeToString()
    data = graphs.normal(shape)
    equal = equalize(model, OPTIONS, data)
    assert sqnr_db(run(model, data), run(equal.model, data)) > 100
    assert ir.to_proto(model).SerializeToString() == before


def movements() -> ir.Model:
    """A channel shuffle, as ShuffleNet has it, pooling, padding and a constant that is added."""
    return graphs.build(
        "g (float[1,3,8,8] x) => (float[1,4,1,1] y) <int64[5] split = {1,2,4,8,8}, int64[4] whole = {1,8,8,8}, "
        "int64[8] pads = {0,0,1,1,0,0,1,1}> { a = Conv <pads=[1,1,1,1]> (x, w1) "
        "s = Reshape(a, split) t = Transpose <perm=[0,2,1,3,4]> (s) u = Reshape(t, whole) p = Pad(u, pads) "
        "q = Add(p, c) m = AveragePool <kernel_shape=[2,2]> (q) r = Relu(m) g = GlobalAveragePool(r) y = Conv(g, w2) }",
        {"w1": (8, 3, 3, 3), "c": (8, 1, 1), "w2": (4, 8, 1, 1)},
    )


def test_scales_follow_channels_that_move() -> None:
    model, data = movements(), graphs.normal((1, 3, 8, 8))
    layout = Scaling(copy := model.clone())
    free = np.setdiff1d(np.arange(layout.channels.count), list(layout.fixed))
    scales = np.ones(layout.channels.count)
    scales[free] = np.random.default_rng(0).uniform(0.1, 10, len(free))
    layout.apply(copy, scales[layout.channels.roots(np.arange(len(scales)))])
    assert not np.allclose(
        copy.graph.initializers["w1"].const_value.numpy(), model.graph.initializers["w1"].const_value.numpy()
    )  # type: ignore[union-attr]
    assert sqnr_db(run(model, data), run(copy, data)) > 100


@pytest.mark.parametrize(
    ("between", "why"),
    [
        ("r = Sigmoid(a)", "not homogeneous"),
        ("r = Clip(a, lo, hi)", "the bound of Relu6 would move with the channel"),
        ("r = Mul(a, a)", "a square scales twice"),
        ("n = Add(a, one) r = Relu(n)", "one value for all channels"),
    ],
)
def test_a_chain_ends_at_what_is_not_homogeneous(between: str, why: str) -> None:
    model = graphs.build(
        "g (float[N,3,6,6] x) => (float[N,4,6,6] y) <float lo = {0}, float hi = {6}, float one = {1}> "
        f"{{ a = Conv(x, w1) {between} y = Conv(r, w2) }}",
        {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1)},
    )
    layout = Scaling(model)
    (weighted, _) = layout.makers
    assert layout.fixed.issuperset(layout.channels.roots(weighted.numbers).tolist()), why


def test_a_layer_norm_makes_channels_and_a_shared_weight_does_not() -> None:
    norm = graphs.build(
        "g (float[N,4,16] x) => (float[N,4,8] y) { n = LayerNormalization <axis=-1> (x, s, b) y = MatMul(n, w) }",
        {"s": (16,), "b": (16,), "w": (16, 8)},
    )
    assert len(equalize(norm, OPTIONS, graphs.normal((8, 4, 16))).changed) <= 1
    assert [maker.node.op_type for maker in Scaling(norm).makers] == ["LayerNormalization", "MatMul"]
    tied = graphs.build(
        "g (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }", {"w": (8, 8)}
    )
    assert Scaling(tied).makers == []


def test_the_order_of_more_samples_than_are_used_changes_nothing() -> None:
    values = np.random.default_rng(3).normal(size=(80, 8, 6, 6)).astype(np.float32)
    forth, back = (Dataset(origin="a", read=lambda v=v: [{"x": v}]) for v in (values, values[::-1].copy()))  # type: ignore[misc]
    made = [ir.to_proto(quantize(graphs.residual(), QuantizeOptions(), data).model) for data in (forth, back)]
    assert made[0].SerializeToString() == made[1].SerializeToString()
