"""Tables of a benchmark: what was measured is shown, what was not is no table."""

from typing import Any

from onnxpress.report import speed

OLD: dict[str, Any] = {
    "baseline": "float",
    "comparisons": [{"candidate": "int8", "metric": "latency.p50"}],
    "variants": [{"id": "float", "throughput_per_s": {"value": 1.0, "scenario": "offline"}}],
}


def full() -> dict[str, Any]:
    rate = {"value": 100.0, "low": 90.0, "high": 110.0, "batch": 8, "threads": 1, "sessions": 2}
    change = {"candidate": "int8", "metric": "latency.p50", "verdict": "pass", "improved": True, "pairs": 30}
    variant = {
        "id": "int8",
        "throughput_per_s": rate | {"scenario": "offline"},
        "batches": [rate | {"scenario": "batch-1", "batch": 1, "p50_ms": 2.0}],
        "end_to_end_ms": {"p50": 1.0, "p90": 2.0, "p99": None},
        "server": {
            "rate_per_s": 50.0,
            "sla": {"percent": 99, "limit_ms": 20.0},
            "p50_ms": 3.0,
            "p99_ms": 19.0,
            "utilisation": 0.5,
        },
        "energy": {"source": "rapl:package-0", "j_per_inference": 0.25, "net_j_per_inference": 0.125},
        "memory": {"arena_peak_bytes": 4_000_000},
        "operators": [
            {"op": f"Op{place}", "provider": "CPUExecutionProvider", "nodes": 2, "ms": 1.5, "share_pct": 10.0}
            for place in range(9)
        ],
    }
    return {
        "baseline": "float",
        "max_regression_pct": 5.0,
        "comparisons": [change | {"change_pct": -20.0, "ci95_pct": [-22.0, -18.0]}],
        "variants": [variant],
    }


def test_older_results_have_no_such_tables() -> None:
    assert speed.tables(OLD) == []


def test_everything_that_was_measured_is_shown() -> None:
    found = speed.tables(full())
    rows = [row for table in found for row in table.rows]
    assert ("int8", "latency.p50", "pass, improved", "-20.0% [-22.0, -18.0]", "30") in rows
    assert ("int8", "1.00 ms", "2.00 ms", "-") in rows
    assert ("int8", "1", "100 [90, 110]", "1 × 2", "2.00 ms") in rows
    assert ("int8", "8", "100 [90, 110]", "1 × 2", "-") in rows
    assert ("int8", "p99 ≤ 20.0 ms", "50", "3.00 ms", "19.0 ms", "50.0%") in rows
    assert ("int8", "rapl:package-0", "0.25", "0.125") in rows
    assert ("int8", "Op0", "CPU", "2", "1.50 ms", "10.0%", "4.00 MB") in rows
    assert all(len(row) == len(table.headings) for table in found for row in table.rows)
    assert len([row for row in rows if any(cell.startswith("Op") for cell in row)]) == speed.SHOWN_OPERATORS


def test_a_service_level_that_cannot_be_kept_is_said() -> None:
    document = full()
    none = {"rate_per_s": None, "p50_ms": None, "p99_ms": None, "utilisation": None}
    document["variants"][0]["server"] |= none | {"too_high_per_s": 120.0, "capacity_per_s": 1200.0}
    why = "none: 120/s, 10% of the capacity, are too many already"
    assert ("int8", "p99 ≤ 20.0 ms", why, "-", "-", "-") in speed.servers(document).rows
    document["variants"][0]["server"]["why"] = "4000 requests at 120/s do not prove p99 <= 20 ms"
    why = "none: 4000 requests at 120/s do not prove p99 <= 20 ms"
    assert ("int8", "p99 ≤ 20.0 ms", why, "-", "-", "-") in speed.servers(document).rows
