"""Other people's quantizers on our statistics: their files load, run on integers and stay near float."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import graphs
import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from onnxpress import artifact, session
from onnxpress.errors import ModelError, UsageError
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.backends.neural_compressor import fold_weights
from onnxpress.quantization.kernels import kernels
from onnxpress.quantization.quantize import quantize
from onnxpress.validation import options


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: np.ndarray) -> None:
        self.samples = iter({"x": x[i : i + 1]} for i in range(len(x)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.samples, None)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize(("target_cpu", "reduce_range"), [("any", True), ("vnni", False)])
def test_onnxruntime_writes_what_it_writes_with_its_own_minmax(
    target_cpu: Literal["any", "vnni"], reduce_range: bool, per_tensor: bool, tmp_path: Path
) -> None:
    model, data = graphs.conv_chain(), graphs.normal((16, 3, 8, 8))
    chosen = QuantizeOptions(backend="onnxruntime", calibrator="minmax", per_tensor=per_tensor, target_cpu=target_cpu)
    made = quantize(model, chosen, data).model
    path = artifact.save(model, tmp_path / "float.onnx").path
    quantize_static(
        path,
        tmp_path / "theirs.onnx",
        Reader(dict(next(iter(data.read())))["x"]),
        per_channel=not per_tensor,
        reduce_range=reduce_range,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    theirs = artifact.load(tmp_path / "theirs.onnx")
    ours = {name: value.const_value.numpy() for name, value in made.graph.initializers.items()}  # type: ignore[union-attr]
    # A scale that two tensors share is called after either; everything else has the same name and value.
    shared = ours.keys() & theirs.graph.initializers.keys()
    assert len(shared) >= len(theirs.graph.initializers) - 2 >= 20 and len(ours) == len(theirs.graph.initializers)
    for name in shared:
        value = theirs.graph.initializers[name]
        assert value.const_value is not None
        np.testing.assert_allclose(ours[name].astype(float), value.const_value.numpy().astype(float), rtol=1e-5, atol=1)


@pytest.mark.int8
@pytest.mark.parametrize("written", ["qdq", "qoperator"])
def test_onnxruntime_is_proven_like_our_own(written: str, tmp_path: Path) -> None:
    model = graphs.residual()
    edit = quantize(model, QuantizeOptions(backend="onnxruntime", format=written), graphs.normal((32, 8, 6, 6)))
    found = kernels(artifact.save(edit.model, tmp_path / "m.onnx").path)
    assert len(found.layers) == 3 and all(layer.int8 for layer in found.layers) and edit.changed
    feeds = dict(next(iter(graphs.normal((4, 8, 6, 6), seed=4).read())))
    expected, given = (
        next(iter(session.run(session.open_session(each), feeds).values())) for each in (model, edit.model)
    )
    assert np.square(expected).sum() > 300 * np.square(expected - given).sum()


def test_a_weight_that_is_quantized_in_each_run_is_folded() -> None:
    model = graphs.build(
        "g (float[N,4] x) => (float[N,3] y) <float[4] s = {0.5, 0.25, 1, 2}, int8[4] z = {0, 0, 0, 0}, "
        "int8 lo = {-127}, int8 hi = {127}> { q = QuantizeLinear <axis=0> (w, s, z) c = Clip(q, lo, hi) "
        "d = DequantizeLinear <axis=0> (c, s, z) y = MatMul(x, d) }",
        {"w": (4, 3)},
    )
    weight = np.array([[0.24, 1, 100], [0.25, 0.38, 0], [-1.5, 2.5, -300], [4, 5, 6]], np.float32)
    model.graph.initializers["w"].const_value = artifact.ir.tensor(weight, name="w")
    assert fold_weights(model) == ["w"]
    assert model.graph.initializers["w_q"].const_value.numpy().tolist() == [  # type: ignore[union-attr]
        [0, 2, 127],
        [1, 2, 0],
        [-2, 2, -127],
        [2, 2, 3],
    ]
    assert [node.op_type for node in model.graph] == [
        "DequantizeLinear",
        "MatMul",
    ] and "w" not in model.graph.initializers


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_neural_compressor_runs_on_integers_and_is_judged_like_our_own(
    compress: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("neural_compressor")
    output = tmp_path / "m.onnx"
    command = ["quantize", "zoo:digits_cnn", "-o", output, "--backend", "neural-compressor", "--min-sqnr", "80dB"]
    command += ["--calibration", "zoo:digits/calibration", "--samples", 32]
    refused = compress(*command)
    assert refused.code == 3 and not output.exists()
    assert "on 32 samples, 80 dB is the least (--min-sqnr). Nothing was written: export the model" in refused.err
    ended = compress(*command, "--evaluation", "zoo:digits/test", "--metric", "top1", "--accept-loss", "--json", "-")
    assert ended.code == 0, ended.err
    facts = json.loads(ended.out)["facts"]
    assert facts["metric"] == "top1" and facts["drop"] < 2 and facts["sqnr_db"] > 20
    assert facts["notes"][0].startswith("accepted: the quantized model's outputs have")
    found = kernels(output)
    assert found.layers and all(layer.int8 for layer in found.layers), found.layers
    assert found.float_bytes < 4096


def test_backends_know_static_int8_only() -> None:
    with pytest.raises(UsageError, match="backend onnxruntime has mode static only, not dynamic"):
        options(QuantizeOptions, {"backend": "onnxruntime", "mode": "dynamic"})
    with pytest.raises(UsageError, match="quantizes PyTorch models"):
        quantize(graphs.residual(), QuantizeOptions(backend="neural-compressor"), graphs.normal((4, 8, 6, 6)))


def test_neural_compressor_says_what_it_takes(compress: Callable[..., Any], tmp_path: Path) -> None:
    words = ["-o", tmp_path / "o.onnx", "--calibration", "zoo:digits/calibration"]
    ended = compress("quantize", "model.onnx", *words, "--backend", "neural-compressor")
    assert ended.code == 2 and "model model.onnx: backend neural-compressor quantizes PyTorch models" in ended.err
    ended = compress("quantize", "model.onnx", *words, "--input", "x:float32:N,3")
    assert ended.code == 2 and "--input describes a PyTorch source" in ended.err


def test_a_failure_of_onnxruntimes_quantizer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.quantization import QDQQuantizer

    def fail(_self: object) -> None:
        raise KeyError("no such\ntensor")

    monkeypatch.setattr(QDQQuantizer, "quantize_model", fail)
    with pytest.raises(ModelError, match=r"its quantizer fails on this model .'no such.ntensor'.. Use the backend"):
        quantize(graphs.residual(), QuantizeOptions(backend="onnxruntime"), graphs.normal((4, 8, 6, 6)))
