"""What can be asked of a benchmark, in a recipe (``bench: {scenarios: [single]}``) and on the command line alike."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from onnxpress import session, units
from onnxpress.bench.scenarios import SCENARIOS
from onnxpress.errors import did_you_mean


def _duration(value: object) -> object:
    return value if isinstance(value, timedelta) else timedelta(milliseconds=units.parse(value, "ms"))


class BenchOptions(BaseModel):
    """Options of a benchmark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    providers: Annotated[tuple[str, ...], Field(min_length=1, max_length=1)] = ("cpu",)
    """Execution provider: a file in ``onnxpress/providers``. One for each benchmark: times on different devices do not
    belong in one comparison."""
    scenarios: Annotated[tuple[str, ...], Field(min_length=1)] = ("single", "offline")
    """``single``: one sample after the other, latency. ``offline``: the batch size with the highest throughput."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of one run; None for as many as this process can really use."""
    spin: session.Spin = "stop"
    """What idle threads do: ``stop`` spins only during a run, ``on`` between runs too, ``off`` never."""
    pairs: int = Field(default=30, ge=6)
    """Pairs of blocks for each comparison; fewer when they do not fit the budget."""
    budget: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(seconds=60)
    """About how long the benchmark of all variants may take."""
    aa: bool = False
    """Also compare the baseline with itself, which shows what differences this host makes up."""
    seed: int = 0
    """Of the order of the blocks, and of synthetic inputs."""

    @field_validator("providers")
    @classmethod
    def _known_providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in session.providers():
                raise ValueError(f"unknown execution provider {name!r}.{did_you_mean(name, session.providers())}")
        return value

    @field_validator("scenarios")
    @classmethod
    def _known_scenarios(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in SCENARIOS:
                raise ValueError(f"unknown scenario {name!r}.{did_you_mean(name, SCENARIOS)}")
        return tuple(dict.fromkeys(value))
