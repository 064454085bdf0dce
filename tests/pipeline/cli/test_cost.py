import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Compress = Callable[..., Any]


@pytest.fixture
def bench(tmp_path: Path, bench_document: dict[str, Any]) -> Path:
    """Timings of a float model and of one that is twice as fast, a third of the size and draws half of the energy."""

    def variant(name: str, rate: float, size_bytes: int, joules: float) -> dict[str, Any]:
        return {
            "id": name,
            "model": {"sha256": name, "size_bytes": size_bytes},
            "throughput_per_s": {"value": rate, "low": rate, "high": rate, "scenario": "single", "batch": 1},
            "cold_start_ms": {"import": 500.0, "session": 400.0, "first_run": 100.0},
            "memory": {"vm_hwm_bytes": 200_000_000},
            "latency_ms": {"n": 9, "min": 1.0, "p50": 1e3 / rate, "mean": 1e3 / rate},
            "energy": {"source": "rapl", "j_per_inference": joules},
        }

    path = tmp_path / "bench.json"
    variants = [variant("float", 100, 90_000_000, 0.36), variant("int8", 200, 30_000_000, 0.18)]
    path.write_text(json.dumps(bench_document | {"variants": variants}))
    return path


SETTINGS = """
storage_usd_per_gb_month: "0.02"
versions_kept: 10
transfer_usd_per_gb: "0.10"
deployments_per_month: 5
devices: 1000
updates_per_month: 2
starts_per_month: 3600
bandwidth: 10 MB/s
serverless_usd_per_gb_s: "0.00002"
electricity_usd_per_kwh: "0.5"
pue: 1.5
grid: {g_co2e_per_kwh: 400, region: Here, year: 2025, source: me}
"""


def test_every_line_of_the_bill_is_computed_and_shown(compress: Compress, bench: Path, tmp_path: Path) -> None:
    (tmp_path / "cost.yaml").write_text(SETTINGS)
    words = "--price box=0.36 --instance box --inferences-per-month 1000M --utilisation 100% --one-off int8=10h@0.5+95"
    words += f" --settings {tmp_path / 'cost.yaml'}"
    document = json.loads(compress("cost", bench, *words.split(), "--json", "-").out)
    row = document["variants"][1]["instances"][0]
    assert row["replicas"] == 2  # 1e9 a month are 380.5 a second
    assert row["monthly_usd"] == pytest.approx(
        {
            "compute": 2 * 730 * 0.36,
            "storage": 0.03 * 10 * 0.02,
            "transfer": 0.03 * (5 * 2 + 1000 * 2) * 0.10,
            "starts": 3600 * (3 + 1) / 3600 * 0.36,  # three seconds to pull, one to load and run
            "electricity": 0.18 * 1e9 * 1.5 / 3.6e6 * 0.5,
            "total": 525.6 + 0.006 + 6.03 + 1.44 + 37.5,
            "serverless_instead": 0.2 * 0.005 * 1e9 * 0.00002,
        }
    )
    assert row["energy"]["kg_co2e_per_month"] == pytest.approx(75 * 0.4)
    assert document["variants"][1]["one_off_usd"] == 100
    shown = compress("cost", bench, *words.split()).out
    assert "electricity" in shown and "kg CO2e" in shown and "(Here, 2025, me)" in shown
