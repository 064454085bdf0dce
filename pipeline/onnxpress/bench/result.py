"""What a benchmark found, and its JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress import cpu
from onnxpress.bench import SCHEMA, UNFIT
from onnxpress.bench.comparison import METHOD, Comparison
from onnxpress.bench.doubts import Doubt
from onnxpress.bench.inputs import Inputs
from onnxpress.bench.measured import Measured
from onnxpress.bench.nvml import Gpu
from onnxpress.host import Conditions, Host


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
        machine = asdict(self.host) | {"kind": cpu.kind()} | asdict(self.conditions)
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
            "processes": comparison.processes,
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
