"""The price table: what an hour of a machine costs, since when, and who says so.

Tables are layered, and a row replaces the row of the same machine in the layers before: the bundled ``prices.yaml``,
the user's ``$XDG_CONFIG_HOME/onnxpress/prices.yaml``, the project's ``onnxpress-prices.yaml`` in the current folder,
the file of ``--prices``, and ``--price TYPE=0.19``. Nothing here touches a network (`sources` does, when it is asked
to), and a price that is not known is None.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from onnxpress.errors import UsageError
from onnxpress.validation import explain, read_yaml

SCHEMA = "onnxpress.prices/1"
BUNDLED = Path(__file__).parent / "prices.yaml"
PROJECT_FILE = "onnxpress-prices.yaml"


def money(value: object) -> Decimal | None:
    """Read an amount of dollars, as text only: YAML would make 0.1 a binary fraction."""
    if value is None or isinstance(value, Decimal):
        return value
    try:
        amount = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or amount < 0:
        raise ValueError(f"{value!r} is no price in dollars; write it in quotes, for example '0.1942'")
    return amount


Money = BeforeValidator(money)


class Price(BaseModel):
    """One machine that can be rented."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    type: str
    region: str
    arch: Literal["x86_64", "arm64"] | None = None
    vcpus: int | None = None
    memory_gib: float | None = None
    accelerator: str | None = None
    accelerator_count: int = 0
    accelerator_memory_gib: float | None = None
    isa: tuple[str, ...] = ()
    """Instructions that int8 kernels use, as `host.INT8_FEATURES` names them; empty where it depends on luck."""
    price_per_hour: Annotated[Decimal | None, Money] = None
    """On demand, Linux; None when it is not known."""
    spot_per_hour: Annotated[Decimal | None, Money] = None
    fingerprint: str | None = None
    """Of a host of this type (``host.fingerprint`` in a benchmark): what was measured there needs no extrapolation."""
    as_of: date | None = None
    source: str | None = None

    @property
    def instance(self) -> str:
        """What the machine is called everywhere: provider/type/region."""
        return f"{self.provider}/{self.type}/{self.region}"


class Table(BaseModel):
    """A file of prices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["onnxpress.prices/1"] = Field(alias="schema")
    currency: Literal["USD"]
    as_of: date
    source: str
    instances: tuple[Price, ...]


Layer = Literal["bundled", "user", "project", "file", "option"]


class Quote(BaseModel):
    """A price, and the layer it comes from."""

    model_config = ConfigDict(frozen=True)

    price: Price
    layer: Layer


def read(path: Path) -> list[Price]:
    """Read a price table; prices without a date or source of their own get the table's.

    Raises:
        UsageError: no such file, or not a price table.

    """
    found = read_yaml(path, "prices")
    if not isinstance(found.value, dict):
        raise UsageError(f"prices {path}: is no price table, which starts with `schema: {SCHEMA}`.")
    try:
        table = Table.model_validate(found.value)
    except ValidationError as error:
        raise UsageError(f"prices {path}{explain(error, Table, found.root)} See schema {SCHEMA}.") from error
    names = [row.instance for row in table.instances]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"prices {path}: {twice} is there twice. Leave one of them.")
    return [
        row
        if row.price_per_hour is None
        else row.model_copy(update={"as_of": row.as_of or table.as_of, "source": row.source or table.source})
        for row in table.instances
    ]


def dump(rows: Sequence[Price], *, as_of: date, source: str) -> str:
    """Return a price table as YAML text, one machine a line, as `read` reads it."""
    lines = [f"schema: {SCHEMA}", "currency: USD", f"as_of: {as_of.isoformat()}", f"source: {json.dumps(source)}"]
    lines.append("instances:" if rows else "instances: []")
    for row in sorted(rows, key=lambda row: row.instance):
        fields = row.model_dump(mode="json", exclude_defaults=True)
        lines.append(f"  - {json.dumps(fields)}")  # JSON is YAML, and keeps money in quotes
    return "\n".join(lines) + "\n"


def quotes(file: Path | None, overrides: Mapping[str, Decimal]) -> dict[str, Quote]:
    """Return the winning price of every known machine.

    Args:
        file: The table of ``--prices``.
        overrides: Dollars an hour by machine (``gcp/c3-standard-4/us-central1``) or by type in all regions. A name that
            is in no table makes a machine of its own.

    Raises:
        UsageError: a table cannot be read.

    """
    found = {quote.price.instance: quote for quote in every(file)}
    for name, amount in overrides.items():
        known = [instance for instance, quote in found.items() if name in (instance, quote.price.type)]
        update = {"price_per_hour": amount, "as_of": None, "source": "--price"}
        for instance in known:
            found[instance] = Quote(price=found[instance].price.model_copy(update=update), layer="option")
        if not known:
            provider, _, rest = name.partition("/")
            row = Price(provider=provider, type=rest.partition("/")[0] or name, region=rest.partition("/")[2])
            found[name] = Quote(price=row.model_copy(update=update), layer="option")
    return found


def every(file: Path | None) -> list[Quote]:
    """Return the rows of all layers, a later one of a machine wins.

    Raises:
        UsageError: a table cannot be read.

    """
    tables: list[tuple[Layer, Path]] = [("bundled", BUNDLED), *_own_tables()]
    if file is not None:
        tables.append(("file", file))
    return [Quote(price=row, layer=layer) for layer, path in tables for row in read(path)]


def _own_tables() -> list[tuple[Layer, Path]]:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    tables: list[tuple[Layer, Path]] = [
        ("user", config / "onnxpress" / "prices.yaml"),
        ("project", Path(PROJECT_FILE)),
    ]
    return [(layer, path) for layer, path in tables if path.is_file()]
