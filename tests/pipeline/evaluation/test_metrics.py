"""Metrics: the contract of every file, and values worked out by hand."""

import numpy as np
import pytest

from onnxpress.errors import DataError
from onnxpress.evaluation import metrics
from onnxpress.evaluation.fidelity import Fidelity


@pytest.mark.parametrize("name", metrics.names())
def test_contract(name: str) -> None:
    metric = metrics.metric(name)
    random = np.random.default_rng(0)
    output, labels = random.normal(size=(20, 8)).astype(np.float32), random.integers(0, 8, 20)
    values = metric.score(output, labels)
    assert values.shape == (20,) and values.dtype == np.float64
    assert isinstance(metric.aggregate(values, labels), float)
    if metric.SCALE is not None:
        assert metric.aggregate(values, labels) == pytest.approx(metric.SCALE * values.mean())


def test_top1_and_top5() -> None:
    output = np.array([[9, 8, 7, 6, 5, 4], [0, 1, 2, 3, 4, 5]], np.float32)
    labels = np.array([4, 0])
    assert metrics.metric("top1").score(output, np.array([0, 0])).tolist() == [1, 0]
    assert metrics.metric("top5").score(output, labels).tolist() == [1, 0]


@pytest.mark.parametrize("name", ["top1", "top5"])
@pytest.mark.parametrize("label", [8, -1, 0.5, np.nan])
def test_a_label_that_no_class_has_is_no_loss_but_no_evidence(name: str, label: float) -> None:
    output = np.zeros((3, 8), np.float32)
    with pytest.raises(DataError, match=f"metric {name}: label {label} is none of the 8 classes"):
        metrics.metric(name).score(output, np.array([0, 7, label]))


def test_spearman_with_ties() -> None:
    spearman = metrics.metric("spearman")
    labels = np.array([1.0, 2, 3, 4, 5])
    assert spearman.aggregate(labels**3, labels) == pytest.approx(100)
    assert spearman.aggregate(-labels, labels) == pytest.approx(-100)
    # ranks 1.5 1.5 3 4 5 against 1 2 3 4 5: cov 9.5/4, var 9.5/4 and 10/4
    assert spearman.aggregate(np.array([0.0, 0, 1, 2, 3]), labels) == pytest.approx(100 * 9.5 / np.sqrt(9.5 * 10))
    assert spearman.aggregate(np.zeros(5), labels) == 0


def test_fidelity_over_batches_equals_all_at_once() -> None:
    random = np.random.default_rng(0)
    wanted = random.normal(size=(10, 4)).astype(np.float32)
    given = wanted + 0.1 * random.normal(size=(10, 4)).astype(np.float32)
    parts, whole = Fidelity(), Fidelity()
    whole.update({"o": wanted}, {"o": given})
    for start in range(0, 10, 3):
        parts.update({"o": wanted[start : start + 3]}, {"o": given[start : start + 3]})
    expected = 10 * np.log10((wanted.astype(float) ** 2).sum() / ((wanted.astype(float) - given) ** 2).sum())
    assert whole.sqnr_db == pytest.approx(expected) == parts.sqnr_db
    assert whole.agreement_pct == parts.agreement_pct == 100 * (wanted.argmax(1) == given.argmax(1)).mean()
    assert whole.cosine == pytest.approx(parts.cosine)


def test_fidelity_takes_the_worst_output_and_knows_when_there_is_no_noise() -> None:
    ones = np.ones((2, 3), np.float32)
    fidelity = Fidelity()
    fidelity.update({"a": ones, "b": ones, "i": ones.astype(np.int64)}, {"a": ones * 1.1, "b": ones * 1.01, "i": ones})
    assert fidelity.sqnr_db == pytest.approx(20, abs=0.1)
    equal = Fidelity()
    equal.update({"a": ones}, {"a": ones})
    assert equal.sqnr_db is None and equal.cosine == pytest.approx(1)
