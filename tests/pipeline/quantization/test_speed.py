import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest

from onnxpress import artifact, cpu
from onnxpress.quantization import QuantizeOptions, speed
from onnxpress.quantization.quantize import quantize


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    model, data = graphs.conv_chain(), graphs.normal((16, 3, 8, 8))
    edit = quantize(model, QuantizeOptions(), data)
    files = [artifact.save(each, tmp_path / f"{name}.onnx") for name, each in (("f", model), ("q", edit.model))]
    return files[0].path, files[1].path


def test_a_quantized_model_is_timed_in_pairs_with_float(
    models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = speed.against_float(*models, graphs.normal((16, 3, 8, 8)))
    low, high = facts["latency_ratio_ci95"]
    assert 0 < low <= facts["latency_ratio"] <= high and "latency_not_measured" not in facts
    monkeypatch.setattr(speed, "LONGEST_MS", 0)
    facts = speed.against_float(*models, None)
    assert facts["latency_ratio"] is None and "one run of the float model takes" in facts["latency_not_measured"]


def test_what_cannot_be_timed_says_why(models: tuple[Path, Path]) -> None:
    models[1].write_bytes(b"nothing")
    assert "q" in speed.against_float(*models, None)["latency_not_measured"]


def test_slower_than_float_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "kind", lambda: "avx2")
    slower = list(speed.lines({"latency_ratio": 1.44, "latency_ratio_ci95": [1.40, 1.48]}))
    assert slower[0] == "1.44 [1.40, 1.48] of float's time on this CPU (avx2), timed briefly"
    assert all(word in slower[1] for word in ("slower than float", "--mode auto", "--mode dynamic", "--target-cpu"))
    for interval in ([0.5, 0.6], [0.9, 1.1]):  # faster, and as fast as far as can be told
        assert len(list(speed.lines({"latency_ratio": 0.7, "latency_ratio_ci95": interval}))) == 1
    (unknown,) = speed.lines(speed.not_measured("--no-verify"))
    assert unknown.startswith("not timed (--no-verify): static int8 may be slower than float")
    assert list(speed.lines({})) == []


def test_the_command_says_it_in_words_and_in_facts(tmp_path: Path, compress: Callable[..., Any]) -> None:
    artifact.save(graphs.dense(), tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(16, 5, 16)).astype(np.float32))
    command = ["quantize", tmp_path / "m.onnx", "--calibration", tmp_path / "data.npz", "--accept-loss"]
    ended = compress(*command, "-o", tmp_path / "a.onnx", "--json", tmp_path / "a.json")
    assert ended.code == 0 and "of float's time on this CPU" in ended.out, ended.err
    assert json.loads((tmp_path / "a.json").read_text())["facts"]["latency_ratio"] > 0
    ended = compress(*command, "-o", tmp_path / "b.onnx", "--no-verify")
    assert "not timed (--no-verify)" in ended.out
    ended = compress(*command, "-o", tmp_path / "c.onnx", "--mode", "dynamic")
    assert "float's time" not in ended.out
