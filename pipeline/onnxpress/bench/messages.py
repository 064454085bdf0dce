"""What the benchmark and its worker processes say to each other: one JSON object per line, on the worker's pipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a worker's start-up is measured: it imports only what it needs
    from onnxpress.session import Spin


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Ask for a model to be loaded and run. The first request to a worker."""

    model: str
    size_bytes: int
    """Of the model's files; says how long loading and a run may take."""
    provider: str
    threads: int
    """Of one session."""
    sessions: int = 1
    """Copies of the model that run side by side."""
    spin: Spin
    config: Mapping[str, str] = field(default_factory=dict)
    """Session options by onnxruntime's names."""
    provider_options: Mapping[str, str] = field(default_factory=dict)
    samples: str
    """An npz file: array ``I.J`` is input ``J`` of sample ``I``."""
    names: tuple[str, ...]
    """Names of the inputs."""
    profile: str | None = None
    """Where onnxruntime writes its own profile (a prefix), which slows the runs down; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """How long the first result took in a fresh process, and what it needed."""

    onnxruntime: str
    """Version."""
    import_ms: float
    session_ms: float
    first_run_ms: float
    second_run_ms: float
    session_hwm_bytes: int | None
    """Peak resident memory after the session was made; None where the system does not tell."""
    vm_hwm_bytes: int | None
    """Peak resident memory after the first run."""
    device_bytes: int | None
    """How much more memory of the GPU is in use after the first run than before, its context included; None for other
    devices, and where the driver does not tell."""


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
    """Of each session."""
    copies: bool = False
    """Also time the copying of inputs to the device and of outputs back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of timed runs, and what disturbed it."""

    durations_ns: tuple[int, ...]
    """Of one session: its runs. Of several: the times between one finished run and the next, of whichever session."""
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
class Serve:
    """Ask for requests to be served that arrive at random, whether the last one is finished or not."""

    rate_per_s: float
    requests: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How long requests took, from the moment at which each was due."""

    latencies_ns: tuple[int, ...]
    services_ns: tuple[int, ...]
    """The part of them that a session worked; the rest was waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissect:
    """Ask for a few runs under onnxruntime's profiler; the last request to a worker that was loaded with one."""

    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissected:
    """The profile is written."""

    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The request failed in a way that a user can do something about."""

    kind: str
    """Name of the class in `onnxpress.errors`."""
    message: str


Request = Load | WarmUp | Measure | Serve | Dissect
Message = Request | Loaded | WarmedUp | Block | Served | Dissected | Failed
_KINDS: dict[str, Callable[..., Message]] = {
    kind.__name__: kind
    for kind in (Load, Loaded, WarmUp, WarmedUp, Measure, Block, Serve, Served, Dissect, Dissected, Failed)
}


def encode(message: Message) -> str:
    """Return a message as one line of JSON."""
    return json.dumps({"type": type(message).__name__, **asdict(message)}) + "\n"


def decode(line: str) -> Message:
    """Return the message that `encode` wrote."""
    fields = json.loads(line)
    kind = _KINDS[fields.pop("type")]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
