"""Catalogues of prices: their formats, and that nothing but `refresh` touches a network."""

import json
import socket
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from onnxpress.cost import prices, sources
from onnxpress.cost.prices import Price
from onnxpress.cost.sources import Chosen
from onnxpress.errors import DataError, UsageError

GCOSTS = b"""
about: {generated: 2026-10-01, license: Apache-2.0}
compute:
  instance:
    c3-standard-4:
      cpu: 4
      ram: 16
      cost: {us-central1: {hour: 0.201608, hour_spot: 0.0494, month: 147.1}, europe-west4: {hour: 0.2116884}}
    g2-standard-4: {cpu: 4, ram: 16, l4: 1, cost: {us-central1: {hour: 0.706832255, hour_spot: 0.397336}}}
    c4a-standard-4: {cpu: 4, ram: 16, cost: {us-central1: {hour: 0.1796}}}
"""
SKYPILOT_COLUMNS = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,Arch"
SKYPILOT = f"""{SKYPILOT_COLUMNS}
g5.xlarge,A10G,1.0,4.0,16.0,{{}},1.006,0.41,us-east-1,x86_64
g5.xlarge,A10G,1.0,4.0,16.0,{{}},1.005,0.39,us-east-1,x86_64
c7g.xlarge,,,4.0,8.0,,0.145,,us-east-1,arm64
c7g.xlarge,,,4.0,8.0,,0.17,,eu-west-1,arm64
""".encode()
INTEL, GRAVITON = "Intel Xeon Scalable", "AWS Graviton3 Processor"


def offer(kind: str, price: str, processor: str, system: str = "Linux", term: str = "OnDemand") -> str:
    fixed = ("Shared", "Used", "NA", "", "us-east-1")
    return ",".join(
        f'"{each}"' for each in ("A", term, price, "USD", "Hrs", kind, "4", "8 GiB", processor, system, *fixed)
    )


AWS = "\n".join(
    [
        '"FormatVersion","v1.0"',
        '"Publication Date","2026-09-30T12:00:00Z"',
        '"Version","20260930120000"',
        '"SKU","TermType","PricePerUnit","Currency","Unit","Instance Type","vCPU","Memory","Physical Processor",'
        '"Operating System","Tenancy","CapacityStatus","Pre Installed S/W","GPU","Region Code"',
        offer("c7i.xlarge", "0.1785000000", INTEL),
        offer("c7i.xlarge", "0.3600000000", INTEL, system="Windows"),
        offer("c7i.xlarge", "0.1000000000", INTEL, term="Reserved"),
        offer("c7g.xlarge", "0.1450000000", GRAVITON),
        offer("c7g.xlarge", "0.0000000000", GRAVITON),
    ]
).encode()


def azure(sku: str, price: float, product: str = "Virtual Machines Dsv5 Series") -> dict[str, Any]:
    return {
        "armSkuName": "Standard_D4s_v5",
        "armRegionName": "eastus",
        "skuName": sku,
        "productName": product,
        "retailPrice": price,
        "currencyCode": "USD",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "effectiveStartDate": "2026-09-01T00:00:00Z",
    }


AZURE = json.dumps(
    {
        "Items": [
            azure("D4s v5", 0.192),
            azure("D4s v5 Spot", 0.0384),
            azure("D4s v5 Low Priority", 0.05),
            azure("D4s v5", 0.376, "Virtual Machines Dsv5 Series Windows"),
        ]
    }
).encode()
TABLE_COLUMNS = "provider,type,region,arch,vcpus,memory_gib,accelerator,accelerator_count,price_per_hour,as_of,source"
TABLE = f"""{TABLE_COLUMNS}
own,box,here,x86_64,8,32,,,0.25,2026-09-01,a contract
own,tpu,here,,,,v5e,4,1.2,,
""".encode()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("somebody opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def read(name: str, content: bytes, **chosen: Any) -> dict[str, Price]:
    rows = sources.parse(name, content, Chosen(**chosen), where="file")
    return {row.instance: row for row in rows}


def test_the_sources_are_the_files() -> None:
    assert sources.names() == ["aws", "azure", "gcosts", "skypilot", "table"]
    for name in sources.names():
        assert callable(sources.source(name).parse) and callable(sources.source(name).url)
    with pytest.raises(UsageError, match=r"price source 'gcost': unknown. Did you mean 'gcosts'"):
        sources.source("gcost")


def test_gcosts() -> None:
    found = read("gcosts", GCOSTS)
    c3 = found["gcp/c3-standard-4/us-central1"]
    assert (c3.price_per_hour, c3.spot_per_hour) == (Decimal("0.201608"), Decimal("0.0494"))
    assert (c3.vcpus, c3.memory_gib, c3.as_of, c3.accelerator) == (4, 16, date(2026, 10, 1), None)
    g2 = found["gcp/g2-standard-4/us-central1"]
    assert (g2.accelerator, g2.accelerator_count, g2.price_per_hour) == ("l4", 1, Decimal("0.706832255"))
    assert found["gcp/c4a-standard-4/us-central1"].arch == "arm64"
    assert found["gcp/c3-standard-4/europe-west4"].spot_per_hour is None


def test_skypilot_takes_the_cheapest_zone_and_leaves_out_gpus_without_their_price() -> None:
    found = read("skypilot", SKYPILOT, provider="aws", regions=("us-east-1",))
    g5, c7g = found["aws/g5.xlarge/us-east-1"], found["aws/c7g.xlarge/us-east-1"]
    assert len(found) == 2 and g5.price_per_hour == Decimal("1.005")
    assert (g5.accelerator, g5.accelerator_count, c7g.arch) == ("a10g", 1, "arm64")
    assert "gcp/g5.xlarge/us-east-1" not in read("skypilot", SKYPILOT, provider="gcp")
    with pytest.raises(UsageError, match="Name it with --provider"):
        read("skypilot", SKYPILOT)


def test_aws_takes_linux_on_demand_only() -> None:
    found = read("aws", AWS)
    assert {name: str(row.price_per_hour) for name, row in found.items()} == {
        "aws/c7i.xlarge/us-east-1": "0.1785000000",
        "aws/c7g.xlarge/us-east-1": "0.1450000000",
    }
    c7g = found["aws/c7g.xlarge/us-east-1"]
    assert (c7g.arch, c7g.vcpus, c7g.memory_gib, c7g.as_of) == ("arm64", 4, 8, date(2026, 9, 30))
    assert c7g.source == "AWS Price List 20260930120000"


def test_azure_takes_linux_on_demand_and_spot() -> None:
    (found,) = read("azure", AZURE).values()
    assert found.instance == "azure/Standard_D4s_v5/eastus"
    assert (found.price_per_hour, found.spot_per_hour) == (Decimal("0.192"), Decimal("0.0384"))


def test_a_table_of_ones_own() -> None:
    found = read("table", TABLE)
    assert (found["own/box/here"].vcpus, found["own/box/here"].source) == (8, "a contract")
    assert (found["own/tpu/here"].accelerator, found["own/tpu/here"].arch) == ("v5e", None)


def test_rows_are_chosen_by_type_and_region() -> None:
    assert set(read("gcosts", GCOSTS, types=("c3-*",), regions=("us-central1",))) == {"gcp/c3-standard-4/us-central1"}
    with pytest.raises(DataError, match="no row matches"):
        read("gcosts", GCOSTS, types=("c9-*",))


@pytest.mark.parametrize("name", ["aws", "azure", "gcosts", "table"])
def test_something_else_is_refused_in_one_line(name: str) -> None:
    for content in (b"", b"hello: world", b"{}", b"a,b\n1,2\n", b"\xff\xfe"):
        with pytest.raises(DataError) as caught:
            sources.parse(name, content, Chosen(), where="file")
        assert "\n" not in str(caught.value)


def test_what_was_read_can_be_written_and_read_again(tmp_path: Path) -> None:
    rows = sources.parse("gcosts", GCOSTS, Chosen(), where="file")
    path = tmp_path / "prices.yaml"
    path.write_text(prices.dump(rows, as_of=date(2026, 10, 2), source="here"))
    assert prices.read(path) == sorted(rows, key=lambda row: row.instance)


def test_refresh_asks_the_address_of_the_source() -> None:
    asked: list[str] = []

    def fetch(address: str) -> bytes:
        asked.append(address)
        return AZURE

    chosen = Chosen(regions=("eastus",), types=("Standard_D4s_v5",))
    rows, address = sources.refresh("azure", chosen, fetch=fetch)
    assert len(rows) == 1 and asked == [address]
    assert address.startswith("https://prices.azure.com/") and "armRegionName%20eq%20%27eastus%27" in address


@pytest.mark.parametrize(
    ("name", "chosen", "says"),
    [
        ("aws", Chosen(), "Name one, for example --region us-east-1"),
        ("azure", Chosen(regions=("eastus",), types=("Standard_*",)), "Name regions and types in full"),
        ("skypilot", Chosen(), "--provider aws"),
        ("table", Chosen(), "compress prices import"),
    ],
)
def test_a_refresh_that_must_know_more(name: str, chosen: Chosen, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        sources.refresh(name, chosen, fetch=lambda _: b"")
    assert says in str(caught.value)


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(DataError, match=r"cannot be downloaded \(no route to host\). Import a file instead"):
        sources.refresh("gcosts", Chosen())


def test_the_commands(compress: Callable[..., Any], tmp_path: Path) -> None:
    catalogue, made = tmp_path / "pricing.yml", tmp_path / "mine.yaml"
    catalogue.write_bytes(GCOSTS)
    done = compress("prices", "import", catalogue, "--format", "gcosts", "-o", made, "--type", "c3-*", "--json", "-")
    assert done.code == 0 and len(json.loads(done.out)["instances"]) == 2
    assert compress("prices", "import", catalogue, "--format", "gcosts", "-o", made).code == 2  # it is there already
    listed = json.loads(compress("prices", "list", "--prices", made, "--type", "c3-standard-4", "--json", "-").out)
    assert {row["layer"] for row in listed["instances"]} == {"file"}
    shown = compress("prices", "show", "gcp/c3-standard-4/us-central1", "--prices", made)
    assert shown.out.index("bundled:") < shown.out.index("file:")
    assert compress("prices", "show", "gcp/c3-standard-5/us-central1").code == 2
    assert "machine" in compress("prices", "list").out


def test_validation_of_a_table_by_form_and_age(compress: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(prices.dump([], as_of=date(2026, 10, 2), source="here").replace("USD", "EUR"))
    wrong = compress("prices", "validate", path)
    assert wrong.code == 2 and "currency" in wrong.err
    path.write_text(prices.dump([old_box()], as_of=date(2026, 10, 2), source="here"))
    old = compress("prices", "validate", path)
    assert old.code == 4 and "1 are older than 90 days (own/box/here)" in old.err
    assert compress("prices", "validate", path, "--max-age", "9999d").code == 0


def test_a_machine_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(prices.dump([old_box(), old_box()], as_of=date(2026, 10, 2), source="here"))
    with pytest.raises(UsageError, match="own/box/here is there twice"):
        prices.read(path)


def test_cost_ends_with_4_without_a_price_and_for_old_ones_on_request(
    compress: Callable[..., Any], bench_document: dict[str, Any], tmp_path: Path
) -> None:
    bench, table = tmp_path / "bench.json", tmp_path / "old.yaml"
    bench.write_text(json.dumps(bench_document))
    missing = compress("cost", bench, "--instance", "own/box/here")
    assert missing.code == 4 and "own/box/here: no price is known" in missing.err
    table.write_text(prices.dump([old_box()], as_of=date(2020, 1, 1), source="here"))
    words = ("cost", bench, "--instance", "own/box/here", "--prices", table)
    warned = compress(*words)
    assert warned.code == 0 and "days old (of 2020-01-01)" in warned.out
    refused = compress(*words, "--max-price-age", "90d")
    assert refused.code == 4 and "days old (of 2020-01-01)" in refused.err


def test_settings_of_a_recipe_serve_the_command_too(
    compress: Callable[..., Any], bench_document: dict[str, Any], tmp_path: Path
) -> None:
    bench, settings = tmp_path / "bench.json", tmp_path / "cost.yaml"
    bench.write_text(json.dumps(bench_document))
    settings.write_text("storage_usd_per_gb_month: '0.5'\nutilisation: 25%\ninstances: [box]\n")
    words = ("cost", bench, "--price", "box=3.6", "--inferences-per-month", "1M", "--settings", settings, "--json", "-")
    found = json.loads(compress(*words, "--utilisation", "100%").out)
    (row,) = found["variants"][0]["instances"]
    assert row["usd_per_million"]["value"] == pytest.approx(10)  # 1 USD per 1000 s and all of it used, not 25 %
    assert row["monthly_usd"]["storage"] == pytest.approx(1)
    settings.write_text("pue: 1.1\nstorrage_usd_per_gb_month: '1'\n")
    wrong = compress(*words)
    assert wrong.code == 2 and f"{settings}, line 2: unknown key 'storrage_usd_per_gb_month'. Did you mean" in wrong.err
    settings.write_text("- 1\n")
    assert "must be a mapping" in compress(*words).err


def old_box() -> Price:
    return Price(provider="own", type="box", region="here", price_per_hour=Decimal(1), as_of=date(2020, 1, 1))
