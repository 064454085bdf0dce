"""The arithmetic of serving cost. Every function says its units; money is in US dollars.

The published example of Amazon SageMaker Inference Recommender (0.204 USD an hour, 648 invocations a minute, 5.2469e-6
USD an inference) is `usd_per_inference` with a utilisation of 1: a machine that is never idle. Real fleets are, so
utilisation is always part of the formula here, and always printed.
"""

from __future__ import annotations

import math

HOURS_PER_MONTH = 730
SECONDS_PER_MONTH = 3600 * HOURS_PER_MONTH


def usd_per_inference(*, usd_per_hour: float, throughput_per_s: float, utilisation: float) -> float:
    """Return what one inference costs on a machine that is paid by the hour and busy for a share of the time.

    Args:
        usd_per_hour: Price of the machine.
        throughput_per_s: Inferences a second while it is busy.
        utilisation: Share of its capacity that is used, above 0 and up to 1.

    """
    return usd_per_hour / (3600 * throughput_per_s * utilisation)


def replicas(*, inferences_per_month: float, throughput_per_s: float, utilisation: float) -> int:
    """Return how many machines a month's inferences need when a share of their capacity is used; at least 1."""
    return max(1, math.ceil(inferences_per_month / (SECONDS_PER_MONTH * throughput_per_s * utilisation)))


def usd_per_month(*, replicas: int, usd_per_hour: float) -> float:
    """Return what a number of machines costs for a month of 730 hours, busy or not."""
    return replicas * HOURS_PER_MONTH * usd_per_hour
