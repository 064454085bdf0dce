import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from onnxpress.cost.cost import check, cost
from onnxpress.cost.options import CostOptions
from onnxpress.errors import DataError, UsageError

C3 = "gcp/c3-standard-4/us-central1"
TODAY = date(2026, 8, 1)


def bench(**rates: tuple[float, float, float]) -> dict[str, Any]:
    """A benchmark's result with these throughputs (value, low, high), of before anything else was measured."""
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
        ({"price": ["0.19"]}, "write NAME=VALUE"),
        ({"throughput": ["tpu=2400/s"]}, "INSTANCE:VARIANT=RATE"),
        ({"throughput": ["tpu:int8=2400"]}, "is no rate"),
        ({"bandwidth": "100 MB"}, "is no bandwidth"),
        ({"grid": {"g_co2e_per_kwh": 400}}, "grid.region"),
        ({"latency": "99=20ms"}, "write a percentile"),
        ({"max_price_age": "90"}, "is no number of days"),
        ({"one_off": {"int8": {"hour": 1}}}, "Extra inputs"),
        ({"price": ["box=cheap"]}, "is no price"),
        ({"price": {"box": 0.19}}, "write it in quotes"),
        ({"instance": [C3]}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        options(**given)


def full(fingerprint: str = "f00", provider: str = "cpu") -> dict[str, Any]:
    """A benchmark's result as `compress bench` writes it, of a float model and one that is twice as fast."""
    variants = [
        {
            "id": name,
            "model": {"sha256": name, "size_bytes": size},
            "throughput_per_s": {"value": rate, "low": rate, "high": rate},
            "latency_ms": {"p50": 1000 / rate, "mean": 1000 / rate, "p99": 1500 / rate},
            "cold_start_ms": {"import": 100.0, "session": 300.0, "first_run": 100.0},
            "memory": {"vm_hwm_bytes": memory},
            "energy": {"j_per_inference": joules},
            "server": None,
        }
        for name, size, rate, memory, joules in (
            ("float", 400_000_000, 100.0, 4 * 2**30, 2.0),
            ("int8", 100_000_000, 200.0, 2**30, 0.8),
        )
    ]
    return {
        "schema": "onnxpress.bench/1",
        "host": {"fingerprint": fingerprint},
        "runtime": {"threads": 2, "provider": provider},
        "baseline": "float",
        "variants": variants,
    }


TABLE = """
schema: onnxpress.prices/1
currency: USD
as_of: 2026-08-01
source: us
instances:
  - {provider: own, type: large, region: here, vcpus: 8, memory_gib: 16, price_per_hour: "0.72"}
  - {provider: own, type: small, region: here, vcpus: 2, memory_gib: 4, price_per_hour: "0.36"}
  - {provider: own, type: gpu, region: here, vcpus: 4, memory_gib: 16, accelerator: x1, price_per_hour: "1.80"}
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(TABLE)
    return path


def row(found: dict[str, Any], variant: str, instance: str) -> dict[str, Any]:
    (one,) = (each for each in found["variants"] if each["id"] == variant)
    (priced,) = (each for each in one["instances"] if each["instance"] == f"own/{instance}/here")
    return dict(priced)


def choice(found: dict[str, Any], variant: str) -> dict[str, Any]:
    return next(dict(each["choice"]) for each in found["variants"] if each["id"] == variant)


def test_the_smaller_model_fits_the_smaller_machine(table: Path) -> None:
    as_fast = ["own/large/here=1x", "own/small/here=1x"]
    given = options(instances=["own/*/here"], prices=table, inferences_per_month="1M", speed=as_fast)
    found = cost(full(), given, today=TODAY)
    assert (row(found, "float", "small")["fits"], row(found, "int8", "small")["fits"]) == (False, True)
    # 16 GiB less one for the system, by 1.2 times 4 GiB and 1 GiB; eight CPUs by two threads
    assert (row(found, "float", "large")["copies_by_memory"], row(found, "float", "large")["bound_by"]) == (3, "memory")
    assert (row(found, "int8", "large")["copies_by_memory"], row(found, "int8", "large")["bound_by"]) == (12, "cpu")
    assert choice(found, "float")["instance"] == "own/large/here"
    assert choice(found, "int8") == {
        "instance": "own/small/here",
        "basis": "scaled",
        "usd_per_million": pytest.approx(0.36 * 730),
        "usd_per_month": pytest.approx(0.36 * 730),
        "reason": None,
    }
    assert "own/small/here: too little memory for 'float'; it is enough for int8." in found["notes"]
    json.dumps(found, allow_nan=False)


def test_a_latency_bound_excludes_machines_that_break_it_or_are_unknown(table: Path) -> None:
    given = options(
        instances=["own/*/here"],
        prices=table,
        latency="p99=12ms",
        throughput=["own/gpu/here:int8=5000/s"],
        speed=["own/large/here=1.5x", "own/small/here=1x"],
    )
    found = cost(full(), given, today=TODAY)
    # float has a p99 of 15 ms; on the machine that is 1.5 times as fast, 10 ms
    assert row(found, "float", "large")["latency_ms"] == pytest.approx(10)
    assert choice(found, "float")["instance"] == "own/large/here" and choice(found, "float")["basis"] == "scaled"
    assert choice(found, "int8")["instance"] == "own/small/here"
    assert row(found, "int8", "gpu")["basis"] == "given" and row(found, "int8", "gpu")["meets_latency"] is None
    strict = cost(full(), options(instances=["own/large/here"], prices=table, latency="p99=1ms"), today=TODAY)
    assert choice(strict, "int8")["instance"] is None
    assert choice(strict, "int8")["reason"] == "no machine is known to keep the latency bound"


def test_cpu_against_gpu_by_a_given_throughput(table: Path) -> None:
    given = options(
        instances=["own/large/here", "own/gpu/here"],
        prices=table,
        throughput=["own/gpu/here:float=2000/s", "own/gpu/here:int8=300/s"],
        speed=["own/large/here=1x"],
    )
    found = cost(full(), given, today=TODAY)
    assert choice(found, "float")["instance"] == "own/gpu/here"  # 2.5 times the price for 20 times the speed
    assert choice(found, "int8")["instance"] == "own/large/here"
    assert row(found, "float", "gpu")["extrapolated"] is False
    assert any("Some throughputs were given" in note for note in found["notes"])


def test_nothing_is_said_of_an_accelerator_from_a_cpu_or_of_a_cpu_from_an_accelerator(table: Path) -> None:
    given = options(instances=["own/*/here"], prices=table)
    on_cpu, on_gpu = cost(full(), given, today=TODAY), cost(full(provider="cuda"), given, today=TODAY)
    assert row(on_cpu, "float", "gpu")["usd_per_million"] is None and row(on_cpu, "float", "gpu")["basis"] is None
    assert row(on_gpu, "float", "large")["usd_per_million"] is None
    assert row(on_gpu, "float", "gpu")["usd_per_million"] is not None
    assert any("own/gpu/here: has an accelerator where" in note for note in on_cpu["notes"])


def test_a_second_host_prices_its_own_machine(table: Path) -> None:
    other = full("f11")
    for variant in other["variants"]:
        variant["throughput_per_s"] = {"value": 1000.0, "low": 900.0, "high": 1100.0}
    given = options(instances=["own/large/here", "own/small/here"], prices=table, measured=["own/small/here=f11"])
    found = cost([full(), other], given, today=TODAY)
    small, large = row(found, "int8", "small"), row(found, "int8", "large")
    assert (small["basis"], small["throughput_per_s"], small["measured_on"]) == ("measured", 1000, "f11")
    assert (large["basis"], large["throughput_per_s"], large["measured_on"]) == ("extrapolated", 200, "f00")


def test_benchmarks_are_never_merged_silently() -> None:
    with pytest.raises(DataError, match=r"benchmark 2: was taken on the host f00, .* give one of each host"):
        cost([full(), full()], options(), today=TODAY)
    other = full("f11")
    other["variants"][1]["model"]["sha256"] = "changed"
    with pytest.raises(DataError, match="its variant 'int8' is another model"):
        cost([full(), other], options(), today=TODAY)
    other["variants"].pop()
    with pytest.raises(DataError, match="its variant 'int8' is not there"):
        cost([full(), other], options(), today=TODAY)


def test_throughput_at_the_service_level_counts_where_it_was_measured(table: Path) -> None:
    bench = full()
    sla = {"percent": 99, "limit_ms": 20.0}
    bench["variants"][1]["server"] = {"rate_per_s": 120.0, "too_high_per_s": 125.0, "sla": sla}
    same = cost(bench, options(instances=["own/large/here"], prices=table, latency="p99=20ms"), today=TODAY)
    assert row(same, "int8", "large")["throughput_per_s"] == 120 and row(same, "int8", "large")["meets_latency"] is True
    laxer = cost(bench, options(instances=["own/large/here"], prices=table, latency="p99=30ms"), today=TODAY)
    assert row(laxer, "int8", "large")["throughput_per_s"] == 120  # who keeps 20 ms keeps 30 ms
    stricter = cost(bench, options(instances=["own/large/here"], prices=table, latency="p99=10ms"), today=TODAY)
    assert row(stricter, "int8", "large")["throughput_per_s"] == 200


@pytest.mark.parametrize(
    ("bound", "speed", "meets"),
    [
        ("p99=20ms", [], False),
        ("p99=10ms", [], False),  # 7.5 ms one at a time, but no rate kept even 20 ms
        ("p99=30ms", [], True),  # the scenario says nothing of a laxer bound
        ("p99.9=20ms", [], False),  # if one in a hundred is too late, so is one in a thousand
        ("p99=20ms", ["own/large/here=2x"], None),
    ],
)
def test_where_the_server_scenario_found_no_rate_the_bound_is_not_kept(
    table: Path, bound: str, speed: list[str], meets: bool | None
) -> None:
    bench = full()
    sla = {"percent": 99, "limit_ms": 20.0}
    bench["variants"][1]["server"] = {"rate_per_s": None, "too_high_per_s": 20.0, "sla": sla}
    given = options(instances=["own/large/here"], prices=table, latency=bound, speed=speed)
    found = cost(bench, given, today=TODAY)
    assert row(found, "int8", "large")["meets_latency"] is meets
    assert (choice(found, "int8")["instance"] is None) is (not meets)
    assert any("int8: in the server scenario no rate" in note for note in found["notes"]) is (meets is not True)


def test_the_cheapest_machine_is_not_named_where_no_machine_has_a_speed_of_its_own(table: Path) -> None:
    instances = ["own/large/here", "own/small/here"]
    found = cost(full(), options(instances=instances, prices=table), today=TODAY)
    assert choice(found, "int8")["instance"] is None
    assert "the speed of none of them is" in str(choice(found, "int8")["reason"])
    assert row(found, "int8", "small")["usd_per_million"] is not None


def test_a_machine_for_nothing() -> None:
    given = options(instances=["box"], price={"box": "0"}, inferences_per_month="1M", one_off={"int8": "400"})
    found = cost(full(), given, today=TODAY)
    priced = found["variants"][1]["instances"][0]
    assert priced["usd_per_million"]["value"] == 0 and priced["change_vs_baseline_pct"] is None
    assert found["variants"][1]["break_even_months"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"price": {"gcp/c9-standard-4/us-central1": "1"}}, "price of 'gcp/c9-standard-4/us-central1': this machine"),
        ({"price": {"n2-standard-4": "1"}}, "price of 'n2-standard-4': this machine is not among"),
        ({"throughput": ["gcp/c4/x:int8=5/s"]}, "throughput of 'gcp/c4/x': this machine"),
        ({"throughput": [f"{C3}:int9=5/s"]}, "of 'int9': there is no such variant. Did you mean 'int8'?"),
        ({"speed": ["c3=2x"]}, "speed of 'c3': this machine"),
        ({"measured": ["c3=f00"]}, "measured of 'c3': this machine"),
        ({"one_off": {"int9": "1"}}, "one-off cost of 'int9': there is no such variant"),
    ],
)
def test_an_option_for_what_is_not_priced_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        cost(full(), options(instances=[C3], **given), today=TODAY)


def test_a_price_that_is_not_known_is_found_before_the_work() -> None:
    check(options(instances=[C3, "gcp/c3-*/us-central1"]), ["int8"])
    with pytest.raises(UsageError, match=r"gcp/c3-standard-5/us-central1: no price is known"):
        check(options(instances=["gcp/c3-standard-5/us-central1"]), ["int8"])


def test_a_month_line_by_line(table: Path) -> None:
    given = options(
        instances=["own/large/here"],
        prices=table,
        inferences_per_month="1000M",
        peak_to_mean=2,
        replicas_min=3,
        storage_usd_per_gb_month="0.02",
        versions_kept=10,
        transfer_usd_per_gb="0.1",
        deployments_per_month=30,
        devices=1000,
        updates_per_month=2,
        starts_per_month=500,
        bandwidth="50 MB/s",
        serverless_usd_per_gb_s="0.00001",
        electricity_usd_per_kwh="0.2",
        pue=1.5,
        grid={"g_co2e_per_kwh": 300, "region": "here", "year": 2025, "source": "the grid's operator"},
    )
    found = row(cost(full(), given, today=TODAY), "float", "large")
    # 1e9 a month are 380.5/s, twice that at the peak, at 50/s used of each: 15.2 machines
    assert found["replicas"] == 16
    lines = found["monthly_usd"]
    assert lines["compute"] == pytest.approx(16 * 730 * 0.72)
    assert lines["storage"] == pytest.approx(0.4 * 10 * 0.02)
    assert lines["transfer"] == pytest.approx(0.4 * (30 * 16 + 2000) * 0.1)
    assert lines["starts"] == pytest.approx(500 * (8 + 0.5) / 3600 * 0.72)  # 400 MB at 50 MB/s, and half a second
    assert found["energy"]["kwh_per_month"] == pytest.approx(2.0 * 1e9 * 1.5 / 3.6e6)
    assert lines["electricity"] == pytest.approx(2.0 * 1e9 * 1.5 / 3.6e6 * 0.2)
    assert found["energy"]["kg_co2e_per_month"] == pytest.approx(2.0 * 1e9 * 1.5 / 3.6e6 * 0.3)
    assert lines["serverless_instead"] == pytest.approx(4 * 2**30 / 1e9 * 0.01 * 1e9 * 1e-5)
    total = sum(lines[name] for name in ("compute", "storage", "transfer", "starts", "electricity"))
    assert lines["total"] == pytest.approx(total)
    assert found["usd_per_million_fleet"] == pytest.approx(total / 1000)


def test_what_has_no_price_is_no_line_and_carbon_has_no_default(table: Path) -> None:
    given = options(instances=["own/large/here"], prices=table, inferences_per_month="1M")
    found = row(cost(full(), given, today=TODAY), "float", "large")
    lines = found["monthly_usd"]
    assert (lines["storage"], lines["transfer"], lines["electricity"], lines["serverless_instead"]) == (None,) * 4
    assert found["energy"]["kg_co2e_per_month"] is None and found["energy"]["kwh_per_month"] > 0


def test_savings_are_net_of_what_the_variant_cost(table: Path) -> None:
    def break_even(**given: object) -> tuple[float | None, float | None]:
        volume = options(instances=["own/large/here"], prices=table, inferences_per_month="1000M", **given)
        (_, int8) = cost(full(), volume, today=TODAY)["variants"]
        return int8["saved_usd_per_month"], int8["break_even_months"]

    # 8 machines against 4
    assert break_even() == (pytest.approx(4 * 730 * 0.72), 0.0)
    making = {"int8": {"hours": 10, "usd_per_hour": "2", "other_usd": "4184.80"}}
    assert break_even(one_off=making) == (pytest.approx(4 * 730 * 0.72), pytest.approx(2))
    assert break_even(one_off=["int8=4204.80"])[1] == pytest.approx(2)
    small = options(instances=["own/large/here"], prices=table, inferences_per_month="1M", one_off=["int8=100"])
    document = cost(full(), small, today=TODAY)
    assert document["variants"][1]["break_even_months"] is None
    assert any("which it never pays back" in note for note in document["notes"])
    with pytest.raises(UsageError, match=r"one-off cost of 'int9': .* Did you mean 'int8'\?"):
        cost(full(), options(one_off=["int9=1"]), today=TODAY)


def test_spot_prices(table: Path) -> None:
    found = cost(full(), options(instances=[C3], spot=True), today=TODAY)
    assert found["variants"][0]["instances"][0]["usd_per_hour"] == 0.0494 and found["pricing"] == "spot"
    none = cost(full(), options(instances=["own/large/here"], prices=table, spot=True), today=TODAY)
    assert "no spot price is known" in none["warnings"][0]["message"]


def test_wildcards_match_machines_that_have_a_price() -> None:
    found = cost(full(), options(instances=["aws/*", C3]), today=TODAY)
    names = [each["instance"] for each in found["variants"][0]["instances"]]
    assert names == ["aws/m7g.large/us-east-1", "aws/g5.xlarge/us-east-1", C3] and found["warnings"] == []
    with pytest.raises(UsageError, match=r"no machine with a price matches"):
        cost(full(), options(instances=["azure/*"]), today=TODAY)
