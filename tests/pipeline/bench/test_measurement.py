import numpy as np
import pytest

from onnxpress.bench.measurement import Measurement, rate_per_s


def measurement(*processes: tuple[tuple[float, ...], ...], batch: int = 1) -> Measurement:
    return Measurement(variant="float", quantity="latency.single", unit="ms", batch=batch, processes=processes)


def test_summary_names_only_what_the_values_support() -> None:
    found = measurement(((1.0, 2.0), (3.0,)), ((4.0, 5.0),)).summary()
    assert found == {
        "n": 5,
        "min": 1.0,
        "p50": 3.0,
        "mean": 3.0,
        "p90": None,
        "p95": None,
        "p99": None,
        "p999": None,
        "p99_guaranteed": None,
        "quantiles": pytest.approx([1 + 0.2 * step for step in range(21)]),
        "mad": pytest.approx(1.4826),
        "cov_pct": pytest.approx(52.7046),
        "outliers": {"mild": 0, "severe": 0},
    }


def test_tail_appears_with_enough_values() -> None:
    found = measurement((tuple(map(float, range(1, 474))),)).summary()
    assert found["p99"] == pytest.approx(468.28)
    assert found["p999"] is None


def test_rate_counts_the_samples_of_a_batch() -> None:
    assert rate_per_s((2.0, 2.0, 4.0), 8) == 3000  # 24 samples in 8 ms


def test_rate_has_an_interval_over_blocks() -> None:
    blocks = tuple((10.0 + 0.1 * i,) for i in range(-3, 4))
    found = measurement(blocks, batch=2).rate_per_s()
    assert found.value == pytest.approx(200, rel=1e-3)
    assert 190 < found.low < 200 < found.high < 210
    assert found.count == 7


def test_bounds_of_the_statistics_rest_on_blocks_and_processes() -> None:
    random = np.random.default_rng(0)
    processes = tuple(tuple(tuple(random.lognormal(0, 0.02, 40)) for _ in range(7)) for _ in range(5))
    found = measurement(*processes).bounds()
    for name, value in {"p50": 1.0, "mean": 1.0002, "p90": 1.0260}.items():
        low, high = found[name]
        assert low is not None and high is not None and low < value < high
        assert high / low < 1.01 or name == "p90"
    assert found["p95"][1] is found["p99"][1] is None and found["p95"][0] is not None
    # What two processes have in common may be luck.
    assert measurement(*processes[:2]).bounds() == {name: [None, None] for name in ("p90", "p95", "p99", "p999")}
    assert measurement(*(blocks[:3] for blocks in processes)).bounds()["mean"] == [None, None]
