"""A plain CSV file with a row per machine.

Columns: ``provider``, ``instance_type`` (or ``type``), ``region``, ``price_per_hour``; and optionally ``arch``,
``vcpus``, ``memory_gib``, ``accelerator``, ``accelerator_count``, ``spot_price_per_hour``, ``as_of``, ``source``.
"""

from __future__ import annotations

import csv
import io
from datetime import date

from onnxpress.cost.prices import Price, money
from onnxpress.cost.sources import Chosen
from onnxpress.errors import UsageError


def url(_chosen: Chosen) -> str:
    """Raise: a file of one's own has no address."""
    raise UsageError("price source 'table': is a file of your own. Use `compress prices import`.")


def parse(content: bytes, chosen: Chosen) -> list[Price]:
    """Read the file."""
    rows = []
    for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig"))):
        kind = row.get("instance_type") or row["type"]
        if chosen.wants(kind, row["region"]):
            rows.append(
                Price(
                    provider=row["provider"],
                    type=kind,
                    region=row["region"],
                    arch="arm64" if row.get("arch") == "arm64" else "x86_64" if row.get("arch") else None,
                    vcpus=int(float(row["vcpus"])) if row.get("vcpus") else None,
                    memory_gib=float(row["memory_gib"]) if row.get("memory_gib") else None,
                    accelerator=row.get("accelerator") or None,
                    accelerator_count=int(row.get("accelerator_count") or 0),
                    price_per_hour=money(row["price_per_hour"] or None),
                    spot_per_hour=money(row.get("spot_price_per_hour") or None),
                    as_of=date.fromisoformat(row["as_of"]) if row.get("as_of") else None,
                    source=row.get("source") or None,
                )
            )
    return rows
