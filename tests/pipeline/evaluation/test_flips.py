from __future__ import annotations

import numpy as np

from onnxpress.evaluation.flips import LEAST_SAMPLES, LISTED, by_class, flips, simultaneous, worst_class
from onnxpress.evaluation.paired import tango


def test_classes_the_worst_first_with_their_own_interval() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] * (LEAST_SAMPLES - 1))
    right = np.ones(len(labels), bool)
    still = right.copy()
    still[10:13] = False
    worst, other = by_class(right, still, labels)
    assert (worst["label"], worst["samples"], worst["drop"], worst["lost"], worst["won"]) == (1, 10, 30.0, 3, 0)
    assert worst["ci95"] == [100 * end for end in tango(3, 0, 10, simultaneous(3))]
    assert (other["label"], other["drop"]) == (0, 0.0)
    assert by_class(right, still, np.zeros((len(labels), 2))) == by_class(right, still, None) == []
    assert worst_class(right, still, None) is None


def test_the_worst_class_hardly_ever_fails_or_passes_by_being_picked() -> None:
    """Every class truly loses 2 points, which is the bound: of 300 trials 5 % may fail and 5 % may pass."""
    random, classes, count, failed, passed = np.random.default_rng(0), 100, 50, 0, 0
    labels = np.repeat(np.arange(classes), count)
    for _ in range(300):
        change = random.random(len(labels))
        found = worst_class(change < 0.9, (change < 0.87) | (change > 0.99), labels)
        assert found is not None and found["classes"] == classes
        failed += found["ci95"][0] > 2
        passed += found["ci95"][1] <= 2
    assert failed <= 25 and passed <= 25


def test_the_worst_class_fails_where_one_is_ruined_and_passes_where_all_are_many() -> None:
    labels = np.repeat(np.arange(10), 2000)
    right = np.ones(len(labels), bool)
    found = worst_class(right, right, labels)
    assert found is not None and found["ci95"][1] < 0.2
    found = worst_class(right, right & (labels != 3), labels)
    assert found is not None and (found["label"], found["drop"]) == (3, 100) and found["ci95"][0] > 99
    # A class of two samples proves nothing, and so does the worst class.
    few = np.append(labels, [10, 10])
    found = worst_class(np.append(right, [True, True]), np.append(right, [True, True]), few)
    assert found is not None and found["ci95"][1] > 60


def test_flips_the_lost_ones_first_and_no_more_than_can_be_read() -> None:
    right = np.array([True, False, True, True])
    still = np.array([True, True, False, True])
    assert flips(right, still, np.array([7, 8, 9, 7])) == [
        {"sample": 2, "label": 9, "change": "lost"},
        {"sample": 1, "label": 8, "change": "won"},
    ]
    assert flips(right, still, None)[0]["label"] is None
    many = np.ones(100, bool)
    assert len(flips(many, ~many, np.arange(100))) == LISTED
