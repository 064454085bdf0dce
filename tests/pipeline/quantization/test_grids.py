"""Every pairing of integer types, both formats: what is written means what ONNX says, and runs on integers."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import graphs
import numpy as np
import onnx.checker
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxpress import artifact, session
from onnxpress.errors import UsageError
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.validation import options

SHAPES = {graphs.conv_chain: (3, 8, 8), graphs.residual: (8, 6, 6), graphs.concat: (4, 6, 6), graphs.dense: (5, 16)}
FLOAT = {"Conv", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"}


def quantized(build: Callable[[], ir.Model], chosen: QuantizeOptions, opset: int | None = None) -> ir.Model:
    model = build() if opset is None else prepare(build(), opset=opset).model
    return quantize(model, chosen, graphs.normal((64, *SHAPES[build]))).model


def run(model: ir.Model, build: Callable[[], ir.Model], optimization: session.Optimization = "all") -> np.ndarray:
    """With optimizations off, pairs around float operators are computed as such: the same on every CPU."""
    feeds = dict(next(iter(graphs.normal((8, *SHAPES[build]), seed=9).read())))
    options = session.SessionOptions(optimization=optimization)
    return next(iter(session.run(session.open_session(model, options), feeds).values()))


def running(model: ir.Model, folder: Path) -> Counter[str]:
    path = artifact.save(model, folder / "m.onnx").path
    onnx.checker.check_model(path)
    return Counter(node.op_type for node in session.optimized_graph(path).graph)


@pytest.mark.parametrize("build", list(SHAPES))
@pytest.mark.parametrize(
    ("activations", "weights", "symmetric"),
    [
        *(
            pytest.param(activations, "int8", symmetric, marks=pytest.mark.int8)
            for activations, symmetric in itertools.product(("uint8", "int8"), (False, True))
        ),
        *itertools.product(("uint8", "int8"), ("uint8",), (False, True)),
        *itertools.product(("uint16", "int16"), ("int8",), (False, True)),
    ],
)
def test_every_pairing_means_what_onnx_says(
    build: Callable[[], ir.Model], activations: str, weights: str, symmetric: bool
) -> None:
    chosen = QuantizeOptions(activations=activations, weights=weights, symmetric=symmetric, calibrator="minmax")
    model = quantized(build, chosen, opset=21)
    feeds = dict(next(iter(graphs.normal((8, *SHAPES[build]), seed=9).read())))
    (expected,) = ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)
    step = np.ptp(expected) / 255
    assert np.abs(run(model, build) - expected).max() <= step
    assert np.abs(run(build(), build) - expected).max() <= 12 * step  # and that is near the float model


# In format qdq onnxruntime turns an int8 tensor with several readers back into float on x86.
ONE_READER = [(graphs.conv_chain, "int8"), (graphs.dense, "int8")]


@pytest.mark.parametrize(("build", "activations"), [*((build, "uint8") for build in SHAPES), *ONE_READER])
@pytest.mark.parametrize("weights", ["int8", "uint8"])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_eight_bits_run_on_integers(
    build: Callable[[], ir.Model], activations: str, weights: str, per_tensor: bool, tmp_path: Path
) -> None:
    ran = running(
        quantized(build, QuantizeOptions(activations=activations, weights=weights, per_tensor=per_tensor)), tmp_path
    )
    assert not FLOAT & ran.keys()


@pytest.mark.int8
@pytest.mark.parametrize("build", list(SHAPES))
@pytest.mark.parametrize(
    ("activations", "weights", "per_tensor"),
    [("uint8", "int8", False), ("uint8", "int8", True), ("int8", "int8", False), ("uint8", "uint8", False)],
)
def test_qoperator_computes_what_the_pairs_say(
    build: Callable[[], ir.Model], activations: str, weights: str, per_tensor: bool, tmp_path: Path
) -> None:
    pairs, operators = (
        quantized(
            build, QuantizeOptions(activations=activations, weights=weights, per_tensor=per_tensor, format=written)
        )
        for written in ("qdq", "qoperator")
    )
    names = Counter(node.op_type for node in operators.graph)
    assert not FLOAT & names.keys() and names["QuantizeLinear"] <= 2 and names["DequantizeLinear"] <= 1
    expected = run(pairs, build)
    assert np.abs(run(operators, build) - expected).max() <= np.ptp(expected) / 255
    assert not FLOAT & running(operators, tmp_path).keys()


def test_sixteen_bits_in_an_older_opset_use_the_operators_of_onnxruntime() -> None:
    old, new = (quantized(graphs.conv_chain, QuantizeOptions(activations="uint16"), opset=opset) for opset in (17, 21))
    domains = {node.domain for node in old.graph if node.op_type == "QuantizeLinear"}
    assert domains == {"com.microsoft"} and "com.microsoft" not in new.opset_imports
    np.testing.assert_allclose(run(old, graphs.conv_chain), run(new, graphs.conv_chain), atol=1e-5)


@pytest.mark.int8
def test_unsigned_weights_compute_the_same_numbers() -> None:
    signed, unsigned = (
        run(quantized(graphs.conv_chain, QuantizeOptions(weights=weights, target_cpu="vnni")), graphs.conv_chain, "off")
        for weights in ("int8", "uint8")
    )
    np.testing.assert_array_equal(signed, unsigned)


def test_fewer_bits_lose_more() -> None:
    expected = run(graphs.dense(), graphs.dense)
    errors = []
    for bits in range(2, 9):
        options = QuantizeOptions(bits=bits, verify=False, target_cpu="vnni", rounding="nearest")
        given = run(quantized(graphs.dense, options), graphs.dense, "off")
        errors.append(float(np.square(given - expected).sum()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.01 * errors[2]


def test_sixteen_bits_have_no_int8_operators() -> None:
    with pytest.raises(UsageError, match="qoperator has no operators on int16"):
        options(QuantizeOptions, {"format": "qoperator", "activations": "int16"})
