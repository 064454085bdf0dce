"""The arithmetic of cost, one small function per formula. Every function says its units; money is in US dollars.

The published example of Amazon SageMaker Inference Recommender (0.204 USD an hour, 648 invocations a minute, 5.2469e-6
USD an inference) is `usd_per_inference` with a utilisation of 1: a machine that is never idle. Real fleets are, so
utilisation is always part of the formula here, and always printed.

``docs/cost.md`` shows how the cost models of the literature map onto these functions.
"""

from __future__ import annotations

import math

HOURS_PER_MONTH = 730
SECONDS_PER_MONTH = 3600 * HOURS_PER_MONTH
GB = 1e9
J_PER_KWH = 3.6e6
HEADROOM = 1.2
"""Of memory, over the peak that was measured."""


def usd_per_inference(*, usd_per_hour: float, throughput_per_s: float, utilisation: float) -> float:
    """Return what one inference costs on a machine that is paid by the hour and busy for a share of the time.

    Args:
        usd_per_hour: Price of the machine.
        throughput_per_s: Inferences a second while it is busy.
        utilisation: Share of its capacity that is used, above 0 and up to 1.

    """
    return usd_per_hour / (3600 * throughput_per_s * utilisation)


def replicas(
    *,
    inferences_per_month: float,
    throughput_per_s: float,
    utilisation: float,
    peak_to_mean: float = 1.0,
    minimum: int = 1,
) -> int:
    """Return how many machines a month's inferences need.

    Args:
        inferences_per_month: On average over a month of 730 hours.
        throughput_per_s: Inferences a second of one machine.
        utilisation: Share of the capacity that may be used at the peak.
        peak_to_mean: How many times the average the busiest time asks for.
        minimum: Machines that run in any case, for availability.

    """
    needed = inferences_per_month * peak_to_mean / (SECONDS_PER_MONTH * throughput_per_s * utilisation)
    return max(minimum, math.ceil(needed))


def usd_per_month(*, replicas: int, usd_per_hour: float) -> float:
    """Return what a number of machines costs for a month of 730 hours, busy or not."""
    return replicas * HOURS_PER_MONTH * usd_per_hour


def storage_usd_per_month(*, size_bytes: float, versions: int, usd_per_gb_month: float) -> float:
    """Return what it costs a month to keep a number of versions of an artifact in object storage (GB of 10^9 bytes)."""
    return size_bytes / GB * versions * usd_per_gb_month


def transfer_usd(*, size_bytes: float, copies: float, usd_per_gb: float) -> float:
    """Return what it costs to send an artifact: to deployments × nodes, or to devices × updates at the edge."""
    return size_bytes / GB * copies * usd_per_gb


def start_s(*, size_bytes: float, bytes_per_s: float, load_ms: float, first_run_ms: float) -> float:
    """Return the seconds from a new machine's wish for a model to its first result: pull, load, first run."""
    return size_bytes / bytes_per_s + (load_ms + first_run_ms) / 1e3


def starts_usd_per_month(*, starts_per_month: float, seconds: float, usd_per_hour: float) -> float:
    """Return what machines cost a month while they start and serve nothing."""
    return starts_per_month * seconds / 3600 * usd_per_hour


def serverless_usd_per_month(
    *, memory_bytes: float, seconds: float, inferences_per_month: float, usd_per_gb_s: float
) -> float:
    """Return what functions that are paid by memory and time cost a month (GB of 10^9 bytes times seconds)."""
    return memory_bytes / GB * seconds * inferences_per_month * usd_per_gb_s


def copies_by_cpu(*, vcpus: int, threads: int) -> int:
    """Return how many copies of a model a machine's CPUs hold, each with threads of its own."""
    return vcpus // threads


def copies_by_memory(*, memory_bytes: float, reserve_bytes: float, peak_bytes: float) -> int:
    """Return how many copies of a model fit into a machine's memory.

    Args:
        memory_bytes: Of the machine.
        reserve_bytes: What the system needs.
        peak_bytes: Peak resident memory of one copy; `HEADROOM` is left on top.

    """
    return max(0, int((memory_bytes - reserve_bytes) // (HEADROOM * peak_bytes)))


def kwh(*, j_per_inference: float, inferences: float, pue: float) -> float:
    """Return the energy of a number of inferences, with the data centre's overhead (power usage effectiveness)."""
    return j_per_inference * inferences * pue / J_PER_KWH


def carbon_kg(*, kwh: float, g_co2e_per_kwh: float) -> float:
    """Return the emissions of an energy from a grid, in kilograms of CO2 equivalent."""
    return kwh * g_co2e_per_kwh / 1e3


def compression_usd(*, hours: float, usd_per_hour: float, other_usd: float = 0.0) -> float:
    """Return what it cost to make a variant: machine time (training, distillation, search) and everything else."""
    return hours * usd_per_hour + other_usd


def break_even_months(*, once_usd: float, saved_usd_per_month: float) -> float | None:
    """Return after how many months a saving has paid for what it cost once; None when it never does."""
    if once_usd <= 0:
        return 0.0
    return once_usd / saved_usd_per_month if saved_usd_per_month > 0 else None
