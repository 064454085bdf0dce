"""Google Cloud: ``pricing.yml`` of Cyclenerd/google-cloud-pricing-cost-calculator (Apache-2.0, made anew every week).

A GPU's price is part of its machine's there.
"""

from __future__ import annotations

from datetime import date

from onnxpress.cost.prices import Price, money
from onnxpress.cost.sources import Chosen
from onnxpress_calibration.documents import parse_yaml

ADDRESS = "https://raw.githubusercontent.com/Cyclenerd/google-cloud-pricing-cost-calculator/master/pricing.yml"
ARM = ("t2a-", "c4a-", "n4a-", "a4x-")
NO_GPU = ("cpu", "ram", "cost", "type", "note", "ssd", "local_ssd", "bandwidth")


def url(_chosen: Chosen) -> str:
    """Return where the file is."""
    return ADDRESS


def parse(content: bytes, chosen: Chosen) -> list[Price]:
    """Read the file."""
    _, document = parse_yaml(content)
    made = str(document["about"].get("generated") or document["about"]["timestamp"])[:10]
    rows = []
    for kind, facts in document["compute"]["instance"].items():
        gpus = {name: int(count) for name, count in facts.items() if name not in NO_GPU and str(count).isdigit()}
        gpu = next((name for name, count in gpus.items() if count > 0), None)
        for region, price in facts["cost"].items():
            if chosen.wants(kind, region) and price.get("hour"):
                rows.append(
                    Price(
                        provider="gcp",
                        type=kind,
                        region=region,
                        arch="arm64" if kind.startswith(ARM) else "x86_64",
                        vcpus=int(float(facts["cpu"])) or None,
                        memory_gib=float(facts["ram"]),
                        accelerator=gpu,
                        accelerator_count=gpus.get(gpu or "", 0),
                        price_per_hour=money(repr(price["hour"])),
                        spot_per_hour=money(repr(price["hour_spot"]) if price.get("hour_spot") else None),
                        as_of=date.fromisoformat(made),
                        source=ADDRESS,
                    )
                )
    return rows
