"""The command ``distill``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxpress.cli.shared import TEXT, Result, common, output_option, preprocessing_option, size, step_document

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxpress_calibration.preprocessing import Preprocessing


@click.command()
@click.argument("student", type=TEXT, metavar="STUDENT")
@output_option
@click.option(
    "--teacher", type=TEXT, required=True, metavar="SOURCE", help="What to learn from: same inputs, same outputs."
)
@click.option("--data", type=TEXT, required=True, metavar="DATA", help="Samples; no labels needed.")
@preprocessing_option
@click.option("--samples", type=click.IntRange(min=1), help="Use only the first so many samples.")
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
@common
def distill(
    student: str,
    output: Path,
    teacher: str,
    data: str,
    preprocessing: Preprocessing | None,
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
    result: Result,
) -> None:
    """Train the weights of STUDENT until it answers like the teacher: repairs what pruning or quantization lost.

    Needs no labels and no training code. Both may be PyTorch models (zoo:NAME, module:factory, file.py:factory); the
    weights of such a student are written as OUT.safetensors, for `compress export STUDENT --weights`.

    Several processes: torchrun --nproc-per-node 2 -m onnxpress distill ….
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
    from onnxpress.distillation.modules import distill_module, save_weights

    if _is_pytorch(student) and output.suffix != ".safetensors":
        raise UsageError(f"output {output}: the weights of a PyTorch model are written as NAME.safetensors.")
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    result.outputs.refuse_inputs(checkpoint)
    if checkpoint.exists() and not (resume or result.outputs.force):
        raise UsageError(
            f"checkpoint {checkpoint}: is there from a training that was interrupted. Continue it with --resume, or "
            "begin again with --force."
        )
    source, wanted = dataset(data, preprocessing=preprocessing), _teacher(teacher)
    given = None if _is_pytorch(student) else artifact.load(Path(student))
    first = processes.rank() == 0
    progress = result.progress if first else Progress(quiet=True)
    with progress.task(f"distill {student}", 1000) as advance, _resumable(checkpoint):
        if given is None:
            module, facts = distill_module(
                student, wanted, chosen, source, checkpoint=checkpoint, resume=resume, advance=advance
            )
        else:
            model = prepare(given).model
            edit = run(model, wanted, chosen, source, checkpoint=checkpoint, resume=resume, advance=advance)
            facts = dict(edit.facts)
    if not first:
        return
    lines = [f"  {facts['updates']} updates of {facts['trained']:,} weights, {facts['features']} inner tensors matched"]
    if facts["loss_before"] is not None:
        lines.append(
            f"  held-out loss {facts['loss_before']:.4g} -> {facts['loss_after']:.4g} (best after update "
            f"{facts['best_update']})"
        )
    if facts["best_update"] == 0:
        lines.append(
            f"  nothing improved: the weights in {output} are those of {student}. Give more samples or epochs, or "
            "another --learning-rate"
        )
    if given is not None and _fitted(artifact.lineage(given), source.sha256):
        lines.append(
            "  repair was fitted to the held-out samples, too, which judge too kindly then: prune with --held-out"
        )
    if given is None:
        save_weights(module, result.outputs.stage(output))
        document = {"schema": "onnxpress.step/1", "step": "distill", "weights": str(output), "facts": facts}
        result.show([f"{output}: weights of {student}", *lines], document)
        checkpoint.unlink(missing_ok=True)
        return
    entry = {
        "step": "distill",
        "options": chosen.model_dump(mode="json"),
        "data_sha256": source.sha256,
        "teacher_sha256": provenance.source_sha256(teacher, None),
        "input_sha256": artifact.read(Path(student)).sha256,
        "versions": provenance.versions(),
    }
    made = result.save(edit.model, output, entry)
    result.show([f"{output}: {size(made)}", *lines], step_document("distill", output, made, edit))
    checkpoint.unlink(missing_ok=True)


@contextmanager
def _resumable(checkpoint: Path) -> Iterator[None]:
    """Say how an interrupted training goes on."""
    from onnxpress.printing import printable

    try:
        yield
    except KeyboardInterrupt:
        if checkpoint.is_file():
            said = f"training so far is kept in {checkpoint}: give the same command with --resume"
            click.echo(printable(said), err=True)
        raise


def _is_pytorch(source: str) -> bool:
    return ":" in source and not Path(source).is_file()


def _fitted(lineage: Sequence[Mapping[str, Any]], data_sha256: str) -> bool:
    """Tell whether a student's weights were re-solved on all of this data."""
    return any(
        step.get("step") == "prune"
        and step.get("data_sha256") == data_sha256
        and step["options"].get("repair")
        and not step["options"].get("held_out")
        for step in lineage
    )


def _teacher(source: str) -> ir.Model:
    """Return a teacher as a prepared graph."""
    from onnxpress import artifact
    from onnxpress.export.export import export
    from onnxpress.export.options import ExportOptions
    from onnxpress.export.prepare import prepare

    if _is_pytorch(source):
        return export(source, ExportOptions(verify=False)).model
    return prepare(artifact.load(Path(source))).model
