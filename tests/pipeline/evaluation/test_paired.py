"""Intervals against published values, and by how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onnxpress.evaluation.paired import bootstrap, newcombe, wilson

counts = st.integers(0, 60)


def test_wilson_matches_newcombe_1998() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_newcombe_matches_the_paper() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 2635-2650, table II: e=36, f=12, g=2, h=0, method 10.
    assert newcombe(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@example(both=0, lost=0, won=25, neither=0)  # ends at -1, but for rounding
@given(both=counts, lost=counts, won=counts, neither=counts)
def test_the_interval_holds_the_estimate_and_turns_with_the_sides(both: int, lost: int, won: int, neither: int) -> None:
    n = both + lost + won + neither
    if n == 0:
        return
    low, high = newcombe(both, lost, won, neither)
    assert -1 <= low <= (lost - won) / n + 1e-12 and (lost - won) / n - 1e-12 <= high <= 1
    assert newcombe(both, won, lost, neither) == pytest.approx((-high, -low))


def test_coverage_of_newcombe() -> None:
    random, n, held = np.random.default_rng(0), 200, 0
    shares = [0.80, 0.04, 0.02, 0.14]
    for draw in random.multinomial(n, shares, size=2000):
        low, high = newcombe(*(int(count) for count in draw))
        held += low <= shares[1] - shares[2] <= high
    assert 0.93 <= held / 2000 <= 0.99


def test_bootstrap_is_paired_and_seeded() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=400)
    baseline, candidate = shared, shared - 0.1 + 0.01 * random.normal(size=400)
    low, high = bootstrap(baseline, candidate, shared, lambda values, labels: float(values.mean()))  # noqa: ARG005
    assert 0.09 < low < 0.1 < high < 0.11  # unpaired, it would be about 0.14 wide to each side
    assert (low, high) == bootstrap(baseline, candidate, shared, lambda values, labels: float(values.mean()))  # noqa: ARG005
