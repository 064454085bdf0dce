"""`cost`: what the measured variants cost on rented machines, and which machine to rent for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import Any

from onnxpress.bench import SCHEMA as BENCH_SCHEMA
from onnxpress.cost import formulas, machines, month, notes
from onnxpress.cost.machines import Document
from onnxpress.cost.options import CostOptions
from onnxpress.cost.prices import Quote, quotes
from onnxpress.errors import DataError, UsageError, did_you_mean

SCHEMA = "onnxpress.cost/1"


def cost(benches: Document | Sequence[Document], options: CostOptions, *, today: date | None = None) -> dict[str, Any]:
    """Price the variants of a benchmark.

    Args:
        benches: A result of schema onnxpress.bench/1, or several of different hosts: a machine that carries the
            fingerprint of one of them (``fingerprint`` of its row, or ``measured``) gets the speed that was measured
            there. All others get that of the first, and are marked ``extrapolated``.
        options: Machines, volume, prices and whatever else costs.
        today: For the age of the prices; None for the day it is.

    Returns:
        A result of schema onnxpress.cost/1. What has no price is None, never 0.

    Raises:
        DataError: not a benchmark's result, or results that do not belong together.
        UsageError: a price table cannot be read, or no machine matches a wildcard.

    """
    given = [benches] if isinstance(benches, Mapping) else list(benches)
    for bench in given:
        if bench.get("schema") != BENCH_SCHEMA:
            raise DataError(
                f"benchmark: its schema is {bench.get('schema')!r}, {BENCH_SCHEMA!r} is needed. Give what "
                "`compress bench --json` wrote."
            )
    names = machines.variants(given)
    known = quotes(options.prices, options.price)
    instances = chosen_instances(options, known, names)
    baseline = given[0]["baseline"]
    variants: list[dict[str, Any]] = []
    for name in sorted(names, key=lambda name: name != baseline):
        rows = [_priced(given, name, instance, known.get(instance), options) for instance in instances]
        variants.append({"id": name, "instances": rows, "choice": _choice(rows, options)})
    _compare(variants, options)
    variants.sort(key=lambda variant: names.index(variant["id"]))
    day = today or datetime.now(UTC).date()
    return {
        "schema": SCHEMA,
        "currency": "USD",
        "pricing": "spot" if options.spot else "on-demand",
        "utilisation": options.utilisation,
        "inferences_per_month": options.inferences_per_month,
        "peak_to_mean": options.peak_to_mean,
        "measured_on": given[0]["host"]["fingerprint"],
        "extrapolated": any(priced["extrapolated"] for variant in variants for priced in variant["instances"]),
        "grid": options.grid and options.grid.model_dump(),
        "pue": options.pue,
        "variants": variants,
        "notes": [*notes.notes(variants, baseline, options), *notes.overloaded(given, options.latency)],
        "warnings": list(notes.warnings(known, instances, options, day)),
    }


def check(options: CostOptions, variants: Collection[str]) -> None:
    """Find before the work what would stop the pricing after it.

    Args:
        options: What will be priced.
        variants: Names of the variants that will be measured.

    Raises:
        UsageError: a price is not known, or an option names a machine or a variant that is not priced.

    """
    known = quotes(options.prices, options.price)
    for instance in chosen_instances(options, known, variants):
        missing = notes.missing_price(instance, known, spot=options.spot)
        if missing is not None:
            raise UsageError(missing)


def chosen_instances(options: CostOptions, known: Mapping[str, Quote], variants: Collection[str]) -> list[str]:
    """Return the machines to price, wildcards replaced.

    Raises:
        UsageError: a wildcard matches no machine, or an option is for a machine or a variant that is not priced: it
            would be ignored.

    """
    found: dict[str, None] = {}
    for pattern in options.instances:
        matches = [pattern]
        if set("*?[") & set(pattern):
            priced = [name for name, quote in known.items() if quote.price.price_per_hour is not None]
            matches = [name for name in priced if fnmatchcase(name, pattern)]
        if not matches:
            raise UsageError(f"instances {pattern!r}: no machine with a price matches. See `compress prices list`.")
        found |= dict.fromkeys(matches)
    types = {known[instance].price.type for instance in found if instance in known}
    machines_of = {"throughput": options.throughput, "speed": options.speed, "measured": options.measured}
    for option, machines_named in {"price": options.price, **machines_of}.items():
        names = found.keys() | types if option == "price" else found.keys()
        wrong = next((name for name in machines_named if name not in names), None)
        if wrong is not None:
            raise UsageError(
                f"{option} of {wrong!r}: this machine is not among those that are priced.{did_you_mean(wrong, names)} "
                f"Add it with --instance {wrong} (recipe: cost.instances)."
            )
    by_variant: dict[str, Collection[str]] = {"one-off cost": options.one_off}
    by_variant |= {f"throughput on {machine}": rates for machine, rates in options.throughput.items()}
    for option, variants_named in by_variant.items():
        wrong = next((name for name in variants_named if name not in variants), None)
        if wrong is not None:
            raise UsageError(f"{option} of {wrong!r}: there is no such variant.{did_you_mean(wrong, variants)}")
    return list(found)


def _priced(
    benches: Sequence[Document], variant: str, instance: str, quote: Quote | None, options: CostOptions
) -> dict[str, Any]:
    """Price one variant on one machine."""
    price = quote.price if quote else None
    hourly = None if price is None else price.spot_per_hour if options.spot else price.price_per_hour
    speed = machines.speed(benches, variant, instance, price, options)
    measured: Document = next(each for each in benches[0]["variants"] if each["id"] == variant)
    threads = (benches[0].get("runtime") or {}).get("threads", 1)
    per_million: dict[str, float] | None = None
    monthly = fleet = None
    if hourly is not None and speed is not None:

        def million(throughput_per_s: float) -> float:
            return 1e6 * formulas.usd_per_inference(
                usd_per_hour=float(hourly), throughput_per_s=throughput_per_s, utilisation=options.utilisation
            )

        # The fastest throughput is the lowest cost.
        per_million = {"value": million(speed.value), "low": million(speed.high), "high": million(speed.low)}
        if options.inferences_per_month is not None:
            fleet = formulas.replicas(
                inferences_per_month=options.inferences_per_month,
                throughput_per_s=speed.value,
                utilisation=options.utilisation,
                peak_to_mean=options.peak_to_mean,
                minimum=options.replicas_min,
            )
            monthly = month.usd(measured, fleet, float(hourly), options)
    total = None if monthly is None else monthly["total"]
    volume = options.inferences_per_month
    return {
        "instance": instance,
        "usd_per_hour": None if hourly is None else float(hourly),
        "as_of": price.as_of.isoformat() if price and price.as_of else None,
        "source": price.source if price else None,
        "layer": quote.layer if quote else None,
        "accelerator": price.accelerator if price else None,
        "basis": speed and speed.basis,
        "extrapolated": speed is None or speed.basis in ("extrapolated", "scaled"),
        "measured_on": speed and speed.measured_on,
        "throughput_per_s": speed and speed.value,
        "latency_ms": speed and speed.latency_ms,
        "meets_latency": speed and speed.keeps_bound,
        **machines.packing(measured, price, threads, options.reserve),
        "usd_per_million": per_million,
        "replicas": fleet,
        "usd_per_month": None if monthly is None else monthly["compute"],
        "monthly_usd": monthly,
        "usd_per_million_fleet": None if total is None or volume is None else 1e6 * total / volume,
        "energy": month.energy(measured, options),
        "change_vs_baseline_pct": None,
    }


def _choice(rows: Sequence[Mapping[str, Any]], options: CostOptions) -> dict[str, Any]:
    """Return the cheapest machine that holds a variant and keeps the latency bound, or why there is none.

    Machines are compared by speeds of their own. Where all that is known is the speed of the measured host, the
    cheapest hour would always win, whatever the machine can do: then nothing is chosen among several.
    """
    per = "usd_per_million_fleet" if options.inferences_per_month is not None else "usd_per_million"

    def usd(row: Mapping[str, Any]) -> float:
        found = row[per]
        return float(found["value"] if isinstance(found, Mapping) else found)

    priced = [row for row in rows if row[per] is not None]
    fitting = [row for row in priced if row["fits"] is not False]
    possible = [row for row in fitting if options.latency is None or row["meets_latency"]]
    comparable = possible if len(possible) == 1 else [row for row in possible if row["basis"] != "extrapolated"]
    reason = None
    if not priced:
        reason = "no machine has a price and a known speed"
    elif not fitting:
        reason = "no machine has enough memory"
    elif not possible:
        reason = "no machine is known to keep the latency bound"
    elif not comparable:
        reason = (
            "which machine is the cheapest is not known, because the speed of none of them is. Run `compress bench` "
            "there, or give --speed or --throughput"
        )
    best = min(comparable, key=usd, default=None)
    return {
        "instance": best and best["instance"],
        "basis": best and best["basis"],
        "usd_per_million": best and usd(best),
        "usd_per_month": best and best["monthly_usd"] and best["monthly_usd"]["total"],
        "reason": reason,
    }


def _compare(variants: Sequence[dict[str, Any]], options: CostOptions) -> None:
    """Add what every variant saves against the baseline, which comes first: on the same machine, and as chosen."""
    reference = variants[0]
    for variant in variants:
        for row, base in zip(variant["instances"], reference["instances"], strict=True):
            if variant is not reference and row["usd_per_million"] is not None and base["usd_per_million"] is not None:
                before, after = base["usd_per_million"]["value"], row["usd_per_million"]["value"]
                row["change_vs_baseline_pct"] = 100 * (after / before - 1) if before else None  # both are free
        once = options.one_off.get(variant["id"])
        once_usd = (
            0.0
            if once is None
            else formulas.compression_usd(
                hours=once.hours, usd_per_hour=float(once.usd_per_hour), other_usd=float(once.other_usd)
            )
        )
        before, after = reference["choice"]["usd_per_month"], variant["choice"]["usd_per_month"]
        saved = None if before is None or after is None or variant is reference else before - after
        variant["one_off_usd"] = once_usd
        variant["saved_usd_per_month"] = saved
        variant["saved_first_year_net_usd"] = None if saved is None else 12 * saved - once_usd
        variant["break_even_months"] = (
            None if saved is None else formulas.break_even_months(once_usd=once_usd, saved_usd_per_month=saved)
        )
