"""Amazon EC2: the offer file (CSV) of the AWS Price List, one for each region, hundreds of megabytes.

Five lines about the file come before the table. On demand, Linux, shared tenancy, nothing preinstalled.
"""

from __future__ import annotations

import csv
import io
from datetime import date

from onnxpress.cost.prices import Price, money
from onnxpress.cost.sources import Chosen
from onnxpress.errors import UsageError

ADDRESS = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonEC2/current/{region}/index.csv"
WANTED = {
    "TermType": "OnDemand",
    "Operating System": "Linux",
    "Tenancy": "Shared",
    "CapacityStatus": "Used",
    "Pre Installed S/W": "NA",
    "Unit": "Hrs",
}


def url(chosen: Chosen) -> str:
    """Return where a region's file is.

    Raises:
        UsageError: not exactly one region is named.

    """
    if len(chosen.regions) != 1:
        raise UsageError("price source 'aws': has one file per region. Name one, for example --region us-east-1.")
    return ADDRESS.format(region=chosen.regions[0])


def parse(content: bytes, chosen: Chosen) -> list[Price]:
    """Read the file."""
    lines = io.StringIO(content.decode("utf-8-sig"))
    about: dict[str, str] = {}
    head: list[str] = []
    for head in csv.reader(lines):
        if head and head[0] == "SKU":
            break
        about |= dict([head[:2]]) if len(head) > 1 else {}
    published = date.fromisoformat(about["Publication Date"][:10])
    rows = []
    for values in csv.reader(lines):
        row = dict(zip(head, values, strict=False))
        kind, region = row["Instance Type"], row["Region Code"]
        if kind and chosen.wants(kind, region) and all(row.get(name) == value for name, value in WANTED.items()):
            if not float(row["PricePerUnit"]):
                continue
            rows.append(
                Price(
                    provider="aws",
                    type=kind,
                    region=region,
                    arch="arm64" if "Graviton" in row["Physical Processor"] else "x86_64",
                    vcpus=int(row["vCPU"]),
                    memory_gib=float(row["Memory"].removesuffix(" GiB").replace(",", "")),
                    accelerator_count=int(row.get("GPU") or 0),
                    price_per_hour=money(row["PricePerUnit"]),
                    as_of=published,
                    source=f"AWS Price List {about.get('Version', '')}".strip(),
                )
            )
    return rows
