from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]

SLOW_FIXTURES = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parameters(rng: np.random.Generator, channels: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {
        "gamma": rng.normal(1, 0.5, channels).astype(dtype),
        "beta": rng.normal(size=channels).astype(dtype),
        "mean": rng.normal(size=channels).astype(dtype),
        "var": rng.uniform(0.1, 2, channels).astype(dtype),
    }


def same(
    run: Run,
    before: ir.Model,
    after: ir.Model,
    feeds: dict[str, np.ndarray],
    rtol: float = 1e-4,
) -> None:
    for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-5)


@SLOW_FIXTURES
@given(
    groups=st.integers(1, 3),
    inputs=st.integers(1, 2),
    outputs=st.integers(1, 3),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_convolutions(
    build: Build,
    run: Run,
    ops: Ops,
    op: str,
    groups: int,
    inputs: int,
    outputs: int,
    bias: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    channels = groups * outputs
    shape = (channels, inputs, 3, 2) if op == "Conv" else (groups * inputs, outputs, 3, 2)
    arrays = {"w": rng.normal(size=shape).astype(np.float32), **parameters(rng, channels)}
    if bias:
        arrays["b"] = rng.normal(size=channels).astype(np.float32)
    model = build(
        f"""g (float[N,{groups * inputs},5,5] x) => (float[N,{channels},P,Q] y) {{
            z = {op}<group={groups}>(x, w{", b" if bias else ""})
            y = BatchNormalization<epsilon=0.01>(z, gamma, beta, mean, var)
        }}""",
        arrays,
    )
    edit = prepare(model)
    assert ops(edit.model) == {op: 1}
    assert edit.skipped == ()
    same(run, model, edit.model, {"x": rng.normal(size=(2, groups * inputs, 5, 5)).astype(np.float32)})


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (4,), (1, 4), (1,)])
def test_gemm(
    build: Build,
    run: Run,
    ops: Ops,
    rng: np.random.Generator,
    transposed: int,
    bias: bool,
) -> None:
    arrays = {"w": rng.normal(size=(4, 3) if transposed else (3, 4)).astype(np.float32), **parameters(rng, 4)}
    if bias is not None:
        arrays["b"] = rng.normal(size=bias).astype(np.float32)
    model = build(
        f"""g (float[N,3] x) => (float[N,4] y) {{
            z = Gemm<alpha=0.5, beta=2.0, transB={transposed}>(x, w{"" if bias is None else ", b"})
            y = BatchNormalization(z, gamma, beta, mean, var)
        }}""",
        arrays,
    )
    edit = prepare(model)
    assert ops(edit.model) == {"Gemm": 1}
    same(run, model, edit.model, {"x": rng.normal(size=(5, 3)).astype(np.float32)})


@pytest.mark.parametrize("add", ["", "z = Add(m, b)", "z = Add(b, m)"])
def test_matmul(
    build: Build,
    run: Run,
    ops: Ops,
    rng: np.random.Generator,
    add: str,
) -> None:
    arrays = {"w": rng.normal(size=(3, 4)).astype(np.float32), **parameters(rng, 4)}
    if add:
        arrays["b"] = rng.normal(size=4).astype(np.float32)
    model = build(
        f"""g (float[N,3] x) => (float[N,4] y) {{
            m = MatMul(x, w)
            {add}
            y = BatchNormalization({"z" if add else "m"}, gamma, beta, mean, var)
        }}""",
        arrays,
    )
    edit = prepare(model)
    assert ops(edit.model) == {"MatMul": 1, "Add": 1}
    assert [value.name for value in edit.model.graph.outputs] == ["y"]
    same(run, model, edit.model, {"x": rng.normal(size=(5, 3)).astype(np.float32)})


def test_half_precision_is_folded_in_double(build: Build, rng: np.random.Generator) -> None:
    arrays = {"w": rng.normal(size=(2, 2, 1, 1)).astype(np.float16), **parameters(rng, 2, np.float16)}
    model = build(
        """g (float16[N,2,3,3] x) => (float16[N,2,3,3] y) {
            z = Conv(x, w)
            y = BatchNormalization(z, gamma, beta, mean, var)
        }""",
        arrays,
    )
    after = prepare(model).model
    scale = arrays["gamma"].astype(float) / np.sqrt(arrays["var"].astype(float) + np.float32(1e-5))
    expected = (arrays["w"].astype(float) * scale[:, None, None, None]).astype(np.float16)
    np.testing.assert_array_equal(after.graph.initializers["w"].const_value.numpy(), expected)


def conv(rng: np.random.Generator, middle: str, extra_output: str = "") -> tuple[str, dict[str, np.ndarray]]:
    arrays = {"w": rng.normal(size=(2, 2, 1, 1)).astype(np.float32), **parameters(rng, 2)}
    return (
        f"""g (float[N,2,3,3] x) => (float[N,2,3,3] y{extra_output}) {{
            z = Conv(x, w)
            {middle}
        }}""",
        arrays,
    )


BN = "BatchNormalization(z, gamma, beta, mean, var)"


@pytest.mark.parametrize(
    ("middle", "outputs", "reason"),
    [
        (f"y = {BN}", ", float[N,2,3,3] z", "the value before it, z, is a graph output"),
        (f"a = {BN} y = Add(a, z)", "", "the value before it, z, has other consumers"),
        (
            f"a = {BN} h = Relu(x) b = Conv(h, w) y = Add(a, b)",
            "",
            "the weight before it, w, is shared with other nodes",
        ),
        ("a = Relu(z) y = BatchNormalization(a, gamma, beta, mean, var)", "", "it does not follow"),
    ],
)
def test_refusals(
    build: Build,
    run: Run,
    ops: Ops,
    rng: np.random.Generator,
    middle: str,
    outputs: str,
    reason: str,
) -> None:
    model = build(*conv(rng, middle, outputs))
    edit = prepare(model)
    assert [skip.reason for skip in edit.skipped if reason in skip.reason]
    assert ops(edit.model)["BatchNormalization"] == 1
    same(run, model, edit.model, {"x": rng.normal(size=(1, 2, 3, 3)).astype(np.float32)})


def test_computed_parameters(build: Build, rng: np.random.Generator) -> None:
    text, arrays = conv(rng, "v = Abs(var) y = BatchNormalization(z, gamma, beta, mean, v)")
    del arrays["var"]
    model = build(text.replace("x)", "x, float[2] var)", 1), arrays)
    assert [skip.reason for skip in prepare(model).skipped] == ["its parameters are computed at run time"]


def test_computed_weight_and_bias(build: Build, rng: np.random.Generator) -> None:
    text, arrays = conv(rng, f"y = {BN}")
    weight = build(text.replace("x)", "x, float[2,2,1,1] v)", 1).replace("Conv(x, w)", "Conv(x, v)"), arrays)
    assert [skip.reason for skip in prepare(weight).skipped] == ["the weight before it, v, is computed at run time"]
    bias = build(text.replace("x)", "x, float[2] b)", 1).replace("Conv(x, w)", "Conv(x, w, b)"), arrays)
    assert [skip.reason for skip in prepare(bias).skipped] == ["the bias before it, b, is computed at run time"]


def test_numbers_that_cannot_be_folded(build: Build, rng: np.random.Generator) -> None:
    text, arrays = conv(rng, f"y = {BN}")
    model = build(text, arrays | {"var": np.array([1, -1], np.float32)})
    assert "not finite" in prepare(model).skipped[0].reason


def test_training_mode(build: Build, rng: np.random.Generator) -> None:
    text, arrays = conv(rng, "y, m, v = BatchNormalization<training_mode=1>(z, gamma, beta, mean, var)")
    assert [skip.reason for skip in prepare(build(text, arrays)).skipped] == ["it is in training mode"]


def test_channels_that_are_not_columns(build: Build, run: Run, rng: np.random.Generator) -> None:
    arrays = {"w": rng.normal(size=(3, 4)).astype(np.float32), **parameters(rng, 5)}
    model = build(
        """g (float[N,5,3] x) => (float[N,5,4] y) {
            m = MatMul(x, w)
            y = BatchNormalization(m, gamma, beta, mean, var)
        }""",
        arrays,
    )
    edit = prepare(model)
    assert "not the columns" in edit.skipped[0].reason
    same(run, model, edit.model, {"x": rng.normal(size=(2, 5, 3)).astype(np.float32)})


def test_gemm_bias_per_row(build: Build, rng: np.random.Generator) -> None:
    arrays = {"w": rng.normal(size=(3, 4)).astype(np.float32), "b": np.ones((2, 4), np.float32), **parameters(rng, 4)}
    model = build(
        """g (float[2,3] x) => (float[2,4] y) {
            z = Gemm(x, w, b)
            y = BatchNormalization(z, gamma, beta, mean, var)
        }""",
        arrays,
    )
    assert "not one number per channel" in prepare(model).skipped[0].reason


def test_inside_a_branch(
    build: Build,
    run: Run,
    ops: Ops,
    rng: np.random.Generator,
) -> None:
    arrays = {"w": rng.normal(size=(2, 2, 1, 1)).astype(np.float32), **parameters(rng, 2)}
    model = build(
        """g (bool c, float[N,2,3,3] x) => (float[N,2,3,3] y) {
            y = If(c) <
                then_branch = t () => (float[N,2,3,3] p) {
                    z = Conv(x, w)
                    p = BatchNormalization(z, gamma, beta, mean, var)
                },
                else_branch = e () => (float[N,2,3,3] q) { q = Relu(x) }
            >
        }""",
        arrays,
    )
    after = prepare(model).model
    assert ops(after) == {"If": 1, "Conv": 1, "Relu": 1}
    onnx.checker.check_model(ir.to_proto(after))
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": rng.normal(size=(1, 2, 3, 3)).astype(np.float32)}
        same(run, model, after, feeds)


def test_the_given_model_keeps_its_weights(build: Build, rng: np.random.Generator) -> None:
    model = build(*conv(rng, f"y = {BN}"))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    prepare(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
