"""``onnxpress.cost/1``: what the variants cost on rented machines."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from onnxpress.results.base import ChangePct, Count, Milliseconds, Name, PerSecond, Result, Share, Usd, Warned, unique


class UsdInterval(Result):
    """Dollars, with the interval of the measured throughput."""

    value: Usd | None
    low: Usd | None
    high: Usd | None


class Month(Result):
    """A month on a fleet, line by line; a line without a price is None."""

    compute: Usd | None = None
    storage: Usd | None = None
    transfer: Usd | None = None
    starts: Usd | None = None
    electricity: Usd | None = None
    total: Usd | None = None
    serverless_instead: Usd | None = None


class Drawn(Result):
    """Energy and carbon of a month's inferences."""

    kwh_per_month: Annotated[float, Field(ge=0, le=1e15)] | None = None
    usd_per_month: Usd | None = None
    kg_co2e_per_month: Annotated[float, Field(ge=0, le=1e15)] | None = None


class Priced(Result):
    """One variant on one machine; what is not known is None, never 0."""

    instance: Name
    usd_per_hour: Usd | None
    as_of: date | None
    source: str | None
    extrapolated: bool
    usd_per_million: UsdInterval | None
    change_vs_baseline_pct: ChangePct | None
    replicas: Count | None
    usd_per_month: Usd | None
    throughput_per_s: PerSecond | None = None
    latency_ms: Milliseconds | None = None
    monthly_usd: Month | None = None
    energy: Drawn | None = None


class PricedVariant(Result):
    """One variant on every machine."""

    id: Name
    instances: tuple[Priced, ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        unique((priced.instance for priced in self.instances), "instance")
        return self


class Cost(Result):
    """What was priced, and what it rests on."""

    schema_name: Literal["onnxpress.cost/1"] = Field(alias="schema")
    currency: Literal["USD"]
    utilisation: Annotated[Share, Field(gt=0)]
    inferences_per_month: Count | None
    variants: Annotated[tuple[PricedVariant, ...], Field(min_length=1)]
    notes: tuple[str, ...]
    warnings: tuple[Warned, ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        unique((variant.id for variant in self.variants), "variant")
        return self
