import math

import pytest
from scipy import stats

from onnxpress.intervals import Z95, place_above, share_interval, student, student_interval


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 0.997])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 29, 500])
def test_student_as_scipy_computes_it(confidence: float, freedom: int) -> None:
    assert student(confidence, freedom) == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom))


def test_student_nears_the_normal_distribution() -> None:
    assert Z95 < student(0.95, 10**6) == student(0.95, 1000) < 1.0015 * Z95


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [10, 59, 300, 5000])
def test_so_few_above_a_percentile_would_be_a_surprise(share: float, count: int) -> None:
    place = place_above(count, share, 0.05)
    chance = stats.binom(count, 1 - share).cdf
    if place is None:
        assert chance(0) > 0.05
    else:
        assert chance(place) <= 0.05 < chance(place + 1)
    assert place_above(math.ceil(math.log(0.05) / math.log(share)), share, 0.05) == 0


@pytest.mark.parametrize(("right", "count"), [(0, 20), (1, 20), (20, 20), (99, 100), (999, 1000), (25_000, 50_000)])
def test_share_as_scipy_computes_it(right: int, count: int) -> None:
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="exact")
    assert share_interval(right, count) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_students_interval_as_scipy_computes_it() -> None:
    values = [3.1, 2.9, 3.4, 3.0, 2.7]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert student_interval(values) == pytest.approx((expected.low, expected.high))
