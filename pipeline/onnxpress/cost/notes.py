"""What the numbers of a cost report rest on, and what is wrong with its prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from onnxpress.bench.server import Sla
from onnxpress.cost import machines
from onnxpress.cost.machines import Document
from onnxpress.cost.options import CostOptions
from onnxpress.cost.prices import Quote
from onnxpress.errors import did_you_mean
from onnxpress.units import format_count, format_ratio, format_usd

MISSING_PRICE, OLD_PRICE = "missing-price", "old-price"


def notes(variants: list[dict[str, Any]], baseline: str, options: CostOptions) -> Iterator[str]:
    """Say what the numbers rest on, and where a fleet's floor makes compression worthless."""
    rows = [priced for variant in variants for priced in variant["instances"]]
    dates = sorted({row["as_of"] for row in rows if row["as_of"]})
    yield (
        f"Estimate from list prices{' of ' + ', '.join(dates) if dates else ''}: "
        f"{'spot' if options.spot else 'on demand'}, Linux, without taxes, discounts, licences and data transfer"
        f"{', except of the model' if options.transfer_usd_per_gb is not None else ''}; "
        f"machines are used to {format_ratio(options.utilisation)}."
    )
    if any(row["extrapolated"] for row in rows):
        yield (
            "Throughput was measured on the host of the benchmark and taken unchanged for the machines marked as "
            "extrapolated, whatever their CPUs: their own speed is not known."
        )
    if any(row["basis"] == "given" for row in rows):
        yield "Some throughputs were given, not measured; nothing is known of the latency there."
    unknown = sorted({row["instance"] for row in rows if row["basis"] is None})
    if unknown:
        yield (
            f"{', '.join(unknown)}: has an accelerator where the benchmark ran without one, or none where it ran on "
            "one, so nothing is known of the speed there. Give it with --throughput or --speed."
        )
    yield from _fits(variants, baseline)
    yield from _chosen(variants)
    if options.grid is not None:
        grid = options.grid
        yield (
            f"Carbon: {grid.g_co2e_per_kwh:g} g CO2e per kWh ({grid.region}, {grid.year}, {grid.source}), PUE "
            f"{options.pue:g}, what the chips draw; making the machines is not counted."
        )
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


def _chosen(variants: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say which machine is the cheapest for each variant, and what that saves, the making of the variant included."""
    if all(len(variant["instances"]) == 1 and not variant["one_off_usd"] for variant in variants):
        return
    for variant in variants:
        choice, saved = variant["choice"], variant["saved_usd_per_month"]
        if choice["instance"] is None:
            yield f"{variant['id']}: {choice['reason']}."
            continue
        text = f"{variant['id']}: cheapest on {choice['instance']} ({choice['basis']})"
        if choice["usd_per_month"] is not None:
            text += f", {format_usd(choice['usd_per_month'])} a month"
        if saved is not None:
            text += f", {format_usd(abs(saved))} {'less' if saved >= 0 else 'more'} than the baseline on its cheapest"
        if variant["one_off_usd"]:
            months = variant["break_even_months"]
            text += f"; making it cost {format_usd(variant['one_off_usd'])}, "
            text += "which it never pays back" if months is None else f"paid back after {months:.1f} months"
        yield f"{text}."


def _fits(variants: Sequence[Mapping[str, Any]], baseline: str) -> Iterator[str]:
    """Say which variants fit where the baseline does not."""
    for row in next(variant["instances"] for variant in variants if variant["id"] == baseline):
        if row["fits"] is False:
            others = [
                variant["id"]
                for variant in variants
                if any(each["instance"] == row["instance"] and each["fits"] for each in variant["instances"])
            ]
            enough = ", ".join(others) or "none"
            yield f"{row['instance']}: too little memory for {baseline!r}; it is enough for {enough}."


def overloaded(benches: Sequence[Document], bound: Sla | None) -> Iterator[str]:
    """Say for which variants the server scenario found no rate of requests at which the latency bound is kept."""
    if bound is None:
        return
    for bench in benches:
        for measured in bench["variants"]:
            if machines.no_rate(measured, bound):
                yield (
                    f"{measured['id']}: in the server scenario no rate of requests kept p{bound.percent:g} within "
                    f"{bound.limit_ms:g} ms on the host {bench['host']['fingerprint']}, so no price is given for it."
                )


def warnings(
    known: Mapping[str, Quote], instances: Sequence[str], options: CostOptions, today: date
) -> Iterator[dict[str, str]]:
    """Say which prices are missing and which are old."""
    for instance in instances:
        missing = missing_price(instance, known, spot=options.spot)
        price = known[instance].price if missing is None else None
        if missing is not None:
            yield {"code": MISSING_PRICE, "message": missing}
        elif price is not None and price.as_of is not None and (today - price.as_of) > options.max_price_age:
            yield {
                "code": OLD_PRICE,
                "message": f"{instance}: its price is {(today - price.as_of).days} days old (of {price.as_of}). "
                "Check it, and give the new one with --price or --prices.",
            }


def missing_price(instance: str, known: Mapping[str, Quote], *, spot: bool) -> str | None:
    """Say that a machine has no price, and what to do; None where it has one."""
    quote = known.get(instance)
    amount = None if quote is None else quote.price.spot_per_hour if spot else quote.price.price_per_hour
    if amount is not None:
        return None
    hint = "" if quote else did_you_mean(instance, known)
    kind = "spot price" if spot else "price"
    return (
        f"{instance}: no {kind} is known.{hint} Give one with --price {instance}=DOLLARS_PER_HOUR (recipe: cost.price)."
    )
