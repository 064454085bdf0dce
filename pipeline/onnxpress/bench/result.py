"""What a benchmark found, and its JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress.artifact import Artifact
from onnxpress.bench import SCHEMA
from onnxpress.bench.comparison import METHOD, Comparison
from onnxpress.bench.doubts import UNFIT, Doubt
from onnxpress.bench.energy import Energy
from onnxpress.bench.inputs import Inputs
from onnxpress.bench.measurement import Measurement
from onnxpress.bench.nvml import Gpu
from onnxpress.bench.operators import Profile
from onnxpress.bench.probing import Layout
from onnxpress.bench.scenarios import SWEEP
from onnxpress.host import Conditions, Host


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a benchmark found."""

    host: Host
    conditions: Conditions
    """Before the start."""
    gpu: Gpu | None
    runtime: Mapping[str, Any]
    """``onnxruntime`` (version), ``provider``, ``threads``, ``spin``, ``session_options``, ``provider_options``."""
    inputs: Inputs
    baseline: str
    variants: tuple[Measured, ...]
    comparisons: tuple[Comparison, ...]
    max_regression: float
    """The limit of the verdicts, as a share."""
    aa: Comparison | None
    """The baseline against itself."""
    warnings: tuple[Doubt, ...]

    @property
    def fit_for_gating(self) -> bool:
        """Whether a release may be decided on these timings."""
        return not any(warning.code in UNFIT for warning in self.warnings)

    @property
    def comparable(self) -> str:
        """A short hash of host, GPU, driver and settings: only timings with an equal one may be compared or merged."""
        device = None if self.gpu is None else [self.gpu.name, self.gpu.driver, self.gpu.power_limit_w, self.gpu.mig]
        facts = [self.host.fingerprint, device, dict(self.runtime)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def save_samples(self, path: Path) -> None:
        """Write all durations in ms as float32 arrays named ``VARIANT/SCENARIO/PROCESS`` of shape [blocks, runs]."""
        arrays = {
            f"{variant.name}/{scenario}/{number}": np.array(blocks, np.float32)
            for variant in self.variants
            for scenario, measurement in variant.timings.items()
            for number, blocks in enumerate(measurement.processes)
        }
        with path.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    def to_json(self) -> dict[str, Any]:
        """Return everything in the schema onnxpress.bench/1; numbers are rounded to six digits."""
        machine = asdict(self.host) | asdict(self.conditions)
        document = {
            "schema": SCHEMA,
            "host": machine | {"fingerprint": self.host.fingerprint, "gpu": self.gpu and asdict(self.gpu)},
            "comparable": self.comparable,
            "runtime": {
                **self.runtime,
                "page_cache": "warm",
                "cpu_fallback_nodes": max(variant.fallback_nodes for variant in self.variants),
            },
            "inputs": {
                "kind": self.inputs.kind,
                "ranged": self.inputs.ranged,
                "samples": len(self.inputs.samples),
                "sha256": self.inputs.sha256,
            },
            "baseline": self.baseline,
            "variants": [variant.to_json() for variant in self.variants],
            "comparisons": [self._change(comparison) for comparison in self.comparisons],
            "max_regression_pct": 100 * self.max_regression,
            "aa": self.aa and self._change(replace(self.aa, candidate=self.baseline)),
            "warnings": [asdict(warning) for warning in self.warnings],
            "fit_for_gating": self.fit_for_gating,
        }
        return {name: _rounded(value) for name, value in document.items()}

    def _change(self, comparison: Comparison) -> dict[str, Any]:
        ratio = comparison.ratio
        return {
            "baseline": comparison.baseline,
            "candidate": comparison.candidate,
            "metric": comparison.metric,
            "lower_is_better": comparison.lower_is_better,
            "pairs": ratio.count,
            "dropped": comparison.dropped,
            "change_pct": 100 * (ratio.value - 1),
            "ci95_pct": [100 * (ratio.low - 1), 100 * (ratio.high - 1)],
            "verdict": comparison.verdict(self.max_regression),
            "improved": comparison.improved,
            "method": METHOD,
            "ratios": list(comparison.ratios),
        }


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return value
