"""The commands ``prices list|show|import|refresh|validate``."""

from __future__ import annotations

from pathlib import Path

import click

from onnxpress.cli.shared import INPUT, Result, common, output_option


@click.group()
def prices() -> None:
    """Look at prices of machines, check them, and bring in newer ones."""


region_option = click.option("--region", "regions", multiple=True, help="Only this region.")


type_option = click.option("--type", "types", multiple=True, help="Only this instance type; wildcards allowed.")


provider_option = click.option("--provider", help="Only this provider.")


table_option = click.option("--prices", "table", type=INPUT, help="Price file on top of the bundled one.")


@prices.command(name="list")
@provider_option
@region_option
@type_option
@table_option
@common
def prices_list(
    provider: str | None, regions: tuple[str, ...], types: tuple[str, ...], table: Path | None, result: Result
) -> None:
    """List the price that wins for each machine, its date, and the layer it comes from."""
    from onnxpress.cost import table as prices_table
    from onnxpress.cost.prices import quotes
    from onnxpress.cost.sources import Chosen

    chosen = Chosen(provider=provider, regions=regions, types=types)
    found = [
        quote
        for quote in quotes(table, {}).values()
        if chosen.wants(quote.price.type, quote.price.region) and provider in (None, quote.price.provider)
    ]
    result.show(prices_table.render(found), prices_table.document(found))


@prices.command(name="show")
@click.argument("instance")
@table_option
@common
def prices_show(instance: str, table: Path | None, result: Result) -> None:
    """Show everything that is known of one machine, in every layer."""
    from onnxpress.cost import table as prices_table

    found = prices_table.layers(instance, table)
    result.show(prices_table.details(found), prices_table.document(found))


@prices.command(name="import")
@click.argument("file", type=INPUT)
@click.option("--format", "kind", required=True, help="table (CSV of your own), gcosts, skypilot, aws or azure.")
@output_option
@provider_option
@region_option
@type_option
@common
def prices_import(
    file: Path,
    kind: str,
    output: Path,
    provider: str | None,
    regions: tuple[str, ...],
    types: tuple[str, ...],
    result: Result,
) -> None:
    """Turn rows of a provider's or a catalogue's FILE into a price table."""
    from onnxpress.cost import sources
    from onnxpress.cost import table as prices_table
    from onnxpress.errors import UsageError

    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"prices {file}: cannot be read ({error.strerror}). Check the path.") from error
    chosen = sources.Chosen(provider=provider, regions=regions, types=types)
    rows = sources.parse(kind, content, chosen, where=str(file))
    text, document = prices_table.written(rows, output, source=file.name, write=result.outputs.write)
    result.show([text], document)


@prices.command(name="refresh")
@click.option("--from", "kind", required=True, help="gcosts, skypilot, aws or azure.")
@output_option
@provider_option
@region_option
@type_option
@common
def prices_refresh(
    kind: str,
    output: Path,
    provider: str | None,
    regions: tuple[str, ...],
    types: tuple[str, ...],
    result: Result,
) -> None:
    """Download prices of today. The only command that contacts a network for prices."""
    from onnxpress.cost import sources
    from onnxpress.cost import table as prices_table

    with result.progress.task(f"download from {kind}"):
        chosen = sources.Chosen(provider=provider, regions=regions, types=types)
        rows, address = sources.refresh(kind, chosen)
    text, document = prices_table.written(rows, output, source=address, write=result.outputs.write)
    result.show([text], document)


@prices.command(name="validate")
@click.argument("file", type=INPUT)
@click.option("--max-age", default="90d", help="Older prices end with exit code 4.")
@common
def prices_validate(file: Path, max_age: str, result: Result) -> None:
    """Check a price table: its form (exit code 2), and the age of its prices (exit code 4)."""
    from onnxpress.cost import table as prices_table
    from onnxpress.cost.options import CostOptions
    from onnxpress.errors import EvidenceError
    from onnxpress.validation import options

    limit = options(CostOptions, {"max_price_age": max_age}).max_price_age
    rows, old = prices_table.checked(file, limit)
    names = ", ".join(row.instance for row in old[:3])
    document = {"schema": "onnxpress.prices-check/1", "machines": len(rows), "old": [row.instance for row in old]}
    result.show([f"{file}: {len(rows)} machines, {len(old)} with a price older than {limit.days} days"], document)
    if old:
        raise EvidenceError(
            f"prices {file}: {len(old)} are older than {limit.days} days ({names}). Check them, or refresh the table."
        )
