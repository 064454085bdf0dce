"""The contract of every criterion, and what each one computes."""

from __future__ import annotations

import numpy as np
import pytest

from onnxpress.pruning import criteria

WEIGHT = np.array([[[3.0, -4.0]], [[0.0, 1.0]]], np.float32)


@pytest.mark.parametrize("name", criteria.names())
@pytest.mark.parametrize("shape", [(4, 3), (6, 1, 3, 3), (1, 1)])
def test_contract(name: str, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    before = weight.copy()
    scores = criteria.score(name, weight)
    assert scores.shape == shape
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all() and (scores >= 0).all()
    assert np.array_equal(scores, criteria.score(name, weight))
    assert np.array_equal(weight, before)


def test_l1_is_the_absolute_value() -> None:
    assert criteria.score("l1", WEIGHT).ravel().tolist() == [3, 4, 0, 1]


def test_l2_is_the_square() -> None:
    assert criteria.score("l2", WEIGHT).ravel().tolist() == [9, 16, 0, 1]


def test_random_depends_on_the_weights_only() -> None:
    assert not np.array_equal(criteria.score("random", WEIGHT), criteria.score("random", WEIGHT + 1))
    assert np.array_equal(criteria.score("random", WEIGHT), criteria.score("random", WEIGHT.astype(np.float64)))
