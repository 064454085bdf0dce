import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from onnxpress.cost.cost import cost
from onnxpress.cost.options import CostOptions
from onnxpress.errors import DataError

C3 = "gcp/c3-standard-4/us-central1"
TODAY = date(2026, 8, 1)


def bench(**rates: tuple[float, float, float]) -> dict[str, Any]:
    """A benchmark's result with these throughputs (value, low, high)."""
    variants = [
        {"id": name, "throughput_per_s": {"value": value, "low": low, "high": high, "scenario": "single", "batch": 1}}
        for name, (value, low, high) in rates.items()
    ]
    return {"schema": "onnxpress.bench/1", "host": {"fingerprint": "f00"}, "baseline": "float", "variants": variants}


def options(**given: object) -> CostOptions:
    return CostOptions.model_validate(given)


def test_cost_of_two_variants() -> None:
    found = cost(
        bench(float=(100, 90, 110), int8=(200, 190, 210)),
        options(instances=[C3], price={C3: "0.36"}, inferences_per_month="1000M"),
        today=TODAY,
    )
    # 0.36 $/h = 1e-4 $/s; at 100/s half used, a million take 20,000 s.
    one, two = (variant["instances"][0] for variant in found["variants"])
    assert one["usd_per_million"] == pytest.approx({"value": 2.0, "low": 2 * 100 / 110, "high": 2 * 100 / 90})
    assert two["usd_per_million"]["value"] == pytest.approx(1.0)
    assert (one["change_vs_baseline_pct"], two["change_vs_baseline_pct"]) == (None, pytest.approx(-50))
    # 1e9 a month are 380.5/s: 7.61 machines at 50/s, 3.81 at 100/s.
    assert (one["replicas"], two["replicas"]) == (8, 4)
    assert one["usd_per_month"] == pytest.approx(8 * 730 * 0.36)
    assert found["utilisation"] == 0.5 and found["inferences_per_month"] == 1_000_000_000
    assert found["measured_on"] == "f00" and found["extrapolated"] is True
    json.dumps(found, allow_nan=False)


def test_without_a_volume_there_is_no_fleet() -> None:
    found = cost(bench(float=(100, 90, 110)), options(instances=[C3]), today=TODAY)
    priced = found["variants"][0]["instances"][0]
    assert priced["replicas"] is None and priced["usd_per_month"] is None
    assert priced["usd_per_hour"] == 0.201608 and priced["as_of"] == "2026-07-30" and priced["layer"] == "bundled"
    assert found["warnings"] == []


def test_a_missing_price_is_null_and_said_never_zero() -> None:
    found = cost(bench(float=(100, 90, 110)), options(instances=["gcp/c3-standard-5/us-central1"]), today=TODAY)
    priced = found["variants"][0]["instances"][0]
    assert priced["usd_per_hour"] is None and priced["usd_per_million"] is None and priced["layer"] is None
    (warning,) = found["warnings"]
    assert warning["code"] == "missing-price"
    assert "Did you mean 'gcp/c3-standard-" in warning["message"]


@pytest.mark.parametrize(("today", "warns"), [(date(2026, 10, 28), False), (date(2026, 10, 29), True)])
def test_a_price_older_than_ninety_days_is_said(today: date, warns: bool) -> None:
    found = cost(bench(float=(100, 90, 110)), options(instances=[C3]), today=today)
    assert [warning["code"] for warning in found["warnings"]] == ["old-price"] * warns
    assert not warns or "91 days old (of 2026-07-30)" in found["warnings"][0]["message"]


def test_where_one_machine_is_enough_compression_saves_nothing_and_the_notes_say_so() -> None:
    rates = bench(float=(100, 90, 110), int8=(200, 190, 210))
    small = cost(rates, options(instances=[C3], inferences_per_month="1M"), today=TODAY)
    note = next(note for note in small["notes"] if "saves nothing" in note)
    assert "1M inferences a month need 1 machine with 'float' already, and as many with int8" in note
    large = cost(rates, options(instances=[C3], inferences_per_month="10G"), today=TODAY)
    assert not any("saves nothing" in note for note in large["notes"])


def test_a_machine_that_was_measured_itself_is_not_extrapolated(tmp_path: Path) -> None:
    table = tmp_path / "own.yaml"
    table.write_text(
        "{schema: onnxpress.prices/1, currency: USD, as_of: 2026-08-01, source: us, instances: ["
        "{provider: own, type: box, region: here, price_per_hour: '1', fingerprint: f00}]}"
    )
    found = cost(bench(float=(1, 1, 1)), options(instances=["own/box/here"], prices=table), today=TODAY)
    assert found["extrapolated"] is False
    assert not any("measured on the host of the benchmark" in note for note in found["notes"])


def test_only_a_benchmark_can_be_priced() -> None:
    with pytest.raises(DataError, match=r"its schema is 'onnxpress\.run/1'"):
        cost({"schema": "onnxpress.run/1"}, options(), today=TODAY)


def test_options_as_a_recipe_and_the_command_line_give_them() -> None:
    recipe = options(instances=[C3], inferences_per_month="100M", utilisation=0.5)
    assert recipe.inferences_per_month == 100_000_000
    line = options(instances=(C3,), utilisation="50%", price=("c3-standard-4=0.19", "box=1"))
    assert line.utilisation == 0.5 and {name: str(amount) for name, amount in line.price.items()} == {
        "c3-standard-4": "0.19",
        "box": "1",
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"utilisation": 0}, "greater than 0"),
        ({"utilisation": "150%"}, "is no share of a whole"),
        ({"inferences_per_month": "many"}, "is no number"),
        ({"inferences_per_month": 0}, "greater than or equal to 1"),
        ({"instances": []}, "at least 1 item"),
        ({"price": ["0.19"]}, "TYPE=DOLLARS_PER_HOUR"),
        ({"price": ["box=cheap"]}, "is no price"),
        ({"price": {"box": 0.19}}, "write it in quotes"),
        ({"instance": [C3]}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        options(**given)
