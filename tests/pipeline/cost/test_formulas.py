import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.cost import formulas

positive = st.floats(min_value=1e-3, max_value=1e6)
share = st.floats(min_value=0.01, max_value=1)


def test_amazon_published_example() -> None:
    # SageMaker Inference Recommender: 0.204 USD an hour, 648 invocations a minute -> 5.2469e-06 USD an inference
    found = formulas.usd_per_inference(usd_per_hour=0.204, throughput_per_s=648 / 60, utilisation=1)
    assert found == pytest.approx(5.24691e-6, rel=1e-6)


def test_a_month_of_one_machine() -> None:
    assert formulas.usd_per_month(replicas=1, usd_per_hour=0.1) == pytest.approx(73)


@pytest.mark.parametrize(
    ("inferences", "count"), [(0, 1), (1, 1), (2_628_000 * 5, 1), (2_628_000 * 5 + 1, 2), (2_628_000 * 50, 10)]
)
def test_replicas_at_ten_a_second_half_used(inferences: float, count: int) -> None:
    assert formulas.replicas(inferences_per_month=inferences, throughput_per_s=10, utilisation=0.5) == count


@given(usd=positive, rate=positive, used=share, inferences=st.floats(min_value=1, max_value=1e12))
def test_a_fleet_never_costs_less_than_its_busy_time(usd: float, rate: float, used: float, inferences: float) -> None:
    busy = inferences * formulas.usd_per_inference(usd_per_hour=usd, throughput_per_s=rate, utilisation=used)
    count = formulas.replicas(inferences_per_month=inferences, throughput_per_s=rate, utilisation=used)
    monthly = formulas.usd_per_month(replicas=count, usd_per_hour=usd)
    assert monthly >= busy * (1 - 1e-9)
    one_less = formulas.usd_per_month(replicas=count - 1, usd_per_hour=usd)
    assert count == 1 or one_less < busy * (1 + 1e-9)


@given(usd=positive, rate=positive, used=share)
def test_half_the_throughput_or_use_doubles_the_price(usd: float, rate: float, used: float) -> None:
    price = formulas.usd_per_inference(usd_per_hour=usd, throughput_per_s=rate, utilisation=used)
    slower = formulas.usd_per_inference(usd_per_hour=usd, throughput_per_s=rate / 2, utilisation=used)
    idler = formulas.usd_per_inference(usd_per_hour=usd, throughput_per_s=rate, utilisation=used / 2)
    assert math.isclose(slower, 2 * price) and math.isclose(idler, 2 * price)
