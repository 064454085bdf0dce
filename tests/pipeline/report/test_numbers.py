from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.report import numbers

RATIOS = st.floats(0.001, 100)


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.4837, "0.48×"), (1, "1.00×"), (0.0312, "0.031×"), (0.0032, "0.0032×"), (0, "0×")]
)
def test_times(ratio: float, text: str) -> None:
    assert numbers.times(ratio) == text


@pytest.mark.parametrize(
    ("ratio", "interval", "text"),
    [
        (0.4837, (0.44, 0.52), "0.48× [0.44, 0.52]"),
        (0.4837, (0.4801, 0.4872), "0.484× [0.480, 0.487]"),
        (1.0, (1.0, 1.0), "1.00× [1.00, 1.00]"),
        (0.35, (0.349999, 0.350001), "0.3500× [0.3500, 0.3500]"),
    ],
)
def test_a_ratio_shows_the_width_of_its_interval(ratio: float, interval: tuple[float, float], text: str) -> None:
    assert numbers.times_within(ratio, interval) == text


@pytest.mark.parametrize(
    ("drop", "interval", "unit", "text"),
    [
        (0.278, (-0.6, 1.2), "%", "drop 0.28 [−0.60, 1.20] pp"),
        (-0.001, None, "%", "drop 0.00 pp"),
        (-0.278, (-1.2, 0.6), "%", "gain 0.28 [−0.60, 1.20] pp"),
        (1.5, (1.0, 2.0), "x100", "drop 1.50 [1.00, 2.00] pp"),
        (0.00123, (-0.001, 0.002), "", "drop 0.0012 [−0.0010, 0.0020]"),
    ],
)
def test_a_drop_has_the_unit_of_its_metric(
    drop: float, interval: tuple[float, float] | None, unit: str, text: str
) -> None:
    assert numbers.drop_within(drop, interval, unit) == text


def test_scores() -> None:
    assert [numbers.score(89.123, unit) for unit in ("%", "x100", "")] == ["89.12%", "89.12 (×100)", "89.12"]


def test_the_interval_of_a_ratio_is_that_of_the_change() -> None:
    assert numbers.ratio_interval((-52.9, 10.0)) == pytest.approx((0.471, 1.1))


def test_minus_zero_has_no_sign() -> None:
    assert numbers.signed(-0.004, 2) == "0.00"
    assert numbers.signed(-0.006, 2) == "−0.01"


def test_the_classical_sample_size() -> None:
    # 2000 samples with 2 % disagreement give a half width of 0.62 pp; a limit of 0.5 pp needs about 3100.
    half_width = 1.96 * math.sqrt(0.02 / 2000) * 100
    assert numbers.needed(2000, half_width, 0.5) == 3100


@given(st.integers(1, 10**6), st.floats(1e-6, 10), st.floats(1e-6, 10))
def test_needed_is_always_more_than_there_are(count: int, half_width: float, margin: float) -> None:
    more = numbers.needed(count, half_width, margin)
    assert more is None or more > count


def test_on_the_limit_no_count_decides() -> None:
    assert numbers.needed(100, 1.0, 0.0) is None
    assert numbers.needed(100, 1.0, 1e-9) is None
