"""Weights in fewer bits: the files shrink, the values stay near, and onnxruntime unfolds what it should at load."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import graphs
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress import artifact, session
from onnxpress.errors import ModelError, UsageError
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.blocks import pack, quantize_blocks
from onnxpress.quantization.quantize import quantize
from onnxpress.validation import options
from onnxpress_calibration.dataset import Dataset

matrices = hnp.arrays(np.float32, (3, 20), elements=st.floats(-100, 100, width=32))


@pytest.mark.int8
@pytest.mark.parametrize(("bits", "block"), [(8, 128), (8, 32), (4, 32), (4, 128)])
def test_products_with_the_largest_weights_are_the_same_on_every_cpu(bits: int, block: int) -> None:
    model = graphs.build("g (float[N,256] x) => (float[N,16] y) { y = MatMul(x, w) }", {"w": (256, 16)})
    model.graph.initializers["w"].const_value = ir.tensor(np.ones((256, 16), np.float32), name="w")
    made = quantize(model, QuantizeOptions(mode="weight-only", bits=bits, block_size=block)).model
    for rows in (1, 2, 64):
        x = np.random.default_rng(0).uniform(0.9, 1, (rows, 256)).astype(np.float32)
        np.testing.assert_allclose(
            session.run(session.open_session(made), {"x": x})["y"], x @ np.ones((256, 16)), rtol=0.005
        )


@given(matrices, st.sampled_from([4, 8]))
def test_blocks_come_back_within_a_step(matrix: np.ndarray, bits: int) -> None:
    integers, scales = quantize_blocks(matrix, bits, 16)
    assert integers.shape == (3, 2, 16) and not integers[:, 1, 4:].any()
    back = (integers * scales[..., None]).reshape(3, 32)[:, :20]
    # Least squares may clip, but never loses more than rounding without clipping would, in sum.
    step = np.repeat(np.abs(np.pad(matrix, ((0, 0), (0, 12))).reshape(3, 2, 16)).max(2) / 2 ** (bits - 1), 16, 1)
    assert (np.square(back - matrix).sum() <= np.square(step[:, :20]).sum() * (1 + 1e-3)).all()


def test_halves_are_packed_low_first() -> None:
    assert pack(np.array([[-8, 7, 0, 1]], np.int8), 4).tolist() == [[0xF0, 0x98]]
    assert pack(np.array([-128, 127], np.int8), 8).tolist() == [0, 255]


def table() -> ir.Model:
    return graphs.build(
        "g (int64[N,4] ids) => (float[N,4,32] y) { e = Gather(table, ids) y = MatMul(e, w) }",
        {"table": (200, 64), "w": (64, 32)},
    )


def convolutions() -> ir.Model:
    """Conv of an odd kernel, ConvTranspose and Gemm with a scaled product, which is plain once it is prepared."""
    return graphs.build(
        "g (float[N,8,6,6] x) => (float[N,48] y) { a = Conv <group=2> (x, w1, b1) r = Relu(a) "
        "d = ConvTranspose (r, w2) f = Flatten(d) y = Gemm <alpha=0.5> (f, w3) }",
        {"w1": (48, 4, 3, 3), "b1": (48,), "w2": (48, 24, 2, 2), "w3": (600, 48)},
    )


def recurrent() -> ir.Model:
    return graphs.build(
        "g (bool c, float[5,N,16] x) => (float[5,1,N,32] y) { y = If (c) <"
        "then_branch = t () => (float[5,1,N,32] p) { p, h = LSTM <hidden_size=32> (x, w, r) }, "
        "else_branch = e () => (float[5,1,N,32] q) { q, j = GRU <hidden_size=32> (x, v, u) }> }",
        {"w": (1, 128, 16), "r": (1, 128, 32), "v": (1, 96, 16), "u": (1, 96, 32)},
    )


def gemm() -> ir.Model:
    return graphs.build(
        "g (float[N,40] x) => (float[N,32] y) { a = Gemm <transB=1> (x, w1, b1) b = Relu(a) y = MatMul(b, w2) }",
        {"w1": (64, 40), "b1": (64,), "w2": (64, 32)},
    )


def first_product() -> ir.Model:
    """A dense layer first, a convolution behind: the generator of a GAN."""
    return graphs.build(
        "g (float[N,32] x) => (float[N,16,4,4] y) <int64[4] s = {-1, 32, 4, 4}> { a = Gemm(x, w1, b1) r = Relu(a) "
        "c = Reshape(r, s) y = Conv <pads=[1,1,1,1]> (c, w2) }",
        {"w1": (32, 512), "b1": (512,), "w2": (16, 32, 3, 3)},
    )


def first_table() -> ir.Model:
    return graphs.build(
        "g (int64[N,9] ids) => (float[N,32,9] y) { e = Gather(table, ids) t = Transpose <perm=[0,2,1]> (e) "
        "y = Conv <pads=[1,1]> (t, w) }",
        {"table": (200, 64), "w": (32, 64, 3)},
    )


def first_of_many() -> ir.Model:
    """A dense layer before an LSTM, a ConvTranspose and the bodies of an If."""
    return graphs.build(
        "g (bool c, float[7,2,40] x) => (float[1,64,32] y) { a = MatMul(x, w) h, l = LSTM <hidden_size=32> (a, wl, rl) "
        "t = ConvTranspose(l, wt) m = MatMul(t, wm) "
        "y = If (c) <then_branch = t () => (float[1,64,32] p) { p = MatMul(m, v) }, "
        "else_branch = e () => (float[1,64,32] q) { q = Conv(m, k) }> }",
        {"w": (40, 64), "wl": (1, 128, 64), "rl": (1, 128, 32), "wt": (2, 64, 9), "wm": (40, 32), "v": (32, 32)}
        | {"k": (64, 64, 1)},
    )


def one_weight_in_every_form() -> ir.Model:
    """A weight that a table, a product, a product of its transpose and a scaled product read."""
    return graphs.build(
        "g (int64[N] ids) => (float[N,64] y) { e = Gather(w, ids) a = MatMul(e, w) b = Gemm <transB=1> (a, w) "
        "y = Gemm <alpha=0.5> (b, w) }",
        {"w": (64, 64)},
    )


def other_products() -> ir.Model:
    """An Einsum with a matrix for each head, a DeformConv, and a weight on the left."""
    return graphs.build(
        "g (float[N,8,12,16] x, float[N,18,12,16] o) => (float[N,16,12,16] y) { "
        'e = Einsum <equation="bhsd,hde->bhse"> (x, w1) d = DeformConv <pads=[1,1,1,1]> (e, w2, o) y = MatMul(w3, d) }',
        {"w1": (8, 16, 16), "w2": (16, 8, 3, 3), "w3": (16, 12, 12)},
        opset=22,
    )


def feeds(model: ir.Model) -> dict[str, np.ndarray]:
    random, found = np.random.default_rng(3), {}
    for value in model.graph.inputs:
        shape = [3 if size == "N" else int(size) for size in value.shape or ()]  # type: ignore[call-overload]
        if value.dtype == ir.DataType.FLOAT:
            found[value.name or ""] = random.normal(size=shape).astype(np.float32)
        elif value.dtype == ir.DataType.INT64:
            found[value.name or ""] = random.integers(0, 64, shape)
        else:
            found[value.name or ""] = np.array(True)
    return found


@pytest.mark.parametrize(("bits", "decibels"), [(8, 35), (4, 12)])
@pytest.mark.parametrize("build", [table, convolutions, recurrent, gemm])
def test_every_network_gets_smaller_and_stays_near(
    build: Callable[[], ir.Model], bits: int, decibels: float, tmp_path: Path
) -> None:
    model = build()
    before = ir.to_proto(model).SerializeToString()
    edit = quantize(model, QuantizeOptions(mode="weight-only", bits=bits))
    assert ir.to_proto(model).SerializeToString() == before
    sizes = [artifact.save(each, tmp_path / f"{i}.onnx").size_bytes for i, each in enumerate((model, edit.model))]
    assert sizes[1] < sizes[0] * (0.38 if bits == 8 else 0.3)  # names and small tensors weigh something, too
    floats = [value for value in edit.model.graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
    assert all(value.const_value is None or value.const_value.size < 1024 for value in floats)
    assert fidelity_db(model, edit.model) > decibels


def fidelity_db(model: ir.Model, made: ir.Model) -> float:
    """Return the signal-to-noise ratio of the first output, the worse one where there are two branches."""
    ratios = []
    for branch in (True, False) if "c" in feeds(model) else (None,):
        given_ = feeds(model) | ({} if branch is None else {"c": np.array(branch)})
        expected, found = (
            next(iter(session.run(session.open_session(each), given_).values())) for each in (model, made)
        )
        ratios.append(10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()))
    return float(min(ratios))


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(("bits", "decibels"), [(8, 30), (4, 6)])
@pytest.mark.parametrize("build", [first_product, first_table, first_of_many, one_weight_in_every_form, other_products])
def test_a_layer_may_stand_anywhere(
    build: Callable[[], ir.Model], bits: int, decibels: float, calibrated: bool
) -> None:
    model = build()
    data = Dataset(origin="d", read=lambda: [feeds(model)]) if calibrated else None
    made = quantize(model, QuantizeOptions(mode="weight-only", bits=bits, verify=False), data)
    assert not made.skipped and fidelity_db(model, made.model) > decibels


def _correlated(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Samples whose values vary together, as those of real models do."""
    random, size = np.random.default_rng(seed), int(np.prod(shape[1:]))
    few = random.normal(size=(shape[0], 6)) @ np.random.default_rng(9).normal(size=(6, size))
    return (few + 0.1 * random.normal(size=few.shape)).reshape(shape).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("build", "shape"), [(gemm, (64, 40)), (convolutions, (64, 8, 6, 6))], ids=["products", "convolutions"]
)
def test_with_data_the_same_scales_serve_the_output(
    build: Callable[[], ir.Model], shape: tuple[int, ...], bits: int
) -> None:
    model, x = build(), _correlated(shape)
    data, held_out = Dataset(origin="d", read=lambda: [{"x": x}]), {"x": _correlated(shape, seed=1)}
    expected = session.run(session.open_session(model), held_out)["y"]
    noise, scales = {}, {}
    for how in ("nearest", "reconstruct"):
        given_ = {"mode": "weight-only", "bits": bits, "rounding": how, "verify": False}
        made = quantize(model, QuantizeOptions.model_validate(given_), data)
        noise[how] = np.square(session.run(session.open_session(made.model), held_out)["y"] - expected).sum()
        stored = [v for v in made.model.graph.initializers.values() if f"_s{bits}" in (v.name or "")]
        scales[how] = {v.name: v.const_value.numpy().tobytes() for v in stored if v.const_value is not None}
        assert made.facts.get("reconstructed_weights", 0) == (made.facts["weights"] if how == "reconstruct" else 0)
    assert scales["nearest"] == scales["reconstruct"] and noise["reconstruct"] < 0.7 * noise["nearest"]


def test_bodies_are_rounded_to_nearest_beside_data() -> None:
    x = _correlated((6, 5, 1, 16))
    data = Dataset(origin="d", read=lambda: [{"x": x[i], "c": np.array(i % 2 == 0)} for i in range(6)])
    made = quantize(recurrent(), QuantizeOptions(mode="weight-only", verify=False), data)
    assert made.facts["reconstructed_weights"] == 0 and made.facts["weights"] == 2


@pytest.mark.parametrize("bits", [8, 4])
def test_convolutions_run_as_before(bits: int, tmp_path: Path) -> None:
    model = convolutions()
    running = []
    for index, each in enumerate((model, quantize(model, QuantizeOptions(mode="weight-only", bits=bits)).model)):
        path = artifact.save(each, tmp_path / f"{index}.onnx").path
        products = ("Gemm", "MatMulNBits")
        optimized = session.optimized_graph(path).graph
        running.append(Counter(node.op_type for node in optimized if node.op_type not in products))
    assert running[0] == running[1]


@pytest.mark.parametrize("bits", [8, 4])
def test_products_and_tables_keep_their_integers(bits: int) -> None:
    made = quantize(table(), QuantizeOptions(mode="weight-only", bits=bits)).model
    operators = Counter(node.op_type for node in made.graph)
    expected = {"Gather": 1, "DequantizeLinear": 1} if bits == 8 else {"GatherBlockQuantized": 1}
    assert operators == expected | {"MatMulNBits": 1}


def test_a_tied_weight_is_stored_once_and_an_excluded_reader_keeps_it_float() -> None:
    model = graphs.build(
        "g (float[N,48] x) => (float[N,48] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }", {"w": (48, 48)}
    )
    made = quantize(model, QuantizeOptions(mode="weight-only")).model
    assert sum(value.dtype == ir.DataType.UINT8 for value in made.graph.initializers.values()) == 1
    first, second = (node.name or "" for node in model.graph if node.op_type == "MatMul")
    with pytest.raises(ModelError, match=f"also that of {second}, which is excluded"):
        quantize(model, QuantizeOptions(mode="weight-only", exclude=f"^{second}$"))
    assert first != second


@pytest.mark.parametrize(
    ("values", "message"), [({"bits": 6}, "stores 8 or 4 bits, not 6"), ({"block_size": 48}, "power of two, not 48")]
)
def test_what_cannot_be_stored_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options(QuantizeOptions, {"mode": "weight-only", **values})
