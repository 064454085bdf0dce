"""A variant on a machine: how fast it is there, whether it fits, and where that is known from.

Gains of int8 differ with VNNI, AMX or SME, so no speed is ever derived from a number of CPUs. A machine's speed is
``measured`` on a host of its type, ``given`` by the user, ``scaled`` from the measured host by the user's factor, or,
for want of anything better, that of the measured host: ``extrapolated``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onnxpress.bench.server import Sla
from onnxpress.cost import formulas
from onnxpress.cost.options import CostOptions
from onnxpress.cost.prices import Price
from onnxpress.errors import DataError

Document = Mapping[str, Any]
Basis = Literal["measured", "given", "scaled", "extrapolated"]
ON_ACCELERATOR = ("cuda", "tensorrt", "directml")
"""Execution providers whose speed is that of an accelerator."""
STATISTICS: Mapping[float, str] = {50: "p50", 90: "p90", 95: "p95", 99: "p99", 99.9: "p999"}
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Inferences a second, with the interval of the measurement, and a latency."""

    value: float
    low: float
    high: float
    basis: Basis
    latency_ms: float | None
    """The statistic that a bound is on; None when it was not measured there."""
    keeps_bound: bool | None
    """Whether the latency bound is kept; None without a bound, or where that is not known."""
    measured_on: str | None
    """Fingerprint of the host."""


def variants(benches: Sequence[Document]) -> list[str]:
    """Return the variants that all benchmarks measured, after making sure that they belong together.

    Raises:
        DataError: two benchmarks hold different models under one name, or were taken under the same conditions, so that
            nothing says which of them is right.

    """
    first = benches[0]
    for number, other in enumerate(benches[1:], start=2):
        for earlier in benches[: number - 1]:
            if earlier["host"]["fingerprint"] == other["host"]["fingerprint"]:
                raise DataError(
                    f"benchmark {number}: was taken on the host {other['host']['fingerprint']}, as an earlier one was. "
                    "Benchmarks are not merged; give one of each host."
                )
        for variant in first["variants"]:
            same = next((each for each in other["variants"] if each["id"] == variant["id"]), None)
            if same is None or same["model"]["sha256"] != variant["model"]["sha256"]:
                what = "is not there" if same is None else "is another model"
                raise DataError(
                    f"benchmark {number}: its variant {variant['id']!r} {what}. Measure the same files on every host."
                )
    return [variant["id"] for variant in first["variants"]]


def speed(
    benches: Sequence[Document], variant: str, instance: str, price: Price | None, options: CostOptions
) -> Speed | None:
    """Return how fast a variant is on a machine, by the best that is known.

    None when the machine has an accelerator and the benchmark ran without one, or the other way round: nothing can be
    said of one from the other.
    """
    rate = options.throughput.get(instance, {}).get(variant)
    if rate is not None:
        return Speed(
            value=rate, low=rate, high=rate, basis="given", latency_ms=None, keeps_bound=None, measured_on=None
        )
    fingerprints = {price.fingerprint if price else None, options.measured.get(instance)} - {None}
    own = next((each for each in benches if each["host"]["fingerprint"] in fingerprints), None)
    bench = own or benches[0]
    measured = _find(bench, variant)
    accelerated = (bench.get("runtime") or {}).get("provider") in ON_ACCELERATOR
    unlike = price is not None and price.vcpus is not None and accelerated != (price.accelerator is not None)
    if own is None and instance not in options.speed and unlike:
        return None
    factor = 1.0 if own else options.speed.get(instance, 1.0)
    low, value, high = _throughput(measured, options.latency)
    latency_ms = _latency(measured, options.latency)
    latency_ms = None if latency_ms is None else latency_ms / factor
    return Speed(
        value=factor * value,
        low=factor * low,
        high=factor * high,
        basis="measured" if own else "scaled" if instance in options.speed else "extrapolated",
        latency_ms=latency_ms,
        keeps_bound=_keeps(measured, options.latency, latency_ms, factor),
        measured_on=bench["host"]["fingerprint"],
    )


def _find(bench: Document, variant: str) -> Document:
    found: Document = next(each for each in bench["variants"] if each["id"] == variant)
    return found


def _throughput(measured: Document, bound: Sla | None) -> tuple[float, float, float]:
    """Return the throughput with its interval: at the service level, where it was measured."""
    server = measured.get("server")
    if bound is not None and server and server["rate_per_s"] is not None and _as_strict(server["sla"], bound):
        return server["rate_per_s"], server["rate_per_s"], server["too_high_per_s"] or server["rate_per_s"]
    rate = measured["throughput_per_s"]
    return rate["low"], rate["value"], rate["high"]


def _keeps(measured: Document, bound: Sla | None, latency_ms: float | None, factor: float) -> bool | None:
    """Tell whether a bound is kept: by the server scenario where it answers that, else by requests one at a time."""
    if bound is None:
        return None
    if no_rate(measured, bound):
        return False if factor <= 1 else None
    return None if latency_ms is None else latency_ms <= bound.limit_ms


def no_rate(measured: Document, bound: Sla) -> bool:
    """Tell whether the server scenario found no rate of requests at which this bound is kept."""
    server = measured.get("server")
    if not server or server["rate_per_s"] is not None:
        return False
    level = Sla(percent=server["sla"]["percent"], limit_ms=server["sla"]["limit_ms"])
    return level.percent <= bound.percent and level.limit_ms >= bound.limit_ms


def _as_strict(sla: Document, bound: Sla) -> bool:
    """Tell whether who keeps this service level keeps the bound, too."""
    return bool(sla["percent"] >= bound.percent and sla["limit_ms"] <= bound.limit_ms)


def _latency(measured: Document, bound: Sla | None) -> float | None:
    """Return the statistic that a bound is on; under load, where the server scenario measured it."""
    if bound is None:
        return None
    server = measured.get("server")
    if server and server["rate_per_s"] is not None and _as_strict(server["sla"], bound):
        return float(server["sla"]["limit_ms"])
    latency = measured.get("latency_ms") or {}
    found = latency.get(STATISTICS[bound.percent])
    return None if found is None else float(found)


def packing(measured: Document, price: Price | None, threads: int, reserve_bytes: float) -> dict[str, Any]:
    """Return how many copies of a variant a machine holds, and whether memory or CPUs say so; None where unknown."""
    peak = (measured.get("memory") or {}).get("vm_hwm_bytes")
    cpu = memory = None
    if price and price.vcpus is not None:
        cpu = formulas.copies_by_cpu(vcpus=price.vcpus, threads=threads)
    if price and price.memory_gib is not None and peak:
        memory = formulas.copies_by_memory(
            memory_bytes=price.memory_gib * GIB, reserve_bytes=reserve_bytes, peak_bytes=peak
        )
    return {
        "copies_by_cpu": cpu,
        "copies_by_memory": memory,
        "bound_by": None if cpu is None or memory is None else "memory" if memory < cpu else "cpu",
        "fits": None if memory is None else memory >= 1,
    }
