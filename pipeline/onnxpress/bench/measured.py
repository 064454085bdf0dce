"""What was measured on one variant, and its part of the document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxpress.artifact import Artifact
from onnxpress.bench.energy import Energy
from onnxpress.bench.measurement import Measurement
from onnxpress.bench.operators import Profile
from onnxpress.bench.probing import Layout
from onnxpress.bench.scenarios import SWEEP
from onnxpress.bench.statistics import MIN_PROCESSES
from onnxpress.intervals import student_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One variant's measurements."""

    name: str
    model: Artifact
    subnormal_weights: int
    timings: Mapping[str, Measurement]
    """Durations in ms, by scenario."""
    layout: Mapping[str, Layout]
    """Threads and sessions, by scenario."""
    server: Mapping[str, Any] | None
    """See `server.Load.to_json`; None when it was not asked for."""
    cold_start: Mapping[str, Measurement]
    """Durations in ms: ``import``, ``session``, ``first_run``, ``second_run``."""
    memory: Mapping[str, int | None]
    """Bytes: ``vm_hwm_bytes`` (resident peak after the first run), ``session_hwm_bytes`` (before it),
    ``arena_peak_bytes`` (onnxruntime's allocator), ``device_bytes`` (GPU); None where the system does not tell."""
    peaks: Mapping[str, tuple[int, ...]]
    """Those of ``memory`` that were taken in every process, by process."""
    profile: Profile
    fallback_nodes: int
    """Nodes on the CPU that another provider was asked to run."""
    energy: Energy

    def to_json(self) -> dict[str, Any]:
        """Return the variant as in onnxpress.bench/1."""
        scenario = next(name for name in ("offline", "single", *self.timings) if name in self.timings)
        starts = {phase: measurement.median for phase, measurement in self.cold_start.items()}
        second_run_ms = starts.pop("second_run")
        return {
            "id": self.name,
            "model": {
                "path": str(self.model.path),
                "sha256": self.model.sha256,
                "size_bytes": self.model.size_bytes,
                "subnormal_weights": self.subnormal_weights,
            },
            "latency_ms": self._summary("single"),
            "end_to_end_ms": self._summary("end_to_end"),
            "bounds": self._bounds(),
            "throughput_per_s": self._rate(scenario),
            "batches": [
                self._rate(name) | {"p50_ms": measurement.median}
                for name, measurement in self.timings.items()
                if name.startswith(SWEEP)
            ],
            "server": self.server,
            "cold_start_ms": starts,
            "second_run_ms": second_run_ms,
            "memory": dict(self.memory),
            "energy": asdict(self.energy),
            "cpu_fallback_nodes": self.fallback_nodes,
            **self.profile.to_json(),
        }

    def _bounds(self) -> dict[str, list[float | None]]:
        """Return two values between which numbers lie, each end at 95%: of latency, of the first result, of memory."""
        found = self.timings["single"].bounds() if "single" in self.timings else {}
        starts = [self.cold_start[phase].values for phase in ("import", "session", "first_run")]
        samples = {"first_result": [sum(phases) for phases in zip(*starts, strict=True)], **self.peaks}
        for name, values in samples.items():
            if len(values) >= MIN_PROCESSES:
                found[name] = list(student_interval(values))
        if self.energy.bounds is not None:
            found["energy"] = list(self.energy.bounds)
        return found

    def _summary(self, scenario: str) -> dict[str, Any] | None:
        return self.timings[scenario].summary() if scenario in self.timings else None

    def _rate(self, scenario: str) -> dict[str, Any]:
        rate = self.timings[scenario].rate_per_s()
        return {
            "value": rate.value,
            "low": rate.low,
            "high": rate.high,
            "scenario": scenario,
            "batch": self.timings[scenario].batch,
            **asdict(self.layout[scenario]),
        }
