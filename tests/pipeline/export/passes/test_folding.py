from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import artifact
from onnxpress.export.passes import folding
from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]


def test_constants_are_computed(
    build: Build,
    run: Run,
    ops: Ops,
    rng: np.random.Generator,
) -> None:
    model = build(
        """g (float[N,3] x) => (float[N,2] y) {
            t = Transpose<perm=[1,0]>(w)
            two = Constant<value_float=2.0>()
            s = Mul(t, two)
            y = MatMul(x, s)
        }""",
        {"w": rng.normal(size=(2, 3)).astype(np.float32)},
    )
    after = prepare(model).model
    assert ops(after) == {"MatMul": 1}
    feeds = {"x": rng.normal(size=(4, 3)).astype(np.float32)}
    np.testing.assert_array_equal(run(after, feeds)[0], run(model, feeds)[0])


def test_fixed_axes_are_constants(
    build: Build,
    run: Run,
    ops: Ops,
    rng: np.random.Generator,
) -> None:
    model = build(
        """g (float[N,3,4] x) => (float[N,12] y, int64[1] n, int64 size) {
            s = Shape(x)
            last = Constant<value_ints=[1,2]>()
            sizes = Gather(s, last)
            flat = ReduceProd<keepdims=1>(sizes)
            all = Constant<value_ints=[-1]>()
            shape = Concat<axis=0>(all, flat)
            y = Reshape(x, shape)
            n0 = Shape<start=0, end=1>(x)
            n = Identity(n0)
            row = Gather(x, zero)
            size0 = Size(row)
            size = Identity(size0)
        }""",
        {"zero": np.array([0])},
    )
    after = prepare(model).model
    assert ops(after) == {"Reshape": 1, "Shape": 1, "Identity": 1}, "the batch axis is open, the others are not"
    feeds = {"x": rng.normal(size=(5, 3, 4)).astype(np.float32)}
    for found, expected in zip(run(after, feeds), run(model, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("index", ["3", "-4", "0"])
def test_an_axis_that_is_open_or_not_there_stays(build: Build, ops: Ops, index: str) -> None:
    model = build(
        f"""g (float[N,3,4] x) => (int64 y) {{
            s = Shape(x)
            i = Constant<value_int={index}>()
            z = Gather(s, i)
            y = Neg(z)
        }}"""
    )
    assert ops(prepare(model).model) == {"Shape": 1, "Gather": 1, "Neg": 1}


def test_a_large_result_is_not_stored(build: Build, ops: Ops) -> None:
    model = build(
        """g (float[N,1000] x) => (float[N,1000] y) {
            small = Constant<value_ints=[10,1000]>()
            large = Constant<value_ints=[1000,1000]>()
            a = ConstantOfShape(small)
            b = ConstantOfShape(large)
            c = ReduceMax<keepdims=0>(b)
            d = ReduceMax<keepdims=0>(a)
            e = Add(x, c)
            y = Add(e, d)
        }"""
    )
    after = prepare(model).model
    assert ops(after)["ConstantOfShape"] == 1
    assert sum(value.const_value.nbytes for value in after.graph.initializers.values()) < folding.LIMIT_BYTES


def test_random_and_quantized_nodes_stay(build: Build, ops: Ops) -> None:
    model = build(
        """g (float[N,2] x) => (float[N,2] y) {
            w = DequantizeLinear(q, s, z)
            r = RandomUniformLike(w)
            m = MatMul(x, w)
            y = MatMul(m, r)
        }""",
        {"q": np.ones((2, 2), np.int8), "s": np.array(0.5, np.float32), "z": np.array(0, np.int8)},
    )
    assert ops(prepare(model).model) == {"DequantizeLinear": 1, "RandomUniformLike": 1, "MatMul": 2}


def test_a_shape_that_depends_on_values(build: Build, run: Run, ops: Ops) -> None:
    model = build(
        """g (float[N] x) => (float[M] y) {
            i = NonZero(mask)
            axis = Constant<value_ints=[0]>()
            flat = Squeeze(i, axis)
            y = Gather(x, flat)
        }""",
        {"mask": np.array([1, 0, 1, 1], np.float32)},
    )
    after = prepare(model).model
    assert ops(after) == {"Gather": 1}
    np.testing.assert_array_equal(run(after, {"x": np.arange(4, dtype=np.float32)})[0], [0, 2, 3])


def test_what_cannot_be_computed_stays(build: Build, ops: Ops, caplog: pytest.LogCaptureFixture) -> None:
    """A Gather outside its data: the runtime's error to report, not ours to raise."""
    model = build(
        "g (float[N] x) => (float[N] y) { g = Gather(d, i)  y = Add(x, g) }",
        {"d": np.ones(2, np.float32), "i": np.array(7)},
    )
    with caplog.at_level("INFO"):
        assert ops(prepare(model).model) == {"Gather": 1, "Add": 1}
    assert "cannot be computed" in caplog.text


def test_large_weights_are_moved_when_they_are_read(
    build: Build, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(folding, "LAZY_BYTES", 8)
    weight = rng.normal(size=(2, 3)).astype(np.float32)
    model = build(
        "g (float[N,3] x) => (float[N,2] y) { t = Transpose<perm=[1,0]>(w)  y = MatMul(x, t) }", {"w": weight}
    )
    after = prepare(model).model
    tensor = after.graph.initializers["t"].const_value
    assert isinstance(tensor, ir.LazyTensor)
    np.testing.assert_array_equal(tensor.numpy(), weight.T)


def test_a_constant_that_doubles_again_and_again_is_not_computed(build: Build, ops: Ops) -> None:
    doubled = "\n".join(f"k{number + 1} = Concat<axis=0>(k{number}, k{number})" for number in range(30))
    model = build(
        f"g (float[1,4] x) => (float[1,4] y) {{ {doubled} z = ReduceMax<axes=[0]>(k30) y = Add(x, z) }}",
        {"k0": np.ones((1, 4), np.float32)},
    )
    after = prepare(model).model
    assert ops(after)["Concat"] > 10
    assert sum(tensor.nbytes for tensor in artifact.tensors(after)) < 4 * folding.LIMIT_BYTES
