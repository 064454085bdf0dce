from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from onnxpress.cost import prices
from onnxpress.errors import UsageError
from onnxpress.host import INT8_FEATURES

C3 = "gcp/c3-standard-4/us-central1"
TABLE = """
schema: onnxpress.prices/1
currency: USD
as_of: 2027-01-01
source: a contract
instances:
  - {{provider: gcp, type: c3-standard-4, region: us-central1, price_per_hour: "{price}"}}
"""


def write(path: Path, price: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TABLE.format(price=price))
    return path


def test_bundled_table_is_complete() -> None:
    rows = prices.read(prices.BUNDLED)
    assert len({row.instance for row in rows}) == len(rows) >= 12
    for row in rows:
        assert row.arch and row.vcpus and row.memory_gib
        assert set(row.isa) <= set(INT8_FEATURES)
        assert (row.accelerator is None) == (row.accelerator_count == 0) == (row.accelerator_memory_gib is None)
        if row.price_per_hour is None:
            assert row.spot_per_hour is None and row.as_of is None and row.source is None
        else:
            assert row.as_of and row.source and row.source.startswith("https://")
            assert row.spot_per_hour is None or row.spot_per_hour < row.price_per_hour
    priced = {row.provider for row in rows if row.price_per_hour is not None}
    assert priced == {"gcp", "aws"} and {row.provider for row in rows} == {"gcp", "aws", "azure"}


def test_bundled_prices_are_exact() -> None:
    quote = prices.quotes(None, {})[C3]
    assert quote.price.price_per_hour == Decimal("0.201608")
    assert quote.price.as_of == date(2026, 7, 30)
    assert quote.layer == "bundled"


def test_layers_replace_each_other_in_order(tmp_path: Path) -> None:
    def winner(file: Path | None = None, price: str | None = None) -> tuple[str, Decimal | None]:
        quote = prices.quotes(file, {C3: Decimal(price)} if price else {})[C3]
        return quote.layer, quote.price.price_per_hour

    write(tmp_path / "config" / "onnxpress" / "prices.yaml", "0.4")
    assert winner() == ("user", Decimal("0.4"))
    write(tmp_path / prices.PROJECT_FILE, "0.3")
    assert winner() == ("project", Decimal("0.3"))
    file = write(tmp_path / "mine.yaml", "0.2")
    assert winner(file) == ("file", Decimal("0.2"))
    assert winner(file, price="0.1") == ("option", Decimal("0.1"))


def test_a_price_by_type_counts_in_every_region_and_drops_the_old_date() -> None:
    found = prices.quotes(None, {"c3-standard-4": Decimal("0.1")})
    for region in ("us-central1", "europe-west4"):
        quote = found[f"gcp/c3-standard-4/{region}"]
        assert (quote.price.price_per_hour, quote.price.as_of, quote.layer) == (Decimal("0.1"), None, "option")
        assert quote.price.vcpus == 4
    assert found["gcp/c3-standard-8/us-central1"].layer == "bundled"


def test_a_machine_of_ones_own() -> None:
    assert prices.quotes(None, {"basement": Decimal("0.02")})["basement"].price.price_per_hour == Decimal("0.02")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema: onnxpress.prices/2", "schema"),
        ("[1, 2]", "is no price table"),
        ("a: [", "not YAML"),
        (TABLE.format(price="0.1").replace('"0.1"', "0.1"), "instances.0.price_per_hour"),
        (TABLE.format(price="-1"), "instances.0.price_per_hour: '-1' is no price"),
        (TABLE.format(price="cheap"), "is no price"),
        (TABLE.format(price="0.1").replace("USD", "EUR"), "currency"),
        (TABLE.format(price="0.1").replace("region", "zone"), "region"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"^prices .*prices\.yaml(, line \d+)?: ") as caught:
        prices.quotes(file, {})
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        prices.quotes(tmp_path / "nowhere.yaml", {})


def test_an_unknown_price_stays_unknown(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(TABLE.format(price="0.1").replace('"0.1"', "null"))
    assert prices.quotes(file, {})[C3].price.price_per_hour is None
