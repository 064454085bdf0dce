"""The command ``prune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxpress.cli.shared import (
    INPUT,
    TEXT,
    Result,
    axis_sizes,
    common,
    output_option,
    preprocessing_option,
    shape_option,
    size,
    step_document,
    transform,
)

if TYPE_CHECKING:
    from onnxpress_calibration.preprocessing import Preprocessing


@click.command()
@click.argument("model", type=INPUT)
@output_option
@click.option(
    "--method", help="What matters least: auto, l2, l1; from data: reconstruction, wanda, taylor, activation."
)
@click.option("--granularity", help="channel (removes them), weight (zeros), or n:m such as 2:4.")
@click.option("--amount", help="Share to prune, for example 30%.")
@click.option(
    "--target", metavar="macs=0.7", help="What is to be left of macs, params, bytes or measured latency (also 5ms)."
)
@shape_option
@click.option("--allocation", help="How groups share the loss: auto, uniform, global, sensitivity (measured).")
@click.option("--iterations", type=int, help="Prune in so many equal steps, with a repair after each.")
@click.option("--keep-depth", is_flag=True, help="Only narrow layers, and keep every residual branch.")
@click.option(
    "--round-to", type=int, help="Channel counts are kept at multiples of this [default: what the kernels take]."
)
@click.option("--ep", help="Execution provider that the model is for: cpu, cuda, …")
@click.option("--repair", is_flag=True, help="Re-solve the weights behind the cut from calibration data.")
@click.option(
    "--calibration", type=TEXT, metavar="DATA", help="Calibration samples for repair and criteria; no labels needed."
)
@preprocessing_option
@click.option("--held-out", help="Share of the samples to leave alone, that distill will judge by (0).")
@click.option("--include", metavar="REGEX", help="Prune only nodes whose name matches.")
@click.option("--exclude", metavar="REGEX", help="Leave nodes alone whose name matches.")
@common
def prune(
    model: Path,
    output: Path,
    method: str | None,
    granularity: str | None,
    amount: str | None,
    target: str | None,
    shape: tuple[str, ...],
    allocation: str | None,
    iterations: int | None,
    keep_depth: bool,
    round_to: int | None,
    ep: str | None,
    repair: bool,
    calibration: str | None,
    preprocessing: Preprocessing | None,
    held_out: str | None,
    include: str | None,
    exclude: str | None,
    result: Result,
) -> None:
    """Remove channels (or zero weights) of MODEL."""
    from onnxpress.data import dataset
    from onnxpress.pruning import PruneOptions
    from onnxpress.pruning import prune as run
    from onnxpress.validation import options

    values: dict[str, Any] = {"method": method, "granularity": granularity, "amount": amount}
    values |= {"target": key_value(target), "allocation": allocation, "iterations": iterations}
    values |= {"provider": ep, "round_to": round_to, "repair": repair or None, "include": include, "exclude": exclude}
    values |= {"shape": axis_sizes(shape) or None}
    values |= {"held_out": held_out, "keep_depth": keep_depth or None}
    chosen = options(PruneOptions, values)
    data = dataset(calibration, preprocessing=preprocessing) if calibration is not None else None
    entry = {
        "step": "prune",
        "options": chosen.model_dump(mode="json"),
        "data_sha256": None if data is None else data.sha256,
    }
    made, edit = transform(model, output, entry, lambda given: run(given, chosen, data, result.progress.stage), result)
    lines = [f"{output}: {size(made)}, was {model.stat().st_size / 1e6:.2f} MB"]
    lines += [
        f"  {name.replace('_pct', ' %').replace('_', ' ')}: {_short(value)}" for name, value in edit.facts.items()
    ]
    lines += [f"  left alone: {skip.op} {skip.where}: {skip.reason}" for skip in edit.skipped]
    result.show(lines, step_document("prune", output, made, edit))


def _short(value: object) -> str:
    """Write a fact with as many digits as people read; JSON has all."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def key_value(text: str | None) -> dict[str, str] | None:
    """Turn ``macs=0.7`` into ``{"macs": "0.7"}``."""
    from onnxpress.errors import UsageError

    if text is None:
        return None
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r}: must be NAME=VALUE, for example macs=0.7.")
    return {key: value}
