"""What a benchmark found, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from onnxpress.artifact import Artifact
from onnxpress.bench import SCHEMA
from onnxpress.bench.comparison import METHOD, Comparison
from onnxpress.bench.doubts import UNFIT, Doubt
from onnxpress.bench.inputs import Inputs
from onnxpress.bench.measurement import Measurement
from onnxpress.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One variant's measurements."""

    name: str
    model: Artifact
    timings: Mapping[str, Measurement]
    """Durations in ms, by scenario."""
    cold_start: Mapping[str, Measurement]
    """Durations in ms: ``import``, ``session``, ``first_run``."""
    memory: Measurement | None
    """Peak resident memory after the first run, in bytes; None where the system does not tell."""

    def to_json(self) -> dict[str, Any]:
        """Return the variant as in onnxpress.bench/1."""
        scenario = "offline" if "offline" in self.timings else "single"
        rate = self.timings[scenario].rate_per_s()
        return {
            "id": self.name,
            "model": {
                "path": str(self.model.path),
                "sha256": self.model.sha256,
                "size_bytes": self.model.size_bytes,
            },
            "latency_ms": self.timings["single"].summary() if "single" in self.timings else None,
            "throughput_per_s": {
                "value": rate.value,
                "low": rate.low,
                "high": rate.high,
                "scenario": scenario,
                "batch": self.timings[scenario].batch,
            },
            "cold_start_ms": {phase: measurement.median for phase, measurement in self.cold_start.items()},
            "memory": {"vm_hwm_bytes": None if self.memory is None else int(self.memory.median)},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a benchmark found."""

    host: Host
    load_average: float | None
    """Before the start."""
    runtime: Mapping[str, Any]
    """``onnxruntime`` (version), ``provider``, ``threads``, ``spin``."""
    inputs: Inputs
    baseline: str
    variants: tuple[Measured, ...]
    comparisons: tuple[Comparison, ...]
    aa: Comparison | None
    """The baseline against itself."""
    warnings: tuple[Doubt, ...]

    @property
    def fit_for_gating(self) -> bool:
        """Whether a release may be decided on these timings."""
        return not any(warning.code in UNFIT for warning in self.warnings)

    def to_json(self) -> dict[str, Any]:
        """Return everything in the schema onnxpress.bench/1; numbers are rounded to six digits."""
        document = {
            "schema": SCHEMA,
            "host": asdict(self.host) | {"fingerprint": self.host.fingerprint, "load_average": self.load_average},
            "runtime": dict(self.runtime),
            "inputs": {
                "kind": self.inputs.kind,
                "samples": len(self.inputs.samples),
                "sha256": self.inputs.sha256,
            },
            "baseline": self.baseline,
            "variants": [variant.to_json() for variant in self.variants],
            "comparisons": [_change(comparison) for comparison in self.comparisons],
            "aa": self.aa and _change(replace(self.aa, candidate=self.baseline)),
            "warnings": [asdict(warning) for warning in self.warnings],
            "fit_for_gating": self.fit_for_gating,
        }
        return {name: _rounded(value) for name, value in document.items()}


def _change(comparison: Comparison) -> dict[str, Any]:
    ratio = comparison.ratio
    return {
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "metric": comparison.metric,
        "pairs": ratio.count,
        "dropped": comparison.dropped,
        "change_pct": 100 * (ratio.value - 1),
        "ci95_pct": [100 * (ratio.low - 1), 100 * (ratio.high - 1)],
        "method": METHOD,
    }


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return value
