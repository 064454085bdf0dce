"""What can be asked of a cost report, in a recipe (``cost: {utilisation: 0.5}``) and on the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from onnxpress import units
from onnxpress.cost.prices import Money


def _count(value: object) -> object:
    return None if value is None else int(units.parse(value, "count"))


def _assignments(value: object) -> object:
    """Read ``["TYPE=0.19"]``, as the command line gives prices."""
    if isinstance(value, (list, tuple)):
        pairs = [str(item).partition("=") for item in value]
        wrong = next(("".join(pair) for pair in pairs if not pair[0] or not pair[1]), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r}: write TYPE=DOLLARS_PER_HOUR, for example c3-standard-4=0.19")
        return {name: amount for name, _, amount in pairs}
    return value


class CostOptions(BaseModel):
    """Options of a cost report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instances: Annotated[tuple[str, ...], Field(min_length=1)] = ("gcp/c3-standard-4/us-central1",)
    """Machines, as provider/type/region; or a name of one's own that has a price in ``price``."""
    inferences_per_month: Annotated[int | None, BeforeValidator(_count)] = Field(default=None, ge=1)
    """Volume, for example 100M; without it there is a price per million, but no fleet."""
    utilisation: Annotated[float, BeforeValidator(units.parse_fraction)] = Field(default=0.5, gt=0)
    """Share of a machine's capacity that is used on average; the rest is paid for too."""
    prices: Path | None = None
    """A price table (onnxpress.prices/1) that goes before the others."""
    price: Annotated[Mapping[str, Annotated[Decimal, Money]], BeforeValidator(_assignments)] = {}
    """Dollars an hour by machine or type; goes before every table."""
