"""`compress prices`: price tables for people, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from onnxpress.cost import prices
from onnxpress.cost.prices import Price, Quote
from onnxpress.errors import UsageError, did_you_mean


def render(quotes: Sequence[Quote]) -> list[str]:
    """Return a line for each machine."""
    head = f"{'machine':<40} {'$/h':>10} {'spot':>10} {'vCPU':>5} {'GiB':>6}  {'accelerator':<12} {'of':<10}  layer"
    return [head, *(_line(quote) for quote in sorted(quotes, key=lambda quote: quote.price.instance))]


def _line(quote: Quote) -> str:
    row = quote.price
    price, spot = (("-" if each is None else f"{each:.4f}") for each in (row.price_per_hour, row.spot_per_hour))
    accelerator = f"{row.accelerator_count}x {row.accelerator}" if row.accelerator else ""
    memory = "-" if row.memory_gib is None else f"{row.memory_gib:g}"
    return (
        f"{row.instance:<40} {price:>10} {spot:>10} {row.vcpus or '-':>5} {memory:>6}  {accelerator:<12} "
        f"{row.as_of or 'no date'!s:<10}  {quote.layer}"
    )


def layers(instance: str, file: Path | None) -> list[Quote]:
    """Return what every layer says of one machine, the winner last.

    Raises:
        UsageError: no layer knows it.

    """
    found = [quote for quote in prices.every(file) if quote.price.instance == instance]
    if not found:
        names = {quote.price.instance for quote in prices.every(file)}
        raise UsageError(f"machine {instance!r}: is in no price table.{did_you_mean(instance, names)}")
    return found


def details(quotes: Sequence[Quote]) -> list[str]:
    """Return all facts of one machine, by layer."""
    lines = []
    for quote in quotes:
        lines.append(f"{quote.layer}:")
        lines += [f"  {name}: {value}" for name, value in quote.price.model_dump(mode="json").items() if value]
    return lines


def document(quotes: Sequence[Quote]) -> dict[str, Any]:
    """Return prices as JSON."""
    rows = [quote.price.model_dump(mode="json") | {"layer": quote.layer} for quote in quotes]
    return {"schema": "onnxpress.prices-list/1", "currency": "USD", "instances": rows}


def written(
    rows: Sequence[Price], output: Path, *, source: str, write: Callable[[Path, str], None]
) -> tuple[str, dict[str, Any]]:
    """Write a price table; prices without a date get today's.

    Returns:
        What to say, for people and as JSON.

    """
    today = datetime.now(UTC).date()
    write(output, prices.dump(rows, as_of=today, source=source))
    instances = [row.model_dump(mode="json") for row in rows]
    said = f"{output}: {len(rows)} machines. Use it with --prices, or as {prices.PROJECT_FILE} of your project."
    return said, {"schema": prices.SCHEMA, "currency": "USD", "as_of": str(today), "instances": instances}


def checked(file: Path, limit: timedelta, *, today: date | None = None) -> tuple[Sequence[Price], Sequence[Price]]:
    """Read a price table and return all rows, and those whose price is older than a limit."""
    day = today or datetime.now(UTC).date()
    rows = prices.read(file)
    return rows, [row for row in rows if row.price_per_hour is not None and row.as_of and day - row.as_of > limit]
