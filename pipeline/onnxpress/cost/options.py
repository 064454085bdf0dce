"""What can be asked of a cost report, in a recipe (``cost: {utilisation: 0.5}``) and on the command line alike."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from onnxpress import units
from onnxpress.bench.options import ServiceLevel
from onnxpress.cost.prices import Money

MAX_PRICE_AGE = timedelta(days=90)
_DAYS = re.compile(r"([0-9]+) ?d(ays)?")
_ONE_OFF = re.compile(
    r"(?=.)((?P<hours>[0-9.]+) ?h ?@ ?(?P<usd_per_hour>[0-9.]+))?((?(hours) ?\+ ?)(?P<other_usd>[0-9.]+))?"
)


def _count(value: object) -> object:
    return None if value is None else int(units.parse(value, "count"))


def _assignments(value: object) -> object:
    """Read ``["NAME=VALUE"]``, as the command line gives it."""
    if isinstance(value, (list, tuple)):
        pairs = [str(item).partition("=") for item in value]
        wrong = next(("".join(pair) for pair in pairs if not pair[0] or not pair[2]), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r}: write NAME=VALUE, for example c3-standard-4=0.19")
        return {name: each for name, _, each in pairs}
    return value


def _by_variant(value: object) -> object:
    """Read ``["INSTANCE:VARIANT=VALUE"]`` into a mapping of mappings."""
    given = _assignments(value)
    if not isinstance(value, (list, tuple)) or not isinstance(given, Mapping):
        return given
    found: dict[str, dict[str, Any]] = {}
    for name, each in given.items():
        instance, colon, variant = name.rpartition(":")
        if not colon:
            raise ValueError(f"{name!r}: write INSTANCE:VARIANT=RATE, for example tpu-v5e:int8=2400/s")
        found.setdefault(instance, {})[variant] = each
    return found


def _rate(value: object) -> float:
    text = str(value).strip()
    if not text.endswith("/s"):
        raise ValueError(f"{value!r}: is no rate; write for example '2400/s'")
    number = float(text.removesuffix("/s"))
    if not 0 < number < float("inf"):
        raise ValueError(f"{value!r}: must be more than 0/s")
    return number


def _days(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    match = _DAYS.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r}: is no number of days; write for example '90d'")
    return timedelta(days=int(match[1]))


def _bandwidth(value: object) -> object:
    text = str(value).strip()
    if not text.endswith("/s"):
        raise ValueError(f"{value!r}: is no bandwidth; write for example '100 MB/s'")
    return units.parse(text.removesuffix("/s"), "bytes")


def _times(value: object) -> object:
    text = str(value).strip()
    return units.parse(f"{text}x" if text[-1:].isdigit() else text, "ratio")


def _one_off(value: object) -> object:
    """Read ``400`` (dollars), ``2.5h@0.20`` (hours of a machine at its price) or the sum ``2.5h@0.20+400``."""
    if not isinstance(value, str):
        return value
    match = _ONE_OFF.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r}: write dollars, hours of a machine at its price, or both: 2.5h@0.20+400")
    return {name: each for name, each in match.groupdict().items() if each is not None}


class OneOff(BaseModel):
    """What it cost to make a variant, once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hours: float = Field(default=0.0, ge=0)
    """Of machine time: training, distillation, search."""
    usd_per_hour: Annotated[Decimal, Money] = Decimal(0)
    other_usd: Annotated[Decimal, Money] = Decimal(0)
    """Everything else, such as people."""


class Grid(BaseModel):
    """How much carbon a kilowatt-hour stands for. There is no default: a number without place and year says nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    g_co2e_per_kwh: float = Field(ge=0)
    region: str
    year: int
    source: str


Dollars = Annotated[Decimal | None, Money]


class CostOptions(BaseModel):
    """Options of a cost report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instances: Annotated[tuple[str, ...], Field(min_length=1)] = ("gcp/c3-standard-4/us-central1",)
    """Machines as provider/type/region, with wildcards (``gcp/*/us-central1``); or your own names, with ``price``."""
    spot: bool = False
    """Prices of machines that may be taken away at any time."""
    inferences_per_month: Annotated[int | None, BeforeValidator(_count)] = Field(default=None, ge=1)
    """Volume, for example 100M; without it there is a price per million, but no fleet."""
    utilisation: Annotated[float, BeforeValidator(units.parse_fraction)] = Field(default=0.5, gt=0)
    """Share of a machine's capacity that is used; the rest is paid for too."""
    peak_to_mean: float = Field(default=1.0, ge=1)
    """How many times the average the busiest time asks for; the fleet is made for it."""
    replicas_min: int = Field(default=1, ge=1)
    """Machines that run in any case."""
    latency: ServiceLevel = None
    """Bound that a machine must meet to be chosen, for example p99=20ms."""
    reserve: Annotated[float, BeforeValidator(lambda value: units.parse(value, "bytes"))] = 2.0**30
    """Memory that the system of a machine needs."""
    measured: Annotated[Mapping[str, str], BeforeValidator(_assignments)] = {}
    """Fingerprint of a host by machine: what was measured there is that machine's own speed."""
    throughput: Annotated[
        Mapping[str, Mapping[str, Annotated[float, BeforeValidator(_rate)]]], BeforeValidator(_by_variant)
    ] = {}
    """Inferences a second by machine and variant, where you know them: a GPU, a TPU."""
    speed: Annotated[
        Mapping[str, Annotated[float, BeforeValidator(_times), Field(gt=0)]], BeforeValidator(_assignments)
    ] = {}
    """How many times as fast as the measured host a machine is. Without it, it counts as equally fast."""
    versions_kept: int = Field(default=1, ge=1)
    storage_usd_per_gb_month: Dollars = None
    deployments_per_month: float = Field(default=0, ge=0)
    """Each sends the model to every machine of the fleet."""
    devices: int = Field(default=0, ge=0)
    """Devices at the edge, and how often a month each gets the model."""
    updates_per_month: float = Field(default=1, ge=0)
    transfer_usd_per_gb: Dollars = None
    starts_per_month: float = Field(default=0, ge=0)
    """How often a machine is added to the fleet."""
    bandwidth: Annotated[float, BeforeValidator(_bandwidth), Field(gt=0)] = 1e8
    """At which a new machine pulls the model."""
    serverless_usd_per_gb_s: Dollars = None
    """Price of a function's memory and time, to compare a fleet with."""
    electricity_usd_per_kwh: Dollars = None
    pue: float = Field(default=1.0, ge=1)
    """Power usage effectiveness of the data centre; 1 counts what the chips draw and nothing else."""
    grid: Grid | None = None
    one_off: Annotated[Mapping[str, Annotated[OneOff, BeforeValidator(_one_off)]], BeforeValidator(_assignments)] = {}
    """What it cost to make a variant, by variant."""
    prices: Path | None = None
    """A price table (onnxpress.prices/1) that goes before the others."""
    price: Annotated[Mapping[str, Annotated[Decimal, Money]], BeforeValidator(_assignments)] = {}
    """Dollars an hour by machine or type; goes before every table."""
    max_price_age: Annotated[timedelta, BeforeValidator(_days)] = MAX_PRICE_AGE
    """Older prices are warned of; when it is given, they end the command with exit code 4."""

    def only(self, variants: Collection[str]) -> CostOptions:
        """Return the options without what is said of other variants."""
        rates = {
            machine: {name: rate for name, rate in each.items() if name in variants}
            for machine, each in self.throughput.items()
        }
        one_off = {name: each for name, each in self.one_off.items() if name in variants}
        return self.model_copy(update={"throughput": rates, "one_off": one_off})
