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


def test_the_fleet_is_made_for_the_peak_and_never_smaller_than_its_floor() -> None:
    def count(inferences: float, peak: float, floor: int) -> int:
        return formulas.replicas(
            inferences_per_month=inferences, throughput_per_s=10, utilisation=0.5, peak_to_mean=peak, minimum=floor
        )

    assert count(2_628_000 * 50, 1, 2) == 10
    assert count(2_628_000 * 50, 3, 2) == 30
    assert count(1, 3, 2) == 2


def test_copies_of_a_model_on_a_machine() -> None:
    gib = 2**30
    assert formulas.copies_by_cpu(vcpus=8, threads=3) == 2
    assert formulas.copies_by_memory(memory_bytes=16 * gib, reserve_bytes=gib, peak_bytes=gib) == 12
    assert formulas.copies_by_memory(memory_bytes=1.5 * gib, reserve_bytes=gib, peak_bytes=gib) == 0


def test_a_start_pulls_loads_and_runs_once() -> None:
    seconds = formulas.start_s(size_bytes=1e9, bytes_per_s=1e8, load_ms=1500, first_run_ms=500)
    assert seconds == pytest.approx(12)
    assert formulas.starts_usd_per_month(starts_per_month=300, seconds=12, usd_per_hour=0.5) == pytest.approx(0.5)


def test_storage_transfer_and_functions() -> None:
    assert formulas.storage_usd_per_month(size_bytes=2e9, versions=5, usd_per_gb_month=0.02) == pytest.approx(0.2)
    assert formulas.transfer_usd(size_bytes=5e8, copies=100, usd_per_gb=0.12) == pytest.approx(6)
    # three million runs of 120 ms in 1.5 GB are 540,000 GB-s
    functions = formulas.serverless_usd_per_month(
        memory_bytes=1.5e9, seconds=0.12, inferences_per_month=3e6, usd_per_gb_s=0.0000166667
    )
    assert functions == pytest.approx(540_000 * 0.0000166667)


def test_energy_and_carbon() -> None:
    kwh = formulas.kwh(j_per_inference=3.6, inferences=1e6, pue=1.5)
    assert kwh == pytest.approx(1.5)
    assert formulas.carbon_kg(kwh=kwh, g_co2e_per_kwh=400) == pytest.approx(0.6)


def test_break_even() -> None:
    once = formulas.compression_usd(hours=5, usd_per_hour=3, other_usd=85)
    assert once == 100
    assert formulas.break_even_months(once_usd=once, saved_usd_per_month=40) == pytest.approx(2.5)
    assert formulas.break_even_months(once_usd=once, saved_usd_per_month=0) is None
    assert formulas.break_even_months(once_usd=0, saved_usd_per_month=-1) == 0
