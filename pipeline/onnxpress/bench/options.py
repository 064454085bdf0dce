"""What can be asked of a benchmark, in a recipe (``bench: {scenarios: [single]}``) and on the command line alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from onnxpress import session, units
from onnxpress.bench.scenarios import SCENARIOS, SERVER
from onnxpress.bench.server import Sla
from onnxpress.errors import UsageError, did_you_mean

_SLA = re.compile(r"p(50|90|95|99|99\.9)=(.+)")


def _sla(value: object) -> object:
    if value is None or isinstance(value, Sla):
        return value
    match = _SLA.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r}: write a percentile (p50, p90, p95, p99, p99.9) and its limit, as in p99=20ms")
    return Sla(percent=float(match[1]), limit_ms=units.parse(match[2], "ms"))


def _regression(value: object) -> object:
    return value if isinstance(value, float) else units.parse(value, "ratio")


def _settings(value: object) -> object:
    """Read ``["KEY=VALUE"]``, as the command line gives settings; values of a recipe may be numbers."""
    if isinstance(value, Mapping):
        return {str(key): str(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        pairs = [str(item).partition("=") for item in value]
        wrong = next(("".join(pair) for pair in pairs if not pair[0] or not pair[1]), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r}: write KEY=VALUE, for example session.set_denormal_as_zero=1")
        return {key: each for key, _, each in pairs}
    return value


def _batch(value: object) -> object:
    """Read ``"1,8"``."""
    return tuple(value.split(",")) if isinstance(value, str) else value


Settings = Annotated[Mapping[str, str], BeforeValidator(_settings)]
ServiceLevel = Annotated[Sla | None, BeforeValidator(_sla)]


class BenchOptions(BaseModel):
    """Options of a benchmark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    providers: Annotated[tuple[str, ...], Field(min_length=1, max_length=1)] = ("cpu",)
    """Execution provider: a file in ``onnxpress/providers``. One for each benchmark: times on different devices do not
    belong in one comparison."""
    scenarios: Annotated[tuple[str, ...], Field(min_length=1)] = ("single", "offline")
    """``single``: one sample after the other, latency. ``end_to_end``: also copying to the device and back.
    ``batch``: a sweep over batch sizes. ``offline``: batch size, threads and sessions with the highest throughput.
    ``server``: the highest rate of random requests within ``sla``."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of one run; None for as many as this process can really use."""
    spin: session.Spin = "stop"
    """What idle threads do: ``stop`` spins only during a run, ``on`` between runs too, ``off`` never."""
    session_options: Settings = {}
    """Further session options by onnxruntime's names; unknown ones are refused."""
    provider_options: Settings = {}
    """Options of the execution provider; unknown ones are refused."""
    batch: Annotated[tuple[Annotated[int, Field(ge=1)], ...] | None, BeforeValidator(_batch)] = None
    """Batch sizes of the scenario ``batch``; None for powers of two until throughput no longer grows."""
    sla: ServiceLevel = None
    """Service level of the scenario ``server``, for example p99=20ms."""
    sessions: int = Field(default=1, ge=1)
    """Sessions that serve requests side by side in the scenario ``server``; they share the threads."""
    pairs: int = Field(default=30, ge=6)
    """Pairs of blocks for each comparison: fewer when they do not fit the budget or every verdict is beyond doubt; up
    to twice as many while a verdict is open and the budget lasts."""
    budget: Annotated[timedelta, BeforeValidator(units.parse_duration)] = timedelta(seconds=60)
    """About how long the benchmark of all variants may take; the search of ``server`` comes on top."""
    max_regression: Annotated[float, BeforeValidator(_regression)] = Field(default=0.05, ge=0)
    """How much worse than the baseline a variant may be, for the verdict on each comparison."""
    aa: bool = False
    """Also compare the baseline with itself, which shows what differences this host makes up."""
    seed: int = 0
    """Of the order of the blocks, of synthetic inputs and of arrivals."""

    @field_validator("providers")
    @classmethod
    def _known_providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            session.known_provider(name)
        return value

    @field_validator("scenarios")
    @classmethod
    def _known_scenarios(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in SCENARIOS:
                raise ValueError(f"unknown scenario {name!r}.{did_you_mean(name, SCENARIOS)}")
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _possible(self) -> BenchOptions:
        try:
            session.check_keys(self.providers[0], self.session_options, self.provider_options)
        except UsageError as error:
            raise ValueError(str(error)) from error
        if SERVER in self.scenarios and self.sla is None:
            raise ValueError("scenario server: needs a service level; give --sla p99=20ms (sla: in a recipe)")
        return self
