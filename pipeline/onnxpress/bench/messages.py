"""What the benchmark and its worker processes say to each other: one JSON object per line, on the worker's pipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a worker's start-up is measured: it imports only what it needs
    from onnxpress.session import Spin


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Ask for a model to be loaded and run once. The first request to a worker."""

    model: str
    provider: str
    threads: int
    spin: Spin
    samples: str
    """An npz file: array ``I.J`` is input ``J`` of sample ``I``."""
    names: tuple[str, ...]
    """Names of the inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """How long the first result took in a fresh process, and what it needed."""

    onnxruntime: str
    """Version."""
    import_ms: float
    session_ms: float
    first_run_ms: float
    vm_hwm_bytes: int | None
    """Peak resident memory after the first run; None where the system does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Ask for runs until they are steady."""

    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmedUp:
    """How the warm-up ended."""

    run_ms: float
    """Median of the last runs."""
    stable: bool | None
    """Whether two successive samples agreed; None when the model is too slow to take them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Ask for one block of timed runs."""

    batch: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of timed runs, and what disturbed it."""

    durations_ns: tuple[int, ...]
    speed_ns: int
    """Duration of a fixed piece of work just before the block."""
    ticks: int
    """Clock ticks of all usable CPUs during the block."""
    stolen_ticks: int
    """Those that the hypervisor gave to others."""
    throttled: int
    """How often the control group's quota stopped this process."""
    preempted: int
    """How often another process took the CPU away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The request failed in a way that a user can do something about."""

    kind: str
    """Name of the class in `onnxpress.errors`."""
    message: str


Message = Load | Loaded | WarmUp | WarmedUp | Measure | Block | Failed
_KINDS: dict[str, Callable[..., Message]] = {
    kind.__name__: kind for kind in (Load, Loaded, WarmUp, WarmedUp, Measure, Block, Failed)
}


def encode(message: Message) -> str:
    """Return a message as one line of JSON."""
    return json.dumps({"type": type(message).__name__, **asdict(message)}) + "\n"


def decode(line: str) -> Message:
    """Return the message that `encode` wrote."""
    fields = json.loads(line)
    kind = _KINDS[fields.pop("type")]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
