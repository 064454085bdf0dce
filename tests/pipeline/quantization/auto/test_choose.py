from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import graphs
import numpy as np
import pytest

from onnxpress import artifact, host, provenance
from onnxpress.bench.statistics import Interval
from onnxpress.data import dataset
from onnxpress.errors import UsageError
from onnxpress.export.export import export
from onnxpress.export.options import ExportOptions
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.auto import choose
from onnxpress.quantization.auto.journal import Journal
from onnxpress.quantization.kernels import kernels
from onnxpress.quantization.options import MAX_DROP
from onnxpress.quantization.quantize import quantize
from onnxpress_calibration.profile import Profile

BRIEF = timedelta(seconds=8)


@pytest.mark.slow
def test_the_choice_is_measured_faster_than_float_and_keeps_the_bound(tmp_path: Path) -> None:
    model = export("zoo:digits_resnet", ExportOptions(verify=False)).edit.model
    options = QuantizeOptions(mode="auto", max_drop="1%", budget=timedelta(seconds=25), threads=1)
    journal = tmp_path / "search.jsonl"
    edit = quantize(
        model,
        options,
        dataset("zoo:digits/calibration", limit=64),
        evaluation=dataset("zoo:digits/test"),
        metric="top1",
        journal=journal,
    )
    assert edit.facts["verdict"] in ("confirmed", "inconclusive")
    assert edit.facts["latency_ratio_ci95"][1] < 1
    assert edit.facts["held_out"]["drop"] <= 1
    assert kernels(artifact.save(edit.model, tmp_path / "m.onnx").path).int8 > 10
    assert len(journal.read_text().splitlines()) == edit.facts["measurements"]


def test_float_is_the_answer_when_nothing_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    slower = Interval(value=1.04, low=1.02, high=1.06, count=30)
    monkeypatch.setattr(choose, "_confirmed_ratio", lambda *_: slower)
    model = graphs.conv_chain()
    options = QuantizeOptions(mode="auto", min_sqnr="10dB", budget=BRIEF, threads=1)
    edit = quantize(model, options, graphs.normal((8, 3, 8, 8)))
    assert edit.changed == () and edit.facts["verdict"] == "float"
    assert [node.op_type for node in edit.model.graph] == [node.op_type for node in model.graph]
    text = choose.explain(edit.facts)
    assert text.startswith("auto: float stays. No candidate is faster than float on this machine")
    assert "1.04 [1.02, 1.06]" in text or "nothing faster" in text


def test_a_model_without_layers_stays_float() -> None:
    model = graphs.build("g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }", {})
    edit = quantize(model, QuantizeOptions(mode="auto", budget=BRIEF, threads=1), graphs.normal((8, 8)))
    assert edit.facts["reason"] == "nothing in the model can be quantized"


def test_auto_needs_samples_to_run() -> None:
    with pytest.raises(UsageError, match=r"mode auto needs calibration data\. Give --calibration DATA"):
        quantize(graphs.conv_chain(), QuantizeOptions(mode="auto"))


def test_the_bound_follows_from_options_and_metric() -> None:
    assert choose.bound_of(QuantizeOptions(mode="auto"), "top1").max_drop == MAX_DROP
    assert choose.bound_of(QuantizeOptions(mode="auto"), None).min_sqnr_db == choose.DEFAULT_SQNR_DB
    both = choose.bound_of(QuantizeOptions(mode="auto", max_drop="0.5pp", min_agreement="99%"), "top1")
    assert (both.max_drop, both.min_agreement_pct, both.min_sqnr_db) == (0.5, 99.0, None)
    assert np.isclose(choose.bound_of(QuantizeOptions(mode="auto", min_sqnr="18 dB"), None).min_sqnr_db or 0, 18)


def test_measurements_of_other_code_or_another_machine_are_not_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    collected = Profile(model_sha256="", data_sha256="a", samples=1, tensors={})

    def journal(seconds: int = 5) -> Journal:
        options = QuantizeOptions(mode="auto", budget=timedelta(seconds=seconds))
        given = choose.context("model", options, collected, graphs.normal((2, 3)), "top1")
        return Journal(tmp_path / "search.jsonl", given)

    journal().put("ratio", 0.5)
    assert journal(seconds=60).get("ratio") == 0.5  # a larger budget continues
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code_sha256", lambda: "newer")
        assert journal().get("ratio") is None
    with monkeypatch.context() as patch:
        elsewhere = replace(host.describe(), cpu="another")
        patch.setattr(host, "describe", lambda: elsewhere)
        assert journal().get("ratio") is None
