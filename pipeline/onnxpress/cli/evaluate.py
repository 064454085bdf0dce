"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxpress.cli.shared import INPUT, TEXT, Result, common, name_models, preprocessing_option

if TYPE_CHECKING:
    from onnxpress_calibration.preprocessing import Preprocessing


@click.command()
@click.argument("models", nargs=-1, required=True, type=INPUT)
@click.option("--data", type=TEXT, required=True, metavar="DATA", help="Samples, labelled where the metric needs it.")
@preprocessing_option
@click.option("--metric", help="top1, top5, spearman, mean, or your file.py:fn; without it only fidelity is measured.")
@click.option("--samples", type=click.IntRange(min=1), help="Use only the first so many samples.")
@common
def evaluate(
    models: tuple[Path, ...],
    data: str,
    preprocessing: Preprocessing | None,
    metric: str | None,
    samples: int | None,
    result: Result,
) -> None:
    """Measure accuracy; the first of MODELS is the baseline of the others."""
    from onnxpress import artifact
    from onnxpress.data import dataset
    from onnxpress.evaluation.evaluate import check_metric
    from onnxpress.evaluation.evaluate import evaluate as run
    from onnxpress.report.formats import terminal

    check_metric(metric)
    named = name_models(models)
    for model in models:
        artifact.load(model)  # checked before onnxruntime, which says less, looks at it
    source = dataset(data, limit=samples, preprocessing=preprocessing)
    with result.progress.task("evaluate", source.count * len(named)) as advance:
        document = run(named, baseline=next(iter(named)), data=source, metric=metric, advance=advance)
    result.show(terminal.evaluation(document), document)
