"""The guard: what was lost is said, and a useless model is refused."""

import dataclasses

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import cpu
from onnxpress.errors import DataError, ModelError, UsageError
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.verification import verify
from onnxpress.session import open_session, run
from onnxpress_calibration.dataset import Dataset


def test_what_was_lost_is_in_the_facts() -> None:
    edit = quantize(graphs.conv_chain(), QuantizeOptions(), graphs.normal((70, 3, 8, 8)))
    assert edit.facts["sqnr_db"] > 25 and edit.facts["agreement_pct"] > 90
    assert edit.facts["verified_samples"] == 70
    assert (
        "sqnr_db" not in quantize(graphs.conv_chain(), QuantizeOptions(verify=False), graphs.normal((4, 3, 8, 8))).facts
    )


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_model_below_the_floor_is_refused(mode: str) -> None:
    options = QuantizeOptions(mode=mode, min_sqnr="60 dB")
    with pytest.raises(ModelError, match=r"dB SQNR on 16 samples, 60 dB is the least .*Nothing was written"):
        quantize(graphs.conv_chain(), options, graphs.normal((16, 3, 8, 8)))
    assert quantize(graphs.conv_chain(), options.model_copy(update={"verify": False}), graphs.normal((16, 3, 8, 8)))


def test_two_bits_are_refused_by_default() -> None:
    with pytest.raises(ModelError, match="10 dB is the least"):
        quantize(graphs.conv_chain(), QuantizeOptions(bits=2), graphs.normal((16, 3, 8, 8)))


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"mode": "static"}, "try mode auto, mode dynamic, or --exclude"),
        ({"mode": "dynamic"}, "try mode weight-only, mode auto, or --exclude"),
        ({"mode": "weight-only", "bits": 4}, "try --bits 8, --calibration DATA or a smaller --block-size"),
        ({"mode": "weight-only"}, "try --calibration DATA, a smaller --block-size, or --exclude"),
        ({"mode": "fp16"}, "try --calibration DATA, or --exclude"),
        ({"mode": "dynamic", "target_cpu": "vnni"}, "try --target-cpu any or --weights uint8 (this CPU cuts int8 sums"),
        ({"mode": "dynamic", "target_cpu": "vnni", "weights": "uint8"}, "try mode weight-only, mode auto"),
    ],
)
def test_advice_names_what_helps_this_mode_on_this_cpu(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str | int], advice: str
) -> None:
    monkeypatch.setattr(cpu, "saturates", lambda: True)
    options = QuantizeOptions.model_validate({**values, "min_sqnr": "200 dB"})
    model, other = _classifier((0, 0, 0)), _classifier((1, 0, 0))
    with pytest.raises(ModelError) as refused:
        verify(model, other, options, graphs.normal((16, 3)))
    assert f"Nothing was written: {advice}" in str(refused.value)


def _classifier(bias: tuple[float, float, float]) -> ir.Model:
    """Add a bias to the scores that come in."""
    model = graphs.build("g (float[N,3] x) => (float[N,3] y) { y = Add(x, b) }", {"b": (3,)})
    model.graph.initializers["b"].const_value = ir.tensor(np.array(bias, np.float32), name="b")
    return model


def _scores(margin: float, labels: int | None = None) -> Dataset:
    """100 samples of class 0, with class 1 behind by ``margin`` in every twentieth of them."""
    scores = np.tile(np.array([20, 0, 0], np.float32), (100, 1))
    scores[::20, 1] = 20 - margin
    scores[:, 2] -= np.arange(100)  # no two samples are equal
    arrays = {"x": scores} if labels is None else {"x": scores, "y": np.full(100, labels)}
    return Dataset(origin="scores", read=lambda: [arrays])


LOOSE = QuantizeOptions(min_sqnr=-100)


def test_few_equal_classes_are_refused() -> None:
    model, other = graphs.conv_chain(), graphs.conv_chain()
    other.graph.initializers["b3"].const_value = ir.tensor(np.array([0, 0, 0, 0, 50], np.float32), name="b3")
    options = LOOSE.model_copy(update={"max_drop": 100})
    with pytest.raises(ModelError, match=r"float model's class for .* 90 % is the least \(--min-agreement\)"):
        verify(model, other, options, graphs.normal((64, 3, 8, 8)))


def test_changed_classes_the_float_model_was_sure_of_are_refused() -> None:
    with pytest.raises(ModelError, match=r"5\.0 % of 100 samples change .* drop of 4\.9 \[2\.\d+, 1\d.*1 is the most"):
        verify(_classifier((0, 0, 0)), _classifier((0, 6, 0)), LOOSE, _scores(5.0))


def test_close_calls_are_noted() -> None:
    found = verify(_classifier((0, 0, 0)), _classifier((0, 6, 0)), LOOSE, _scores(0.1))
    assert found["agreement_pct"] == 95 and found["metric"] is None
    assert found["drop"] == pytest.approx(5 * np.tanh(0.05), rel=1e-5)  # the difference of two probabilities
    assert "5.0 % of 100 samples change their class" in found["notes"][0] and len(found["notes"]) == 1


def test_a_loss_that_few_samples_cannot_prove_is_noted() -> None:
    few = dataclasses.replace(_scores(5.0), limit=20)
    found = verify(_classifier((0, 0, 0)), _classifier((0, 6, 0)), LOOSE, few)
    assert found["drop"] > 4 and found["drop_ci95"][0] < 1 and len(found["notes"]) == 1


def test_a_metric_counts_what_was_right() -> None:
    """The same changed classes: lost where float was right, won where it was wrong."""
    models = _classifier((0, 0, 0)), _classifier((0, 6, 0))
    with pytest.raises(ModelError, match=r"top1 drops by 5\.00 \[.*\] on 100 samples, 1 is the most \(--max-drop\)"):
        verify(*models, QuantizeOptions(), _scores(0.1, labels=0), metric="top1")
    assert verify(*models, QuantizeOptions(), _scores(5.0, labels=1), metric="top1")["drop"] == -5
    assert not verify(*models, QuantizeOptions(max_drop="5%"), _scores(5.0, labels=0), metric="top1")["notes"]


def test_a_loss_can_be_accepted() -> None:
    models, options = (_classifier((0, 0, 0)), _classifier((0, 6, 0))), QuantizeOptions(accept_loss=True)
    assert "top1 drops by 5.00" in verify(*models, options, _scores(5.0, labels=0), metric="top1")["notes"][0]


@pytest.mark.int8
def test_every_mode_is_judged_by_a_metric() -> None:
    """A dynamic model, without calibration data, on labels that only the float model gets right."""
    model, data = graphs.dense_classifier(), graphs.normal((200, 16))
    (inputs,) = data.read()
    scores = run(open_session(model), dict(inputs))["y"]
    labelled = Dataset(origin="labelled", read=lambda: [{**inputs, "y": scores.argmax(1)}])
    options = QuantizeOptions(mode="dynamic", bits=2)
    with pytest.raises(ModelError, match="top1 drops by"):
        quantize(model, options, evaluation=labelled, metric="top1")
    assert quantize(model, options.model_copy(update={"bits": 8}), evaluation=labelled, metric="top1").facts["drop"] < 1
    with pytest.raises(DataError, match=r"normal: has no labels\. Metric top1 needs them"):
        quantize(model, options, evaluation=data, metric="top1")
    with pytest.raises(UsageError, match=r"metric top1 needs samples\. Give --evaluation DATA"):
        quantize(model, options, metric="top1")


def test_not_a_number_is_refused() -> None:
    model = graphs.build("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {})
    broken = graphs.build("g (float[N,4] x) => (float[N,4] y) { a = Sub(x, x) y = Div(a, a) }", {})
    with pytest.raises(ModelError, match="16 output values of the quantized model are NaN"):
        verify(model, broken, QuantizeOptions(), graphs.normal((4, 4)))
