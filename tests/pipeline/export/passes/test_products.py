from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]
Ops = Callable[[ir.Model], dict[str, int]]

SLOW_FIXTURES = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6, "f": 7}


def einsum(build: Build, equation: str, x: list[int], weight: np.ndarray, at: int, known: bool = True) -> ir.Model:
    names = ["x", "w"] if at else ["w", "x"]
    shape = ",".join(map(str, x)) if known else ",".join("N" if i == 0 else str(n) for i, n in enumerate(x))
    text = f'g (float[{shape}] x) => (float y) {{ y = Einsum<equation="{equation}">({names[0]}, {names[1]}) }}'
    return build(text, {"w": weight})


def same(run: Run, before: ir.Model, after: ir.Model, feeds: dict[str, np.ndarray]) -> None:
    for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[int], list[int], int]:
    """Letters that only the value has, only the weight has, or both and the result has not, in any order."""
    kept, made, summed = (
        "abc"[: draw(st.integers(0, 3))],
        "de"[: draw(st.integers(0, 2))],
        draw(st.sampled_from(["f", "fc"])),
    )
    kept = kept.replace("c", "") if "c" in summed else kept
    own, weight, result = ("".join(draw(st.permutations(text))) for text in (kept + summed, made + summed, kept + made))
    at = draw(st.integers(0, 1))
    operands = (own, weight) if at else (weight, own)
    sizes = [[SIZES[letter] for letter in text] for text in (own, weight)]
    return f"{operands[0]}, {operands[1]} -> {result}", *sizes, at


@SLOW_FIXTURES
@given(equation=equations(), known=st.booleans(), seed=st.integers(0, 99))
def test_every_einsum_that_is_a_product_with_a_matrix_becomes_one(
    build: Build, run: Run, ops: Ops, equation: tuple[str, list[int], list[int], int], known: bool, seed: int
) -> None:
    text, x, w, at = equation
    rng = np.random.default_rng(seed)
    model = einsum(build, text, x, rng.normal(size=w).astype(np.float32), at, known)
    made = prepare(model).model
    assert ops(made)["MatMul"] == 1 and "Einsum" not in ops(made)
    (product,) = (node for node in made.graph if node.op_type == "MatMul")
    assert product.inputs[1] in made.graph.initializers.values() and len(product.inputs[1].shape or ()) == 2
    same(run, model, made, {"x": rng.normal(size=x).astype(np.float32)})


@pytest.mark.parametrize(
    ("equation", "x", "w"),
    [
        ("...d,de->...e", [2, 3, 5], [5, 6]),
        ("...d,de", [2, 3, 5], [5, 6]),
        ("bd,de", [2, 5], [5, 6]),
        ("b...d,ed->b...e", [2, 3, 4, 5], [6, 5]),
    ],
)
def test_an_ellipsis_and_an_implicit_result_are_read(
    build: Build, run: Run, ops: Ops, rng: np.random.Generator, equation: str, x: list[int], w: list[int]
) -> None:
    model = einsum(build, equation, x, rng.normal(size=w).astype(np.float32), 1)
    made = prepare(model).model
    assert "MatMul" in ops(made) and "Einsum" not in ops(made)
    same(run, model, made, {"x": rng.normal(size=x).astype(np.float32)})


@pytest.mark.parametrize(
    ("equation", "x", "w"),
    [
        ("bhd,hde->bhe", [2, 3, 4], [3, 4, 5]),  # a matrix for each head
        ("bd,d->bd", [2, 4], [4]),  # nothing is summed
        ("bd,ef->bde", [2, 4], [5, 6]),
        ("bsd,de->be", [2, 3, 4], [4, 5]),  # s is summed, too
        ("bd,def->be", [2, 4], [4, 5, 6]),
        ("bdd,de->be", [2, 4, 4], [4, 5]),  # a diagonal
        ("bd,de->be", [2, 1], [4, 5]),  # onnxruntime broadcasts
    ],
)
def test_what_is_no_product_with_a_matrix_stays(
    build: Build, run: Run, ops: Ops, rng: np.random.Generator, equation: str, x: list[int], w: list[int]
) -> None:
    model = einsum(build, equation, x, rng.normal(size=w).astype(np.float32), 1)
    made = prepare(model).model
    assert ops(made) == {"Einsum": 1}
    same(run, model, made, {"x": rng.normal(size=x).astype(np.float32)})


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 4, 5, 3)])
def test_a_constant_on_the_left_goes_to_the_right(
    build: Build, run: Run, ops: Ops, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    model = build(
        f"g (float[{','.join(map(str, shape))}] x) => (float y) {{ y = MatMul(w, x) }}",
        {"w": rng.normal(size=(6, 5)).astype(np.float32)},
    )
    made = prepare(model).model
    assert ops(made) == {"Transpose": 2, "MatMul": 1}
    assert not prepare(made).changed
    same(run, model, made, {"x": rng.normal(size=shape).astype(np.float32)})


@SLOW_FIXTURES
@given(
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.25, 0.0]),
    turns=st.tuples(st.booleans(), st.booleans()),
    left=st.booleans(),
    bias=st.sampled_from([None, (), (1,), (6,), (1, 6), (4, 1), (4, 6), (1, 1)]),
    seed=st.integers(0, 99),
)
def test_a_gemm_with_constants_is_plain(
    build: Build,
    run: Run,
    alpha: float,
    beta: float,
    turns: tuple[bool, bool],
    left: bool,
    bias: tuple[int, ...] | None,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(5, 4) if turns[0] else (4, 5), (6, 5) if turns[1] else (5, 6)]
    x, w = shapes if not left else shapes[::-1]
    arrays = {"w": rng.normal(size=w).astype(np.float32)}
    arrays |= {} if bias is None else {"c": rng.normal(size=bias).astype(np.float32)}
    names = ", ".join([*(("w", "x") if left else ("x", "w")), *([] if bias is None else ["c"])])
    model = build(
        f"g (float[{x[0]},{x[1]}] x) => (float y) {{ y = Gemm<alpha={alpha}, beta={beta}, "
        f"transA={int(turns[0])}, transB={int(turns[1])}>({names}) }}",
        arrays,
    )
    made = prepare(model).model
    (gemm,) = (node for node in made.graph if node.op_type == "Gemm")
    assert [gemm.attributes.get_float(name, 1.0) for name in ("alpha", "beta")] == [1, 1]
    assert not gemm.attributes.get_int("transA", 0) and gemm.inputs[1].is_initializer()  # type: ignore[union-attr]
    wide = (4, 1) if left else (1, 6)
    if bias is not None and beta and (bias in (wide, (1, 1), ()) or bias == (1,) or (bias == (6,) and not left)):
        assert len(gemm.inputs[2].shape or ()) == 1  # type: ignore[union-attr]
    same(run, model, made, {"x": rng.normal(size=x).astype(np.float32)})
    assert not prepare(made).changed


def test_a_bias_that_is_computed_keeps_its_factor(build: Build, rng: np.random.Generator) -> None:
    model = build(
        "g (float[4,5] x, float[6] c) => (float y) { y = Gemm<alpha=0.5, beta=2.0>(x, w, c) }",
        {"w": rng.normal(size=(5, 6)).astype(np.float32)},
    )
    (gemm,) = prepare(model).model.graph
    assert [gemm.attributes.get_float(name, 1.0) for name in ("alpha", "beta")] == [0.5, 2]


def test_weights_that_are_tied_stay_so(build: Build, rng: np.random.Generator) -> None:
    model = build(
        'g (float[2,5] x) => (float y) { a = Einsum<equation="bd,ed->be">(x, w) '
        'y = Einsum<equation="be,de->bd">(a, v) }',
        {"w": rng.normal(size=(5, 5)).astype(np.float32), "v": rng.normal(size=(5, 5)).astype(np.float32)},
    )
    v, w = model.graph.initializers["v"], model.graph.initializers["w"]
    v.const_value = ir.tensor(w.const_value.numpy(), name="v")  # type: ignore[union-attr]
    assert len(prepare(model).model.graph.initializers) == 1
