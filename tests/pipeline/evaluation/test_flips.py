from __future__ import annotations

import numpy as np

from onnxpress.evaluation.flips import LEAST_SAMPLES, LISTED, by_class, flips
from onnxpress.evaluation.paired import newcombe


def test_classes_the_worst_first_with_their_own_interval() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] * (LEAST_SAMPLES - 1))
    right = np.ones(len(labels), bool)
    still = right.copy()
    still[10:13] = False
    worst, other = by_class(right, still, labels)
    assert (worst["label"], worst["samples"], worst["drop"], worst["lost"], worst["won"]) == (1, 10, 30.0, 3, 0)
    assert worst["ci95"] == [100 * end for end in newcombe(7, 3, 0, 0)]
    assert (other["label"], other["drop"]) == (0, 0.0)
    assert by_class(right, still, np.zeros((len(labels), 2))) == []


def test_flips_the_lost_ones_first_and_no_more_than_can_be_read() -> None:
    right = np.array([True, False, True, True])
    still = np.array([True, True, False, True])
    assert flips(right, still, np.array([7, 8, 9, 7])) == [
        {"sample": 2, "label": 9, "change": "lost"},
        {"sample": 1, "label": 8, "change": "won"},
    ]
    many = np.ones(100, bool)
    assert len(flips(many, ~many, np.arange(100))) == LISTED
