"""The command ``cost``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxpress.cli.shared import INPUT, Result, common


@click.command()
@click.argument("bench_json", nargs=-1, required=True, type=INPUT)
@click.option("--prices", type=INPUT, help="Price file on top of the bundled one.")
@click.option("--price", "price", multiple=True, metavar="TYPE=USD", help="Price per hour of one instance type.")
@click.option(
    "--instance", "instances", multiple=True, help="provider/type/region, wildcards allowed: gcp/*/us-central1."
)
@click.option("--spot", is_flag=True, help="Spot prices.")
@click.option("--inferences-per-month", help="For example 100M.")
@click.option("--utilisation", help="Share of an instance's capacity that is used, for example 50%.")
@click.option("--peak-to-mean", type=float, help="How many times the average the busiest time asks for.")
@click.option("--replicas-min", type=int, help="Instances that run in any case.")
@click.option("--latency", metavar="p99=20ms", help="Bound that an instance must keep to be chosen.")
@click.option("--measured", multiple=True, metavar="TYPE=FINGERPRINT", help="The instance that a benchmark's host is.")
@click.option(
    "--throughput", multiple=True, metavar="TYPE:VARIANT=N/s", help="Known speed, of a GPU or TPU for example."
)
@click.option("--speed", multiple=True, metavar="TYPE=1.5x", help="Speed relative to the measured host.")
@click.option(
    "--one-off", multiple=True, metavar="VARIANT=USD", help="What it cost to make a variant: 400, 2.5h@0.20 or a sum."
)
@click.option("--max-price-age", metavar="90d", help="End with exit code 4 when a price is older.")
@click.option("--settings", type=INPUT, help="YAML with the keys of a recipe's `cost`, storage and energy among them.")
@common
def cost(
    bench_json: tuple[Path, ...],
    prices: Path | None,
    price: tuple[str, ...],
    instances: tuple[str, ...],
    spot: bool,
    inferences_per_month: str | None,
    utilisation: str | None,
    peak_to_mean: float | None,
    replicas_min: int | None,
    latency: str | None,
    measured: tuple[str, ...],
    throughput: tuple[str, ...],
    speed: tuple[str, ...],
    one_off: tuple[str, ...],
    max_price_age: str | None,
    settings: Path | None,
    result: Result,
) -> None:
    """Price the measurements in BENCH_JSON, one file for each host, and choose the cheapest instance of each variant.

    Storage, transfer, cold starts, energy and carbon have no option of their own: give them in --settings, before which
    options go. Exit code 4 when an instance has no price.
    """
    from onnxpress.cost.cost import cost as run
    from onnxpress.cost.notes import MISSING_PRICE, OLD_PRICE
    from onnxpress.cost.options import CostOptions
    from onnxpress.errors import EvidenceError
    from onnxpress.report.formats import terminal
    from onnxpress.results.base import read_json
    from onnxpress.results.benchmark import Benchmark
    from onnxpress.validation import options, read_mapping

    values: dict[str, Any] = {"prices": prices and str(prices), "price": price or None, "instances": instances or None}
    values |= {"inferences_per_month": inferences_per_month, "utilisation": utilisation, "spot": spot or None}
    values |= {"peak_to_mean": peak_to_mean, "replicas_min": replicas_min, "latency": latency}
    values |= {"measured": measured or None, "throughput": throughput or None, "speed": speed or None}
    values |= {"one_off": one_off or None, "max_price_age": max_price_age}
    given = {name: value for name, value in values.items() if value is not None}
    chosen = options(CostOptions, (read_mapping(settings, CostOptions) if settings else {}) | given)
    advice = "Give what `compress bench --json` wrote."
    benches = [read_json(path, Benchmark, "benchmark", advice=advice).document for path in bench_json]
    document = run(benches, chosen)
    result.show(terminal.cost(document), document)
    fatal = (MISSING_PRICE, OLD_PRICE) if "max_price_age" in chosen.model_fields_set else (MISSING_PRICE,)
    problem = next((each["message"] for each in document["warnings"] if each["code"] in fatal), None)
    if problem is not None:
        raise EvidenceError(problem)
