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
    loss = edit.facts["loss"]
    assert loss["expected_drop"] <= 1 and loss["ci95"][0] <= 1 and loss["samples"] > 200  # both halves
    assert edit.facts["seconds"]["total"] < 3 * 25 and edit.facts["seconds"]["preparation"] > 0
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
    first, *others = choose.explain(edit.facts)
    assert first.startswith("auto: float stays. No candidate that was confirmed is faster than float on this machine")
    assert "1.040 [1.020, 1.060] of float's time" in others[0] and others[0].endswith("is not faster beyond doubt")
    assert "took" in others[-1] and "of a budget of 8 s: preparation" in others[-1]


def test_a_model_without_layers_stays_float() -> None:
    model = graphs.build("g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }", {})
    edit = quantize(model, QuantizeOptions(mode="auto", budget=BRIEF, threads=1), graphs.normal((8, 8)))
    assert edit.facts["reason"] == "nothing in the model can be quantized"


def test_auto_needs_samples_to_run() -> None:
    with pytest.raises(UsageError, match=r"mode auto needs calibration data\. Give --calibration DATA"):
        quantize(graphs.conv_chain(), QuantizeOptions(mode="auto"))


LOSS = {"drop": 1.6, "ci95": (-0.6, 4.5), "expected_drop": 0.3, "sqnr_db": 30.0, "agreement_pct": 98.4, "samples": 250}
CHOICE = {"choices": {"static": 8}, "latency_ratio": 0.71, "latency_ratio_ci95": [0.69, 0.73], "loss": LOSS}
SECONDS = {"preparation": 4.0, "search": 9.0, "confirmation": 6.0, "total": 19.0, "budget": 20.0}
FACTS = {"bound": "drop <= 1", "alternatives": [], "seconds": SECONDS, "left_out": []}


def test_what_is_proved_is_said_and_what_else_could_be_had() -> None:
    lines = choose.explain({**FACTS, **CHOICE, "verdict": "inconclusive", "left_out": ["reconstruction"]})
    assert lines == [
        "auto: 0.710 [0.690, 0.730] of float's time with 8 static nodes; on 250 samples drop 1.60 [-0.60, 4.50], "
        "0.30 by the float model's own probabilities, SQNR 30.0 dB, agreement 98.4 %; bound (drop <= 1) kept, but not "
        "proved: see the interval",
        "  took 19 s of a budget of 20 s: preparation 4 s, search 9 s, confirmation 6 s",
        "  no time was left for reconstruction: a larger --budget continues from here",
    ]
    other = {**CHOICE, "against": ["loses too much"]}
    lines = choose.explain({**FACTS, "verdict": "float", "reason": "nothing keeps it", "alternatives": [other]})
    assert lines[0] == "auto: float stays. Nothing keeps it."
    assert lines[1].startswith("  or: 0.710 [0.690, 0.730]") and lines[1].endswith("98.4 %; loses too much")
    assert lines[2] == "  A looser bound (--max-drop, --min-sqnr, --min-agreement) accepts one of these."


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
    assert journal(seconds=60).get("ratio", float) == 0.5  # a larger budget continues
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code_sha256", lambda: "newer")
        assert journal().get("ratio", float) is None
    with monkeypatch.context() as patch:
        elsewhere = replace(host.describe(), cpu="another")
        patch.setattr(host, "describe", lambda: elsewhere)
        assert journal().get("ratio", float) is None
