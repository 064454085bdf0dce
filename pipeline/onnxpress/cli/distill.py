"""The command ``distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxpress.cli.shared import FILE, Result, check_output, common, force_option, output_option, size, step_document


@click.command()
@click.argument("student", type=FILE)
@output_option
@click.option("--teacher", type=FILE, required=True, help="The model to learn from: same inputs, same outputs.")
@click.option("--data", required=True, metavar="DATA", help="Samples; no labels needed.")
@click.option("--samples", type=int, help="Use only the first so many samples.")
@click.option("--epochs", type=int, help="How often each sample is seen (100).")
@click.option("--steps", type=int, help="Updates of the weights, in place of epochs.")
@click.option("--budget", help="Time to train, for example 10m, in place of epochs.")
@click.option("--batch-size", type=int, help="Samples in an update, all processes together (64).")
@click.option("--learning-rate", type=float, help="Of Adam, as a share of each tensor's size (0.003).")
@click.option("--weight-decay", type=float, help="Of AdamW (0).")
@click.option("--loss", help="How outputs are compared: auto, kl, mse or cosine.")
@click.option("--temperature", type=float, help="Softens the classes of kl (4).")
@click.option("--features", type=float, help="Weight of matching inner tensors (1); 0 for none.")
@click.option("--labels", type=float, metavar="WEIGHT", help="Weight of the cross entropy with the labels y (0).")
@click.option("--augment", metavar="LIST", help="flip,crop,mixup, module:fn or none; by default all of images.")
@click.option("--held-out", help="Share of the samples that only judge (10%).")
@click.option("--patience", type=int, help="Stop after so many of 20 judgements without progress (15).")
@click.option("--seed", type=int, help="Of batches and augmentation (0).")
@click.option("--resume", is_flag=True, help="Continue a training of the same models, data and options.")
@force_option
@common
def distill(
    student: Path,
    output: Path,
    teacher: Path,
    data: str,
    samples: int | None,
    epochs: int | None,
    steps: int | None,
    budget: str | None,
    batch_size: int | None,
    learning_rate: float | None,
    weight_decay: float | None,
    loss: str | None,
    temperature: float | None,
    features: float | None,
    labels: float | None,
    augment: str | None,
    held_out: str | None,
    patience: int | None,
    seed: int | None,
    resume: bool,
    force: bool,
    result: Result,
) -> None:
    """Train the weights of STUDENT until it answers like the teacher: repairs what pruning or quantization lost.

    Needs no labels and no training code. Several processes: torchrun --nproc-per-node 2 -m onnxpress distill ….
    """
    from onnxpress import artifact, provenance
    from onnxpress.data import dataset
    from onnxpress.distillation.options import DistillOptions
    from onnxpress.errors import UsageError
    from onnxpress.export.prepare import prepare
    from onnxpress.export.sources import import_torch
    from onnxpress.progress import Progress
    from onnxpress.validation import options

    values: dict[str, Any] = {"epochs": epochs, "steps": steps, "budget": budget, "batch_size": batch_size}
    values |= {"learning_rate": learning_rate, "weight_decay": weight_decay, "loss": loss, "temperature": temperature}
    values |= {"features": features, "labels": labels, "augment": augment, "held_out": held_out, "seed": seed}
    chosen = options(DistillOptions, values | {"patience": patience, "samples": samples})
    import_torch()
    from onnxpress.distillation import processes
    from onnxpress.distillation.distill import distill as run

    if output.resolve() in (student.resolve(), teacher.resolve()):
        raise UsageError(f"output {output}: is an input, which is never changed. Choose another name.")
    check_output(output, force=force)
    source, given, wanted = dataset(data), artifact.read(student), artifact.read(teacher)
    first = processes.rank() == 0
    progress = result.progress if first else Progress(quiet=True)
    with progress.task(f"distill {student}", 1000) as advance:
        edit = run(
            prepare(artifact.load(student)).model,
            prepare(artifact.load(teacher)).model,
            chosen,
            source,
            checkpoint=output.with_name(f"{output.name}.checkpoint"),
            resume=resume,
            advance=advance,
        )
    if not first:
        return
    entry = {
        "step": "distill",
        "options": chosen.model_dump(mode="json"),
        "data_sha256": source.sha256,
        "teacher_sha256": wanted.sha256,
        "input_sha256": given.sha256,
        "versions": provenance.versions(),
    }
    made = artifact.save(edit.model, output, step=entry, force=force)
    facts = edit.facts
    lines = [
        f"{output}: {size(made)}",
        f"  {facts['updates']} updates of {facts['parameters']:,} parameters, {facts['features']} inner tensors",
    ]
    if facts["loss_before"] is not None:
        lines.append(
            f"  held-out loss {facts['loss_before']:.4g} -> {facts['loss_after']:.4g} (best after update "
            f"{facts['best_update']})"
        )
    result.show("\n".join(lines), step_document("distill", made, edit))
