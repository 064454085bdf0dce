import dataclasses

from onnxpress.report import tables
from onnxpress.report.report import Report


def with_bills(report: Report, **bills: dict[str, float | None]) -> Report:
    """The report with a bill for the first machine of some variants, as `cost` writes it."""
    assert report.cost is not None
    variants = [
        variant | {"instances": [variant["instances"][0] | {"monthly_usd": bills.get(variant["id"])}]}
        for variant in report.cost["variants"]
    ]
    return dataclasses.replace(report, cost={**report.cost, "variants": variants})


def test_a_bill_shows_the_lines_that_have_a_price(report: Report) -> None:
    base, other = report.variants[0]["id"], report.variants[1]["id"]
    bills: dict[str, dict[str, float | None]] = {
        base: {"compute": 1000.0, "storage": 0.001, "transfer": None, "total": 1000.001},
        other: {"compute": 500.0, "storage": 0.5, "transfer": None, "total": 500.5},
    }
    table = tables.months(with_bills(report, **bills))
    assert table.headings == ("variant", "instance", "fleet", "storage", "total")
    assert [row[2:] for row in table.rows[:3]] == [
        ("1,000.00", "<0.01", "1,000.00"),
        ("500.00", "0.50", "500.50"),
        ("", "", ""),
    ]


def test_a_bill_of_the_fleet_alone_is_no_table_of_its_own(report: Report) -> None:
    base = report.variants[0]["id"]
    assert tables.months(with_bills(report, **{base: {"compute": 10.0, "total": 10.0}})).rows == ()
    assert tables.months(report).rows == ()
