from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from onnxpress.gate import reader
from onnxpress.gate.check import Check
from onnxpress.gate.gate import gate
from onnxpress.gate.policy import Policy
from onnxpress.report.report import Report

Document = dict[str, Any]
TODAY = date(2026, 8, 14)


def speed(name: str, p50_ms: float, per_second: float) -> Document:
    return {
        "id": name,
        "latency_ms": {
            "n": 900,
            "min": p50_ms,
            "p50": p50_ms,
            "mean": p50_ms,
            "p90": p50_ms,
            "p95": p50_ms,
            "p99": None,
        },
        "throughput_per_s": {
            "value": per_second,
            "low": 0.9 * per_second,
            "high": 1.1 * per_second,
            "scenario": "single",
        },
        "bounds": {
            "p50": [0.98 * p50_ms, 1.02 * p50_ms],
            "p90": [0.98 * p50_ms, None],
            "first_result": [120.0, 130.0],
            "vm_hwm_bytes": [49_000_000, 51_000_000],
        },
        "cold_start_ms": {"import": 100.0, "session": 20.0, "first_run": 5.0},
        "memory": {"vm_hwm_bytes": 50_000_000},
    }


def price(instance: str, usd: float) -> Document:
    unknown = ("usd_per_hour", "as_of", "source", "change_vs_baseline_pct", "replicas", "usd_per_month")
    million = {"value": usd, "low": 0.9 * usd, "high": 1.1 * usd}
    return {"instance": instance, "extrapolated": False, "usd_per_million": million} | dict.fromkeys(unknown)


@pytest.fixture
def report() -> Report:
    """A float model of 1 MB and 4 ms, and an int8 model of a quarter of both; tests change what they are about."""
    return Report(
        recipe={"name": "tiny"},
        versions={},
        created=None,
        baseline="float",
        variants=(
            {
                "id": "float",
                "sha256": "f",
                "size_bytes": 1_000_000,
                "steps": [],
                "parameters": 250_000,
                "opset": 21,
                "kernels": {"int8": 0, "float": 9},
            },
            {
                "id": "int8",
                "sha256": "8",
                "size_bytes": 250_000,
                "steps": [],
                "parameters": 250_000,
                "opset": 21,
                "kernels": {"int8": 8, "float": 1},
            },
        ),
        evaluation={
            "schema": "onnxpress.evaluation/1",
            "baseline": "float",
            "data": {"origin": "test.npz", "samples": 1000, "sha256": ""},
            "metric": {"name": "top1", "unit": "%", "higher_is_better": True},
            "variants": [
                {"id": "float", "value": 98.0, "agreement_pct": 100.0, "cosine": 1.0, "sqnr_db": None},
                {
                    "id": "int8",
                    "value": 97.5,
                    "agreement_pct": 99.0,
                    "cosine": 0.999,
                    "cosine_p01": 0.98,
                    "sqnr_db": 33.0,
                    "ci95": {
                        "value": [96.5, 98.5],
                        "agreement_pct": [98.0, 99.5],
                        "cosine": [0.998, 0.9994],
                        "cosine_p01": None,
                        "sqnr_db": [32.0, 34.0],
                    },
                },
            ],
            "comparisons": [
                {
                    "baseline": "float",
                    "candidate": "int8",
                    "metric": "accuracy.top1",
                    "samples": 1000,
                    "drop": 0.5,
                    "ci95": [-0.1, 1.1],
                    "why": "",
                    "method": "paired/tango",
                    "lost": 7,
                    "won": 2,
                }
            ],
        },
        bench={
            "schema": "onnxpress.bench/1",
            "baseline": "float",
            "host": {"cpu": "cpu", "fingerprint": "f"},
            "runtime": {"onnxruntime": "1.31.1", "provider": "cpu", "threads": 1},
            "inputs": {"kind": "real", "samples": 64},
            "variants": [speed("float", 4.0, 250.0), speed("int8", 1.0, 1000.0)],
            "comparisons": [
                {
                    "baseline": "float",
                    "candidate": "int8",
                    "metric": "latency.p50",
                    "pairs": 30,
                    "dropped": 0,
                    "change_pct": -75.0,
                    "ci95_pct": [-76.0, -74.0],
                    "method": "paired-block/hodges-lehmann",
                }
            ],
            "warnings": [],
            "fit_for_gating": True,
        },
        cost={
            "schema": "onnxpress.cost/1",
            "currency": "USD",
            "utilisation": 0.5,
            "inferences_per_month": None,
            "notes": [],
            "warnings": [],
            "variants": [
                {"id": "float", "instances": [price("big", 0.8), price("small", 0.6)]},
                {"id": "int8", "instances": [price("big", 0.2), price("small", 0.15)]},
            ],
        },
    )


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str], Policy]:
    """Read a policy from its text, without the schema line."""

    def load(text: str) -> Policy:
        file = tmp_path / "gate.yaml"
        file.write_text(f"schema: onnxpress.policy/1\n{text}")
        return reader.read(file)

    return load


@pytest.fixture
def judge(report: Report, policy: Callable[[str], Policy]) -> Callable[..., Check]:
    """Judge the report's int8 variant by one rule."""

    def one(rule: str, more: str = "", *, on: Report = report, today: date = TODAY) -> Check:
        (check,) = gate(on, policy(f"rules:\n  {rule}\n{more}"), today)
        return check

    return one
