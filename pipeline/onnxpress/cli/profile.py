"""The command ``profile``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxpress.cli.shared import INPUT, TEXT, Result, common, output_option, preprocessing_option, read_profile

if TYPE_CHECKING:
    from onnxpress_calibration.preprocessing import Preprocessing


@click.command()
@click.argument("model", type=INPUT)
@output_option
@click.option("--data", type=TEXT, metavar="DATA", help="Samples to collect statistics from.")
@preprocessing_option
@click.option("--samples", type=click.IntRange(min=1), help="Use only the first so many samples.")
@click.option("--batch", type=click.IntRange(1), default=1, help="Samples a run; 1 depends on no neighbour.")
@click.option("--memory-budget", default="1 GiB", help="Activations held at once; less takes more passes.")
@click.option("--merge", type=INPUT, multiple=True, help="Add the profile of another shard of the data.")
@common
def profile(
    model: Path,
    output: Path,
    data: str | None,
    preprocessing: Preprocessing | None,
    samples: int | None,
    batch: int,
    memory_budget: str,
    merge: tuple[Path, ...],
    result: Result,
) -> None:
    """Collect the activation statistics of MODEL, from which every calibrator computes its ranges.

    Shards of the data can be profiled apart, on several machines, and merged: the bits are those of one pass.
    """
    from onnxpress import artifact, profile_inspection
    from onnxpress.data import dataset
    from onnxpress.errors import UsageError
    from onnxpress.export.prepare import prepare
    from onnxpress.quantization.collecting import collect
    from onnxpress.units import parse

    if data is None and not merge:
        raise UsageError("profile: nothing to do. Give --data DATA, or --merge PROFILE several times.")
    shards = [read_profile(path, model) for path in merge]
    if data is not None:
        source = dataset(data, limit=samples, preprocessing=preprocessing)
        float_model = prepare(artifact.load(model)).model
        with result.progress.task(f"profile {model}", source.count) as advance:
            sha256 = artifact.read(model).sha256
            budget = parse(memory_budget, "bytes")
            shards.append(
                collect(float_model, source, batch=batch, memory_budget=budget, model_sha256=sha256, advance=advance)
            )
    collected = functools.reduce(lambda one, other: one.merged(other), shards)
    collected.write(result.outputs.stage(output))
    text = f"{output}: {len(collected.tensors)} tensors, {collected.samples} samples (see `compress inspect {output}`)"
    result.show([text], profile_inspection.document(collected))
