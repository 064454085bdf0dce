"""Exact sums: near the true value, and the same bits in any order."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress_calibration.exact import ExactSum

terms = st.lists(st.floats(-(2.0**250), 2.0**250, allow_nan=False), min_size=1, max_size=30)


def total(values: list[float]) -> ExactSum:
    sums = ExactSum.zeros(1)
    for value in values:
        sums.add(np.array([[value]]))
    return sums


@given(terms, st.data())
@settings(deadline=None)
def test_the_order_changes_no_bit(values: list[float], data: st.DataObject) -> None:
    assert (total(values).limbs == total(data.draw(st.permutations(values))).limbs).all()


@given(terms)
@settings(deadline=None)
def test_each_term_is_rounded_once(values: list[float]) -> None:
    expected = sum(map(Fraction, values))
    tolerance = sum(abs(Fraction(value)) for value in values) * Fraction(1, 2**24) + Fraction(len(values), 2**180)
    assert abs(Fraction(float(total(values).values[0])) - expected) <= tolerance


def test_shards_add_up() -> None:
    merged, values = total([1e20, 3.0]), [1e20, 3.0, -1e20, 1e-9]
    merged.merge(total([-1e20, 1e-9]))
    assert (merged.limbs == total(values).limbs).all()
    assert abs(float(merged.values[0]) - 3.000000001) < 1e-7


def test_many_terms_and_few_are_the_same_sum() -> None:
    terms = np.random.default_rng(0).normal(size=(1000, 3)) * 10.0 ** np.arange(3)
    sums = ExactSum.zeros(3)
    for part in np.split(terms, [1, 2, 70, 71]):
        sums.add(part)
    assert np.allclose(sums.values, terms.sum(axis=0), rtol=0, atol=1e-4)
    assert (sums.limbs[:, :1] == total(list(terms[:, 0])).limbs).all()
