"""Microsoft Azure: the Retail Prices interface, JSON, no key needed. It tells prices, not how large a machine is."""

from __future__ import annotations

import json
from datetime import date
from urllib.parse import quote

from onnxpress.cost.prices import Price, money
from onnxpress.cost.sources import Chosen
from onnxpress.errors import UsageError

ADDRESS = "https://prices.azure.com/api/retail/prices?$filter="


def url(chosen: Chosen) -> str:
    """Return the question for some types in some regions; an answer has at most a thousand rows.

    Raises:
        UsageError: no region or no type is named, or a type has a wildcard.

    """
    if not chosen.regions or not chosen.types or any(set("*?[") & set(kind) for kind in chosen.types):
        raise UsageError(
            "price source 'azure': answers at most a thousand rows. Name regions and types in full, for example "
            "--region eastus --type Standard_D4s_v5."
        )
    regions = " or ".join(f"armRegionName eq '{region}'" for region in chosen.regions)
    types = " or ".join(f"armSkuName eq '{kind}'" for kind in chosen.types)
    question = f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and ({regions}) and ({types})"
    return ADDRESS + quote(question)


def parse(content: bytes, chosen: Chosen) -> list[Price]:
    """Read the answer: Linux, on demand and spot."""
    found: dict[str, Price] = {}
    spot: dict[str, str] = {}
    for item in json.loads(content, parse_float=str, parse_int=str)["Items"]:
        kind, region = item["armSkuName"], item["armRegionName"]
        hourly = item["unitOfMeasure"] == "1 Hour" and item["type"] == "Consumption" and item["currencyCode"] == "USD"
        if not hourly or "Windows" in item["productName"] or not chosen.wants(kind, region):
            continue
        name = f"azure/{kind}/{region}"
        if "Spot" in item["skuName"]:
            spot[name] = item["retailPrice"]
        elif "Low Priority" not in item["skuName"]:
            found[name] = Price(
                provider="azure",
                type=kind,
                region=region,
                price_per_hour=money(item["retailPrice"]),
                as_of=date.fromisoformat(item["effectiveStartDate"][:10]),
                source="https://prices.azure.com/api/retail/prices",
            )
    return [Price.model_validate(row.model_dump() | {"spot_per_hour": spot.get(name)}) for name, row in found.items()]
