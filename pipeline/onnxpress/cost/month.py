"""A month of a variant on a fleet, line by line, and what it draws."""

from __future__ import annotations

from onnxpress.cost import formulas
from onnxpress.cost.machines import Document
from onnxpress.cost.options import CostOptions


def usd(measured: Document, fleet: int, usd_per_hour: float, options: CostOptions) -> dict[str, float | None]:
    """Return what a month costs, line by line; a line without a price is None, and not part of the total."""
    size_bytes = measured.get("model", {}).get("size_bytes")
    storage = transfer = starts = serverless = electricity = None
    if size_bytes is not None and options.storage_usd_per_gb_month is not None:
        storage = formulas.storage_usd_per_month(
            size_bytes=size_bytes,
            versions=options.versions_kept,
            usd_per_gb_month=float(options.storage_usd_per_gb_month),
        )
    if size_bytes is not None and options.transfer_usd_per_gb is not None:
        copies = options.deployments_per_month * fleet + options.devices * options.updates_per_month
        transfer = formulas.transfer_usd(
            size_bytes=size_bytes, copies=copies, usd_per_gb=float(options.transfer_usd_per_gb)
        )
    cold = measured.get("cold_start_ms")
    if size_bytes is not None and cold is not None:
        seconds = formulas.start_s(
            size_bytes=size_bytes,
            bytes_per_s=options.bandwidth,
            load_ms=cold["import"] + cold["session"],
            first_run_ms=cold["first_run"],
        )
        starts = formulas.starts_usd_per_month(
            starts_per_month=options.starts_per_month, seconds=seconds, usd_per_hour=usd_per_hour
        )
    peak, latency = (measured.get("memory") or {}).get("vm_hwm_bytes"), measured.get("latency_ms")
    volume = options.inferences_per_month or 0
    if options.serverless_usd_per_gb_s is not None and peak and latency:
        serverless = formulas.serverless_usd_per_month(
            memory_bytes=peak,
            seconds=latency["mean"] / 1e3,
            inferences_per_month=volume,
            usd_per_gb_s=float(options.serverless_usd_per_gb_s),
        )
    power = energy(measured, options)
    if power is not None:
        electricity = power["usd_per_month"]
    compute = formulas.usd_per_month(replicas=fleet, usd_per_hour=usd_per_hour)
    return {
        "compute": compute,
        "storage": storage,
        "transfer": transfer,
        "starts": starts,
        "electricity": electricity,
        "total": compute + sum(line for line in (storage, transfer, starts, electricity) if line is not None),
        "serverless_instead": serverless,
    }


def energy(measured: Document, options: CostOptions) -> dict[str, float | None] | None:
    """Return energy and carbon of a month's inferences; None where no energy was measured or no volume is given."""
    joules = (measured.get("energy") or {}).get("j_per_inference")
    if joules is None or options.inferences_per_month is None:
        return None
    kwh = formulas.kwh(j_per_inference=joules, inferences=options.inferences_per_month, pue=options.pue)
    price, grid = options.electricity_usd_per_kwh, options.grid
    return {
        "kwh_per_month": kwh,
        "usd_per_month": None if price is None else kwh * float(price),
        "kg_co2e_per_month": None if grid is None else formulas.carbon_kg(kwh=kwh, g_co2e_per_kwh=grid.g_co2e_per_kwh),
    }
