"""`cost`: what the measured throughput of each variant costs on rented machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from onnxpress.bench import SCHEMA as BENCH_SCHEMA
from onnxpress.cost import formulas
from onnxpress.cost.options import CostOptions
from onnxpress.cost.prices import Quote, quotes
from onnxpress.errors import DataError, did_you_mean
from onnxpress.units import format_count, format_ratio

SCHEMA = "onnxpress.cost/1"
MAX_PRICE_AGE_DAYS = 90


def cost(bench: Mapping[str, Any], options: CostOptions, *, today: date | None = None) -> dict[str, Any]:
    """Price the variants of a benchmark.

    The throughput is that of the measured host. Unless a machine in the price table carries this host's fingerprint,
    its cost is that of "a machine as fast as the measured one at this price", and marked ``extrapolated``: gains differ
    with VNNI, AMX or SME, so nothing is scaled by the number of CPUs.

    Args:
        bench: A result of schema onnxpress.bench/1.
        options: Machines, volume, utilisation and prices.
        today: For the age of the prices; None for the day it is.

    Returns:
        A result of schema onnxpress.cost/1. What has no price is None, never 0.

    Raises:
        DataError: not a benchmark's result.
        UsageError: a price table cannot be read.

    """
    if bench.get("schema") != BENCH_SCHEMA:
        raise DataError(
            f"benchmark: its schema is {bench.get('schema')!r}, {BENCH_SCHEMA!r} is needed. Give what "
            "`compress bench --json` wrote."
        )
    known = quotes(options.prices, options.price)
    fingerprint = bench["host"]["fingerprint"]
    throughput = {variant["id"]: variant["throughput_per_s"] for variant in bench["variants"]}
    baseline = throughput[bench["baseline"]]
    variants = [
        {
            "id": name,
            "instances": [
                _priced(instance, known.get(instance), measured, baseline, options, fingerprint)
                for instance in options.instances
            ],
        }
        for name, measured in throughput.items()
    ]
    day = today or datetime.now(UTC).date()
    return {
        "schema": SCHEMA,
        "currency": "USD",
        "utilisation": options.utilisation,
        "inferences_per_month": options.inferences_per_month,
        "measured_on": fingerprint,
        "extrapolated": any(priced["extrapolated"] for variant in variants for priced in variant["instances"]),
        "variants": variants,
        "notes": list(_notes(variants, bench["baseline"], options)),
        "warnings": list(_warnings(known, options, day)),
    }


def _priced(
    instance: str,
    quote: Quote | None,
    measured: Mapping[str, Any],
    baseline: Mapping[str, Any],
    options: CostOptions,
    fingerprint: str,
) -> dict[str, Any]:
    """Price one variant on one machine."""
    price = quote.price if quote else None
    hourly = float(price.price_per_hour) if price and price.price_per_hour is not None else None
    per_million: dict[str, float] | None = None
    fleet = monthly = change = None
    if hourly is not None:

        def million(throughput_per_s: float) -> float:
            return 1e6 * formulas.usd_per_inference(
                usd_per_hour=hourly, throughput_per_s=throughput_per_s, utilisation=options.utilisation
            )

        # The fastest throughput is the lowest cost.
        per_million = {
            "value": million(measured["value"]),
            "low": million(measured["high"]),
            "high": million(measured["low"]),
        }
        if measured is not baseline:
            change = 100 * (baseline["value"] / measured["value"] - 1)
        if options.inferences_per_month is not None:
            fleet = formulas.replicas(
                inferences_per_month=options.inferences_per_month,
                throughput_per_s=measured["value"],
                utilisation=options.utilisation,
            )
            monthly = formulas.usd_per_month(replicas=fleet, usd_per_hour=hourly)
    return {
        "instance": instance,
        "usd_per_hour": hourly,
        "as_of": price.as_of.isoformat() if price and price.as_of else None,
        "source": price.source if price else None,
        "layer": quote.layer if quote else None,
        "extrapolated": price is None or price.fingerprint != fingerprint,
        "throughput_per_s": measured["value"],
        "usd_per_million": per_million,
        "replicas": fleet,
        "usd_per_month": monthly,
        "change_vs_baseline_pct": change,
    }


def _notes(variants: list[dict[str, Any]], baseline: str, options: CostOptions) -> Iterator[str]:
    """Say what the numbers rest on, and where a fleet's floor makes compression worthless."""
    dates = sorted({priced["as_of"] for variant in variants for priced in variant["instances"] if priced["as_of"]})
    yield (
        f"Estimate from list prices{' of ' + ', '.join(dates) if dates else ''}: on demand, Linux, without taxes, "
        f"discounts, licences and data transfer; machines are used to {format_ratio(options.utilisation)}."
    )
    if any(priced["extrapolated"] for variant in variants for priced in variant["instances"]):
        yield "Throughput was measured on the host of the benchmark, not on these machines, whose speed may differ."
    if options.inferences_per_month is None:
        return
    fleets = {
        variant["id"]: {priced["instance"]: priced["replicas"] for priced in variant["instances"]}
        for variant in variants
    }
    for instance, needed in fleets[baseline].items():
        same = [name for name in fleets if name != baseline and fleets[name][instance] == needed]
        if needed is not None and same:
            yield (
                f"{instance}: {format_count(options.inferences_per_month)} inferences a month need {needed} "
                f"machine{'s' if needed > 1 else ''} with {baseline!r} already, and as many with {', '.join(same)}: "
                "there compression saves nothing, unless it lets a smaller machine do."
            )


def _warnings(known: Mapping[str, Quote], options: CostOptions, today: date) -> Iterator[dict[str, str]]:
    for instance in options.instances:
        quote = known.get(instance)
        if quote is None or quote.price.price_per_hour is None:
            hint = "" if quote else did_you_mean(instance, known)
            yield {
                "code": "missing-price",
                "message": f"{instance}: no price is known.{hint} Give one with --price {instance}=DOLLARS_PER_HOUR.",
            }
        elif quote.price.as_of is not None and (age := (today - quote.price.as_of).days) > MAX_PRICE_AGE_DAYS:
            yield {
                "code": "old-price",
                "message": f"{instance}: its price is {age} days old (of {quote.price.as_of}). Check it, and give the "
                "new one with --price or --prices.",
            }
