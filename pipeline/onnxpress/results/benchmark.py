"""``onnxpress.bench/1``: what was measured of the speed, the memory and the energy of each variant."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from onnxpress.results.base import (
    Bounds,
    Bytes,
    ChangeInterval,
    ChangePct,
    Count,
    Joules,
    Milliseconds,
    Name,
    Percent,
    PerSecond,
    Result,
    Some,
    Warned,
    known,
    unique,
)


class Host(Result):
    """The machine; what it does not tell is None or not there."""

    cpu: str
    fingerprint: Name
    """Equal for hosts whose latencies may be compared."""
    kind: str | None = None
    """Of CPU: what its int8 kernels are."""
    arch: str | None = None
    features: tuple[str, ...] = ()
    """Instructions that int8 kernels use."""
    cpus: Some | None = None
    memory_bytes: Bytes | None = None


class Runtime(Result):
    """What ran the models."""

    onnxruntime: str
    provider: Name
    threads: Some


class Inputs(Result):
    """What the models were fed."""

    kind: str
    samples: Count
    sha256: str | None = None


class Latency(Result):
    """Durations of one inference; a percentile is None where there are too few values for it."""

    n: Some
    min: Milliseconds
    p50: Milliseconds
    mean: Milliseconds
    p90: Milliseconds | None = None
    p95: Milliseconds | None = None
    p99: Milliseconds | None = None
    p999: Milliseconds | None = None
    p99_guaranteed: Milliseconds | None = None
    quantiles: tuple[Milliseconds, ...] | None = None
    """At 0, 5, … 100 %."""


class Throughput(Result):
    """Samples a second, with the interval."""

    value: PerSecond
    low: PerSecond
    high: PerSecond
    scenario: str
    batch: Some = 1
    threads: Some | None = None
    sessions: Some | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the interval [{self.low}, {self.high}] is reversed")
        return self


class Batch(Throughput):
    """Of the sweep over batch sizes."""

    threads: Some
    sessions: Some
    p50_ms: Milliseconds | None = None


class ServiceLevel(Result):
    """A bound on a percentile of the latency."""

    percent: Percent
    limit_ms: Milliseconds


class Server(Result):
    """The highest rate of random requests that keeps a service level; None when none does."""

    sla: ServiceLevel
    rate_per_s: PerSecond | None
    too_high_per_s: PerSecond | None
    p50_ms: Milliseconds | None
    p99_ms: Milliseconds | None
    utilisation: Annotated[float, Field(ge=0, le=100)] | None
    why: str | None = None
    """Why there is no rate."""


class ColdStart(Result):
    """From a new process to its first result."""

    import_ms: Milliseconds = Field(alias="import")
    session_ms: Milliseconds = Field(alias="session")
    first_run_ms: Milliseconds = Field(alias="first_run")


class Memory(Result):
    """Of a fresh process; None where the system does not tell."""

    vm_hwm_bytes: Bytes | None
    """Resident peak after the first run."""
    session_hwm_bytes: Bytes | None = None
    arena_peak_bytes: Bytes | None = None
    device_bytes: Bytes | None = None


class Energy(Result):
    """Of one inference; None where the machine does not tell."""

    source: str
    j_per_inference: Joules | None = None
    net_j_per_inference: float | None = None


class OperatorTime(Result):
    """Where the time goes, by onnxruntime's own profile."""

    op: Name
    provider: str
    nodes: Count
    ms: Milliseconds
    share_pct: Percent


class ModelFile(Result):
    """The file that was timed."""

    path: str | None = None
    sha256: str | None = None
    size_bytes: Bytes


class Timed(Result):
    """What was measured of one variant."""

    id: Name
    latency_ms: Latency | None
    """None when only throughput was asked for."""
    throughput_per_s: Throughput
    cold_start_ms: ColdStart
    memory: Memory
    model: ModelFile | None = None
    end_to_end_ms: Latency | None = None
    batches: tuple[Batch, ...] = ()
    server: Server | None = None
    energy: Energy | None = None
    operators: tuple[OperatorTime, ...] = ()
    bounds: dict[str, Bounds] | None = None
    """Of the statistics of latency, the first result and memory."""


class TimingComparison(Result):
    """A timing of a variant against the baseline's, from paired blocks."""

    baseline: Name
    candidate: Name
    metric: Name
    pairs: Count
    change_pct: ChangePct
    ci95_pct: ChangeInterval
    verdict: str | None = None
    improved: bool | None = None
    processes: Count | None = None
    ratios: tuple[Annotated[float, Field(gt=0, le=1e9)], ...] | None = None

    @model_validator(mode="after")
    def _judged_whole(self) -> Self:
        if "verdict" in self.model_fields_set and self.improved is None:
            raise ValueError("a verdict comes with 'improved'")
        return self


class Benchmark(Result):
    """What a benchmark found."""

    schema_name: Literal["onnxpress.bench/1"] = Field(alias="schema")
    host: Host
    runtime: Runtime
    inputs: Inputs | None = None
    baseline: Name
    variants: Annotated[tuple[Timed, ...], Field(min_length=1)]
    comparisons: tuple[TimingComparison, ...]
    max_regression_pct: ChangePct = 0
    aa: TimingComparison | None = None
    """The baseline against itself."""
    warnings: tuple[Warned, ...] = ()
    fit_for_gating: bool
    comparable: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = unique((variant.id for variant in self.variants), "variant")
        known(self.baseline, names, "the baseline")
        for change in self.comparisons:
            known(change.baseline, names, "a comparison's baseline")
            known(change.candidate, names, "a comparison's candidate")
        unique((f"{change.candidate} {change.metric}" for change in self.comparisons), "the comparison of")
        return self
