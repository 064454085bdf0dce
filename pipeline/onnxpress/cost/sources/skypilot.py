"""Many clouds: ``vms.csv`` of skypilot-org/skypilot-catalog, one file per cloud, one row per zone.

The file has no date in it: the day of the import counts, so import what you have just downloaded. Google's rows of
machines with a GPU do not contain the GPU's price, and are left out.
"""

from __future__ import annotations

import csv
import io

from onnxpress.cost.prices import Price, money
from onnxpress.cost.sources import Chosen
from onnxpress.errors import UsageError

ADDRESS = "https://raw.githubusercontent.com/skypilot-org/skypilot-catalog/master/catalogs/v8/{cloud}/vms.csv"


def url(chosen: Chosen) -> str:
    """Return where a cloud's file is.

    Raises:
        UsageError: no cloud is named.

    """
    if chosen.provider is None:
        raise UsageError("price source 'skypilot': has one file per cloud. Name it, for example --provider aws.")
    return ADDRESS.format(cloud=chosen.provider)


def parse(content: bytes, chosen: Chosen) -> list[Price]:
    """Read the file; of a machine's zones the cheapest counts.

    Raises:
        UsageError: no cloud is named.

    """
    if chosen.provider is None:
        raise UsageError(
            "price source 'skypilot': its file does not say of which cloud it is. Name it with --provider."
        )
    found: dict[str, Price] = {}
    for row in csv.DictReader(io.StringIO(content.decode())):
        excludes_gpu = chosen.provider == "gcp" and row["AcceleratorName"]
        if not row["InstanceType"] or not row["Price"] or excludes_gpu:
            continue
        if not chosen.wants(row["InstanceType"], row["Region"]):
            continue
        price = Price(
            provider=chosen.provider,
            type=row["InstanceType"],
            region=row["Region"],
            arch="arm64" if row.get("Arch") == "arm64" else "x86_64" if row.get("Arch") else None,
            vcpus=int(float(row["vCPUs"])) if row["vCPUs"] else None,
            memory_gib=float(row["MemoryGiB"]) if row["MemoryGiB"] else None,
            accelerator=row["AcceleratorName"].lower() or None,
            accelerator_count=int(float(row["AcceleratorCount"] or 0)),
            price_per_hour=money(row["Price"]),
            spot_per_hour=money(row["SpotPrice"] or None),
        )
        other = found.get(price.instance)
        if other is None or (price.price_per_hour or 0) < (other.price_per_hour or 0):
            found[price.instance] = price
    return list(found.values())
