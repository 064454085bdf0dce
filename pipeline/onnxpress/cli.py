"""The command line: parse, call one function, print. Importing it imports neither torch nor onnxruntime.

Every command takes ``--json FILE|-``, ``-q`` and ``-v``, and ends with the exit codes of `onnxpress.errors`: 0 done or
gate passed, 1 gate failed, 2 wrong usage, 3 model or data broken, 4 evidence missing, 5 internal error.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import onnxpress
from onnxpress.command import FILE, Result, common, force_option, name_models, read_json
from onnxpress.gate.commands import baseline, gate

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxpress.artifact import Artifact, Edit
    from onnxpress.progress import Progress
    from onnxpress.quantization import QuantizeOptions
    from onnxpress.report.report import Report
    from onnxpress_calibration.dataset import Dataset
    from onnxpress_calibration.profile import Profile

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}


output_option = click.option("-o", "--output", type=FILE, required=True, help="Where to write the model.")


@click.group(context_settings=CONTEXT)
@click.version_option(onnxpress.__version__, prog_name="onnxpress")
def cli() -> None:
    """Make trained models cheap to deploy, and prove it.

    Export to ONNX, prune, quantize, measure accuracy and speed in pairs, price, and gate a release.
    """


@cli.command()
@click.argument("source")
@output_option
@click.option("--weights", type=FILE, help="Weights: .safetensors, or .pt that loads without pickle.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME:DTYPE:SHAPE",
    help="x:float32:batchx3x224x224; words are dynamic axes.",
)
@click.option("--opset", type=int, help="ONNX operator set of the result.")
@click.option("--atol", type=float, help="Absolute tolerance of the verification.")
@click.option("--rtol", type=float, help="Relative tolerance of the verification.")
@click.option("--no-verify", is_flag=True, help="Write the model without comparing it with PyTorch.")
@force_option
@common
def export(
    source: str,
    output: Path,
    weights: Path | None,
    inputs: tuple[str, ...],
    opset: int | None,
    atol: float | None,
    rtol: float | None,
    no_verify: bool,
    force: bool,
    result: Result,
) -> None:
    """Export SOURCE to a prepared ONNX model.

    SOURCE is zoo:NAME, module:factory, file.py:factory, program.pt2, or model.onnx. The result has constants and
    BatchNorm folded, and is compared with PyTorch on several shapes before it is written.
    """
    from onnxpress import artifact, runner
    from onnxpress.export import ExportOptions
    from onnxpress.export.export import export as run
    from onnxpress.validation import options

    values = {"weights": weights and str(weights), "inputs": inputs or None, "opset": opset, "atol": atol, "rtol": rtol}
    chosen = options(ExportOptions, values | {"verify": not no_verify})
    entry = {
        "step": "export",
        "options": chosen.model_dump(mode="json"),
        "source_sha256": runner.source_sha256(source, chosen.weights),
        "versions": runner.versions(),
    }
    check_output(output, force=force)
    with result.progress.task(f"export {source}"):
        exported = run(source, chosen)
        made = artifact.save(exported.edit.model, output, step=entry, force=force)
    check = exported.verification
    lines = [f"{output}: {size(made)}, sha256 {made.sha256[:12]}"]
    if check is not None:
        lines.append(
            f"matches {check.against} on {len(check.shapes)} shapes: largest error {check.max_abs_error:.2g} absolute, "
            f"{check.max_rel_error:.2g} relative"
        )
    facts = {} if check is None else {"max_abs_error": check.max_abs_error, "max_rel_error": check.max_rel_error}
    result.show("\n".join(lines), step_document("export", made, exported.edit) | facts)


@cli.command()
@click.argument("model", type=FILE)
@output_option
@click.option("--method", help="What matters least: l2, l1; from data: reconstruction, wanda, taylor, activation.")
@click.option("--granularity", help="channel (removes them), weight (zeros), or n:m such as 2:4.")
@click.option("--amount", help="Share to prune, for example 30%.")
@click.option("--target", metavar="macs=0.7", help="What is to be left of macs, params or bytes.")
@click.option("--allocation", help="How groups share the loss: uniform, global, sensitivity (measured).")
@click.option("--iterations", type=int, help="Prune in so many equal steps, with a repair after each.")
@click.option("--round-to", type=int, help="Channel counts are kept at multiples of this.")
@click.option("--repair", is_flag=True, help="Re-solve the weights behind the cut from calibration data.")
@click.option("--calibration", metavar="DATA", help="Calibration samples for repair and criteria; no labels needed.")
@click.option("--include", metavar="REGEX", help="Prune only nodes whose name matches.")
@click.option("--exclude", metavar="REGEX", help="Leave nodes alone whose name matches.")
@force_option
@common
def prune(
    model: Path,
    output: Path,
    method: str | None,
    granularity: str | None,
    amount: str | None,
    target: str | None,
    allocation: str | None,
    iterations: int | None,
    round_to: int | None,
    repair: bool,
    calibration: str | None,
    include: str | None,
    exclude: str | None,
    force: bool,
    result: Result,
) -> None:
    """Remove channels (or zero weights) of MODEL."""
    from onnxpress.data import dataset
    from onnxpress.pruning import PruneOptions
    from onnxpress.pruning import prune as run
    from onnxpress.validation import options

    values: dict[str, Any] = {"method": method, "granularity": granularity, "amount": amount}
    values |= {"target": key_value(target), "allocation": allocation, "iterations": iterations}
    values |= {"round_to": round_to, "repair": repair or None, "include": include, "exclude": exclude}
    chosen = options(PruneOptions, values)
    data = dataset(calibration) if calibration is not None else None
    entry = {
        "step": "prune",
        "options": chosen.model_dump(mode="json"),
        "data_sha256": None if data is None else data.sha256,
    }
    made, edit = transform(
        model, output, entry, lambda prepared: run(prepared, chosen, data), force=force, progress=result.progress
    )
    lines = [f"{output}: {size(made)}, was {model.stat().st_size / 1e6:.2f} MB"]
    lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in edit.facts.items()]
    lines += [f"  left alone: {skip.op} {skip.where}: {skip.reason}" for skip in edit.skipped]
    result.show("\n".join(lines), step_document("prune", made, edit))


@cli.command()
@click.argument("student", type=FILE)
@output_option
@click.option("--teacher", type=FILE, required=True, help="The model to learn from: same inputs, same outputs.")
@click.option("--data", required=True, metavar="DATA", help="Samples; no labels needed.")
@click.option("--samples", type=int, help="Use only the first so many samples.")
@click.option("--epochs", type=int, help="How often each sample is seen (100).")
@click.option("--steps", type=int, help="Updates of the weights, in place of epochs.")
@click.option("--budget", help="Time to train, for example 10m, in place of epochs.")
@click.option("--batch-size", type=int, help="Samples in an update, all processes together (64).")
@click.option("--learning-rate", type=float, help="Of Adam, after the warm-up (0.0001).")
@click.option("--weight-decay", type=float, help="Of AdamW (0).")
@click.option("--loss", help="How outputs are compared: auto, kl, mse or cosine.")
@click.option("--temperature", type=float, help="Softens the classes of kl (4).")
@click.option("--features", type=float, help="Weight of matching inner tensors (1); 0 for none.")
@click.option("--labels", type=float, metavar="WEIGHT", help="Weight of the cross entropy with the labels y (0).")
@click.option("--augment", metavar="LIST", help="flip,crop,mixup, module:fn or none; by default all of images.")
@click.option("--held-out", help="Share of the samples that only judge (10%).")
@click.option("--patience", type=int, help="Stop after so many of 20 judgements without progress (10).")
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
    from onnxpress import artifact, runner
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
        "versions": runner.versions(),
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


@cli.command()
@click.argument("model", type=FILE)
@output_option
@click.option(
    "--mode",
    type=click.Choice(["static", "dynamic", "weight-only", "fp16", "auto"]),
    default="static",
    help="int8 with ranges from data, or computed in each run; only weights stored smaller; float16; "
    "auto: per layer what is fastest here within the bound.",
)
@click.option("--calibration", metavar="DATA", help="Calibration samples (modes static, auto and fp16).")
@click.option("--profile", type=FILE, help="Statistics from `compress profile`, in place of a pass over --calibration.")
@click.option("--samples", type=int, help="Use only the first so many samples.")
@click.option("--calibrator", help="How ranges follow from the statistics: mse, minmax, percentile, entropy, auto.")
@click.option(
    "--format", "written", type=click.Choice(["qdq", "qoperator"]), help="QuantizeLinear pairs, or int8 operators."
)
@click.option("--activations", type=click.Choice(["uint8", "int8", "uint16", "int16"]), help="Their integers (uint8).")
@click.option("--weights", type=click.Choice(["int8", "uint8"]), help="Their integers (int8).")
@click.option("--bits", type=int, help="Bits of a weight: 8 or 4 (mode weight-only), 2 to 8 (others).")
@click.option("--block-size", type=int, help="Weights that share a scale (mode weight-only).")
@click.option("--half-io", is_flag=True, help="Make inputs and outputs float16, too (mode fp16).")
@click.option("--symmetric", is_flag=True, help="Zero points of activations in the middle of their type.")
@click.option("--per-tensor", is_flag=True, help="One weight scale per tensor instead of per channel.")
@click.option(
    "--backend",
    type=click.Choice(["onnxpress", "onnxruntime", "neural-compressor"]),
    help="Who quantizes; neural-compressor takes a PyTorch source (module:factory, zoo:NAME) as MODEL.",
)
@click.option("--require-int8", metavar="REGEX", help="Fail (exit 3) if a layer whose name matches stays float.")
@click.option("--equalize/--no-equalize", default=None, help="Rescale channels, exactly, to fit int8 (on).")
@click.option("--smooth/--no-smooth", default=None, help="Rescale the inputs of MatMul layers (SmoothQuant) (on).")
@click.option("--bias-correction/--no-bias-correction", default=None, help="Take mean errors out of biases (on).")
@click.option("--verify/--no-verify", default=None, help="Compare with float, refuse what is useless (on).")
@click.option("--include", metavar="REGEX", help="Quantize only nodes whose name matches.")
@click.option("--exclude", metavar="REGEX", help="Keep nodes float whose name matches.")
@click.option(
    "--target-cpu",
    type=click.Choice(["any", "avx2", "avx512", "vnni", "amx", "arm"]),
    help="CPUs that will serve; static int8 is made safe for x86 without VNNI unless this excludes it.",
)
@click.option("--evaluation", metavar="DATA", help="auto: samples to judge by, labelled where the metric needs it.")
@click.option("--metric", help="auto: top1, top5, spearman, mean, or module:fn.")
@click.option("--max-drop", help="auto: what the metric may lose, for example 1%.")
@click.option("--min-sqnr", help="Least fidelity of the outputs, for example 20dB; needs no labels.")
@click.option("--min-agreement", help="Least share of equal classes, for example 99%; needs no labels.")
@click.option("--budget", help="auto: about how long the search may take, for example 5m; it can be continued.")
@click.option("--ep", "provider", help="auto: execution provider to be fast on.")
@click.option("--threads", type=int, help="auto: intra-op threads to be fast with.")
@force_option
@common
def quantize(
    model: Path,
    output: Path,
    mode: str,
    calibration: str | None,
    profile: Path | None,
    samples: int | None,
    calibrator: str | None,
    written: str | None,
    activations: str | None,
    weights: str | None,
    bits: int | None,
    block_size: int | None,
    half_io: bool,
    symmetric: bool,
    per_tensor: bool,
    backend: str | None,
    require_int8: str | None,
    equalize: bool | None,
    smooth: bool | None,
    bias_correction: bool | None,
    verify: bool | None,
    include: str | None,
    exclude: str | None,
    evaluation: str | None,
    metric: str | None,
    max_drop: str | None,
    min_sqnr: str | None,
    min_agreement: str | None,
    budget: str | None,
    provider: str | None,
    threads: int | None,
    target_cpu: str | None,
    force: bool,
    result: Result,
) -> None:
    """Quantize MODEL to int8 and prove what runs as int8."""
    from onnxpress.data import dataset
    from onnxpress.evaluation.evaluate import check_metric
    from onnxpress.quantization import QuantizeOptions
    from onnxpress.quantization.auto.choose import explain
    from onnxpress.quantization.kernels import kernels
    from onnxpress.quantization.quantize import quantize as run
    from onnxpress.validation import options

    values: dict[str, Any] = {"mode": mode, "calibrator": calibrator, "samples": samples, "per_tensor": per_tensor}
    values |= {"format": written, "activations": activations, "weights": weights, "bits": bits, "symmetric": symmetric}
    values |= {"equalize": equalize, "smooth": smooth, "bias_correction": bias_correction, "verify": verify}
    values |= {"target_cpu": target_cpu}
    values |= {"include": include, "exclude": exclude, "max_drop": max_drop, "min_sqnr": min_sqnr}
    values |= {"min_agreement": min_agreement, "budget": budget, "provider": provider, "threads": threads}
    values |= {"block_size": block_size, "require_int8": require_int8, "keep_io": not half_io, "backend": backend}
    chosen = options(QuantizeOptions, values)
    data = dataset(calibration) if calibration is not None else None
    statistics = read_profile(profile, model) if profile is not None and mode in ("static", "auto", "fp16") else None
    judged_by = dataset(evaluation) if evaluation is not None and mode == "auto" else None
    check_metric(metric)
    entry = {
        "step": "quantize",
        "options": chosen.model_dump(mode="json"),
        "data_sha256": statistics.data_sha256 if statistics else data.sha256 if data else None,
    }
    if backend == "neural-compressor":
        made, edit = quantize_source(str(model), output, entry, chosen, data, force=force, progress=result.progress)
    else:
        journal = output.with_name(f"{output.name}.search.jsonl")

        def work(prepared: ir.Model) -> Edit:
            return run(
                prepared,
                chosen,
                data,
                statistics=statistics,
                evaluation=judged_by,
                metric=metric,
                journal=journal,
            )

        made, edit = transform(model, output, entry, work, force=force, progress=result.progress)
    running = kernels(output, edit.skipped)
    floats = edit.skipped if mode == "fp16" else running.stayed_float
    lines = [
        f"{output}: {size(made)}",
        *([explain(edit.facts)] if mode == "auto" else []),
        *fidelity_line(edit.facts),
        f"in the loaded onnxruntime session: {running.int8} int8 kernels, {running.float} float, "
        f"{running.conversions} conversions; {running.float_bytes:,} bytes of float weights left",
        *([f"  {running.copies} copies between host and device"] if running.copies else []),
        *(f"  float: {skip.op} {skip.where}: {skip.reason}" for skip in floats),
        *(f"  note: {note}" for note in edit.facts.get("notes", ())),
    ]
    from dataclasses import asdict

    result.show("\n".join(lines), step_document("quantize", made, edit) | {"kernels": asdict(running)})


@cli.command()
@click.argument("model", type=FILE)
@output_option
@click.option("--data", metavar="DATA", help="Samples to collect statistics from.")
@click.option("--samples", type=int, help="Use only the first so many samples.")
@click.option("--batch", type=click.IntRange(1), default=1, help="Samples a run; 1 depends on no neighbour.")
@click.option("--memory-budget", default="1 GiB", help="Activations held at once; less takes more passes.")
@click.option("--merge", type=FILE, multiple=True, help="Add the profile of another shard of the data.")
@force_option
@common
def profile(
    model: Path,
    output: Path,
    data: str | None,
    samples: int | None,
    batch: int,
    memory_budget: str,
    merge: tuple[Path, ...],
    force: bool,
    result: Result,
) -> None:
    """Collect the activation statistics of MODEL, from which every calibrator computes its ranges.

    Shards of the data can be profiled apart, on several machines, and merged: the bits are those of one pass.
    """
    from onnxpress import artifact, profile_inspection
    from onnxpress.data import dataset
    from onnxpress.errors import UsageError
    from onnxpress.export.prepare import prepare
    from onnxpress.files import writing
    from onnxpress.quantization.collecting import collect
    from onnxpress.units import parse

    if data is None and not merge:
        raise UsageError("profile: nothing to do. Give --data DATA, or --merge PROFILE several times.")
    check_output(output, force=force)
    shards = [read_profile(path, model) for path in merge]
    if data is not None:
        source = dataset(data, limit=samples)
        float_model = prepare(artifact.load(model)).model
        with result.progress.task(f"profile {model}", source.count) as advance:
            sha256 = artifact.read(model).sha256
            budget = parse(memory_budget, "bytes")
            shards.append(
                collect(float_model, source, batch=batch, memory_budget=budget, model_sha256=sha256, advance=advance)
            )
    collected = functools.reduce(lambda one, other: one.merged(other), shards)
    with writing(output, force=force) as scratch:
        collected.write(scratch / output.name)
    text = f"{output}: {len(collected.tensors)} tensors, {collected.samples} samples (see `compress inspect {output}`)"
    result.show(text, profile_inspection.document(collected))


@cli.command()
@click.argument("models", nargs=-1, required=True, type=FILE)
@click.option("--data", required=True, metavar="DATA", help="Samples, labelled where the metric needs it.")
@click.option("--metric", help="top1, top5, spearman, mean, or module:fn; without it only fidelity is measured.")
@click.option("--samples", type=int, help="Use only the first so many samples.")
@common
def evaluate(models: tuple[Path, ...], data: str, metric: str | None, samples: int | None, result: Result) -> None:
    """Measure accuracy; the first of MODELS is the baseline of the others."""
    from onnxpress.data import dataset
    from onnxpress.evaluation.evaluate import check_metric
    from onnxpress.evaluation.evaluate import evaluate as run
    from onnxpress.report.formats import terminal

    check_metric(metric)
    named = name_models(models)
    source = dataset(data, limit=samples)
    with result.progress.task("evaluate", source.count * len(named)) as advance:
        document = run(named, baseline=next(iter(named)), data=source, metric=metric, advance=advance)
    result.show(terminal.evaluation(document), document)


@cli.command()
@click.argument("models", nargs=-1, required=True, type=FILE)
@click.option("--baseline", type=FILE, help="What the others are compared with; default the first model.")
@click.option("--ep", "provider", default="cpu", help="Execution provider.")
@click.option("--threads", type=int, help="Intra-op threads; default what this process may really use.")
@click.option("--spin", type=click.Choice(["on", "stop", "off"]), default="stop", help="Spinning of idle threads.")
@click.option("--scenario", "scenarios", multiple=True, help="single, end_to_end, batch, offline or server.")
@click.option("--inputs", metavar="DATA", help="Real samples; without them synthetic ones are drawn, and labelled so.")
@click.option("--profile", type=FILE, help="Draw synthetic samples in the value ranges of this profile.")
@click.option("--session-option", "session_options", multiple=True, metavar="KEY=VALUE", help="Of onnxruntime.")
@click.option("--provider-option", "provider_options", multiple=True, metavar="KEY=VALUE", help="Of the provider.")
@click.option("--batch", metavar="N,N,…", help="Batch sizes of the scenario batch.")
@click.option("--sla", metavar="p99=20ms", help="Service level of the scenario server.")
@click.option("--sessions", type=int, help="Sessions side by side in the scenario server.")
@click.option("--pairs", type=int, help="Rounds of interleaved blocks.")
@click.option("--budget", help="Time to spend at most, for example 60s.")
@click.option("--max-regression", metavar="5%", help="Limit of the verdicts.")
@click.option("--require-int8", metavar="REGEX", help="Fail (exit 3) if a matching layer of a MODEL runs in float.")
@click.option("--aa", is_flag=True, help="Also compare the baseline with itself.")
@click.option("--save-samples", type=FILE, help="Write all durations to this npz.")
@common
def bench(
    models: tuple[Path, ...],
    baseline: Path | None,
    provider: str,
    threads: int | None,
    spin: str,
    scenarios: tuple[str, ...],
    inputs: str | None,
    profile: Path | None,
    session_options: tuple[str, ...],
    provider_options: tuple[str, ...],
    batch: str | None,
    sla: str | None,
    sessions: int | None,
    pairs: int | None,
    budget: str | None,
    max_regression: str | None,
    require_int8: str | None,
    aa: bool,
    save_samples: Path | None,
    result: Result,
) -> None:
    """Measure latency, throughput, memory, cold start and energy of MODELS, in pairs with the baseline."""
    from onnxpress.bench.bench import bench as run
    from onnxpress.bench.options import BenchOptions
    from onnxpress.data import dataset
    from onnxpress.quantization.kernels import require
    from onnxpress.report.formats import terminal
    from onnxpress.session import SessionOptions
    from onnxpress.validation import options

    values = {"providers": [provider], "threads": threads, "spin": spin, "scenarios": scenarios or None, "pairs": pairs}
    values |= {"session_options": session_options or None, "provider_options": provider_options or None}
    values |= {"batch": batch, "sla": sla, "sessions": sessions, "max_regression": max_regression, "aa": aa or None}
    chosen = options(BenchOptions, values | {"budget": budget})
    if save_samples is not None:
        check_output(save_samples, force=True)
    named = name_models((*([baseline] if baseline is not None and baseline not in models else []), *models))
    reference = next((name for name, path in named.items() if path == baseline), next(iter(named)))
    if require_int8 is not None:
        for name, path in named.items():
            if name != reference:
                require(path, require_int8, options=SessionOptions(provider=provider, threads=threads or 0))
    statistics = None if profile is None else read_profile(profile, named[reference])
    with result.progress.task("bench", 100) as advance:
        measured = run(
            named,
            baseline=reference,
            options=chosen,
            inputs=dataset(inputs) if inputs else None,
            ranges=None
            if statistics is None
            else {name: (each.low, each.high) for name, each in statistics.tensors.items()},
            advance=advance,
        )
    if save_samples is not None:
        measured.save_samples(save_samples)
    document = measured.to_json()
    result.show(terminal.bench(document), document)


@cli.command()
@click.argument("bench_json", nargs=-1, required=True, type=FILE)
@click.option("--prices", type=FILE, help="Price file on top of the bundled one.")
@click.option("--price", "price", multiple=True, metavar="TYPE=USD", help="Price per hour of one instance type.")
@click.option(
    "--instance", "instances", multiple=True, help="provider/type/region, wildcards allowed: gcp/*/us-central1."
)
@click.option("--spot", is_flag=True, help="Spot prices.")
@click.option("--inferences-per-month", help="For example 100M.")
@click.option("--utilisation", help="Share of an instance's capacity that is used, for example 50%.")
@click.option("--peak-to-mean", type=float, help="How many times the average the busiest time asks for.")
@click.option("--replicas-min", type=int, help="Instances that run in any case.")
@click.option("--latency", metavar="p99=20ms", help="Bound that an instance must keep to be chosen.")
@click.option("--measured", multiple=True, metavar="TYPE=FINGERPRINT", help="The instance that a benchmark's host is.")
@click.option(
    "--throughput", multiple=True, metavar="TYPE:VARIANT=N/s", help="Known speed, of a GPU or TPU for example."
)
@click.option("--speed", multiple=True, metavar="TYPE=1.5x", help="Speed relative to the measured host.")
@click.option("--one-off", multiple=True, metavar="VARIANT=USD", help="What it cost to make a variant.")
@click.option("--max-price-age", metavar="90d", help="End with exit code 4 when a price is older.")
@common
def cost(
    bench_json: tuple[Path, ...],
    prices: Path | None,
    price: tuple[str, ...],
    instances: tuple[str, ...],
    spot: bool,
    inferences_per_month: str | None,
    utilisation: str | None,
    peak_to_mean: float | None,
    replicas_min: int | None,
    latency: str | None,
    measured: tuple[str, ...],
    throughput: tuple[str, ...],
    speed: tuple[str, ...],
    one_off: tuple[str, ...],
    max_price_age: str | None,
    result: Result,
) -> None:
    """Price the measurements in BENCH_JSON, one file for each host, and choose the cheapest instance of each variant.

    Exit code 4 when an instance has no price.
    """
    from onnxpress.cost.cost import cost as run
    from onnxpress.cost.notes import MISSING_PRICE, OLD_PRICE
    from onnxpress.cost.options import CostOptions
    from onnxpress.errors import EvidenceError
    from onnxpress.report.formats import terminal
    from onnxpress.validation import options

    values: dict[str, Any] = {"prices": prices and str(prices), "price": price or None, "instances": instances or None}
    values |= {"inferences_per_month": inferences_per_month, "utilisation": utilisation, "spot": spot or None}
    values |= {"peak_to_mean": peak_to_mean, "replicas_min": replicas_min, "latency": latency}
    values |= {"measured": measured or None, "throughput": throughput or None, "speed": speed or None}
    chosen = options(CostOptions, values | {"one_off": one_off or None, "max_price_age": max_price_age})
    document = run([read_json(path, "onnxpress.bench/1") for path in bench_json], chosen)
    result.show(terminal.cost(document), document)
    fatal = (MISSING_PRICE, OLD_PRICE) if max_price_age else (MISSING_PRICE,)
    problem = next((each["message"] for each in document["warnings"] if each["code"] in fatal), None)
    if problem is not None:
        raise EvidenceError(problem)


@cli.group()
def prices() -> None:
    """Look at prices of machines, check them, and bring in newer ones."""


region_option = click.option("--region", "regions", multiple=True, help="Only this region.")
type_option = click.option("--type", "types", multiple=True, help="Only this instance type; wildcards allowed.")
provider_option = click.option("--provider", help="Only this provider.")
table_option = click.option("--prices", "table", type=FILE, help="Price file on top of the bundled one.")


@prices.command(name="list")
@provider_option
@region_option
@type_option
@table_option
@common
def prices_list(
    provider: str | None, regions: tuple[str, ...], types: tuple[str, ...], table: Path | None, result: Result
) -> None:
    """List the price that wins for each machine, its date, and the layer it comes from."""
    from onnxpress.cost import table as prices_table
    from onnxpress.cost.prices import quotes
    from onnxpress.cost.sources import Chosen

    chosen = Chosen(provider=provider, regions=regions, types=types)
    found = [
        quote
        for quote in quotes(table, {}).values()
        if chosen.wants(quote.price.type, quote.price.region) and provider in (None, quote.price.provider)
    ]
    result.show(prices_table.render(found), prices_table.document(found))


@prices.command(name="show")
@click.argument("instance")
@table_option
@common
def prices_show(instance: str, table: Path | None, result: Result) -> None:
    """Show everything that is known of one machine, in every layer."""
    from onnxpress.cost import table as prices_table

    found = prices_table.layers(instance, table)
    result.show(prices_table.details(found), prices_table.document(found))


@prices.command(name="import")
@click.argument("file", type=FILE)
@click.option("--format", "kind", required=True, help="table (CSV of your own), gcosts, skypilot, aws or azure.")
@output_option
@provider_option
@region_option
@type_option
@force_option
@common
def prices_import(
    file: Path,
    kind: str,
    output: Path,
    provider: str | None,
    regions: tuple[str, ...],
    types: tuple[str, ...],
    force: bool,
    result: Result,
) -> None:
    """Turn rows of a provider's or a catalogue's FILE into a price table."""
    from onnxpress.cost import sources
    from onnxpress.cost import table as prices_table
    from onnxpress.errors import UsageError

    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"prices {file}: cannot be read ({error.strerror}). Check the path.") from error
    chosen = sources.Chosen(provider=provider, regions=regions, types=types)
    rows = sources.parse(kind, content, chosen, where=str(file))
    text, document = prices_table.written(rows, output, source=file.name, force=force)
    result.show(text, document)


@prices.command(name="refresh")
@click.option("--from", "kind", required=True, help="gcosts, skypilot, aws or azure.")
@output_option
@provider_option
@region_option
@type_option
@force_option
@common
def prices_refresh(
    kind: str,
    output: Path,
    provider: str | None,
    regions: tuple[str, ...],
    types: tuple[str, ...],
    force: bool,
    result: Result,
) -> None:
    """Download prices of today. The only command that contacts a network for prices."""
    from onnxpress.cost import sources
    from onnxpress.cost import table as prices_table

    check_output(output, force=force)
    with result.progress.task(f"download from {kind}"):
        chosen = sources.Chosen(provider=provider, regions=regions, types=types)
        rows, address = sources.refresh(kind, chosen)
    text, document = prices_table.written(rows, output, source=address, force=force)
    result.show(text, document)


@prices.command(name="validate")
@click.argument("file", type=FILE)
@click.option("--max-age", default="90d", help="Older prices end with exit code 4.")
@common
def prices_validate(file: Path, max_age: str, result: Result) -> None:
    """Check a price table: its form (exit code 2), and the age of its prices (exit code 4)."""
    from onnxpress.cost import table as prices_table
    from onnxpress.cost.options import CostOptions
    from onnxpress.errors import EvidenceError
    from onnxpress.validation import options

    limit = options(CostOptions, {"max_price_age": max_age}).max_price_age
    rows, old = prices_table.checked(file, limit)
    names = ", ".join(row.instance for row in old[:3])
    document = {"schema": "onnxpress.prices-check/1", "machines": len(rows), "old": [row.instance for row in old]}
    result.show(f"{file}: {len(rows)} machines, {len(old)} with a price older than {limit.days} days", document)
    if old:
        raise EvidenceError(
            f"prices {file}: {len(old)} are older than {limit.days} days ({names}). Check them, or refresh the table."
        )


@cli.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=FILE, help="report.html, report.md or report.json; default: print it.")
@force_option
@common
def report(run_dir: Path, output: Path | None, force: bool, result: Result) -> None:
    """Show the report of RUN_DIR, or write it in the format of the output's suffix."""
    from onnxpress.errors import UsageError
    from onnxpress.files import write_text
    from onnxpress.report.formats import html, markdown, terminal
    from onnxpress.report.report import Report

    found = Report.load(run_dir)
    document = json.loads(found.to_json())
    if output is None:
        result.show(terminal.render(found), document)
        return
    renderers = {".html": html.render, ".md": markdown.render, ".json": Report.to_json}
    if output.suffix not in renderers:
        raise UsageError(
            f"output {output}: the suffix says the format, and {output.suffix!r} is none. Use .html, .md or .json."
        )
    write_text(output, renderers[output.suffix](found), force=force)
    result.show(f"{output}: written", document)


@cli.command()
@click.argument("recipe")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run folder; default NAME-run beside you.")
@common
def run(recipe: str, output: Path | None, result: Result) -> None:
    """Do everything in RECIPE (a file, or zoo:NAME): export, variants, evaluate, bench, cost, report, gate.

    A second run repeats only the measurements; an interrupted one continues.
    """
    from onnxpress import runner
    from onnxpress.recipe import Recipe
    from onnxpress.report.formats import terminal

    loaded = Recipe.load(recipe_path(recipe))
    folder = output or Path(f"{loaded.path.stem}-run")
    finished = runner.run(loaded, folder, result.progress)
    result.show(f"{terminal.render(finished)}\n\nreport: {folder / 'report.html'}", json.loads(finished.to_json()))
    sys.exit(exit_code(finished))


@cli.command()
@click.argument("model", type=FILE)
@common
def inspect(model: Path, result: Result) -> None:
    """Show what MODEL holds: parameters, bytes and MACs by layer, operators, lineage, what could be quantized.

    Of a profile (`compress profile`): its samples, and range and distribution of each tensor.
    """
    from onnxpress import inspection, profile_inspection
    from onnxpress_calibration.profile import Profile

    if profile_inspection.is_profile(model):
        described = profile_inspection.document(Profile.read(model))
        result.show(profile_inspection.render(described, model), described)
        return
    found = inspection.inspect(model)
    result.show(inspection.render(found), found)


@cli.command()
@common
def doctor(result: Result) -> None:
    """Check this machine: packages, execution providers that really work, CPU features, limits."""
    from dataclasses import asdict

    from onnxpress.doctor import diagnose

    findings = diagnose()
    marks = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.status]}  {finding.name:<20} {finding.value}")
        lines += [f"      {'':<20} {finding.advice}"] if finding.advice else []
    result.show("\n".join(lines), {"schema": "onnxpress.doctor/1", "findings": [asdict(each) for each in findings]})


cli.add_command(gate)
cli.add_command(baseline)


def transform(
    model: Path,
    output: Path,
    entry: dict[str, Any],
    work: Callable[[ir.Model], Edit],
    *,
    force: bool,
    progress: Progress,
) -> tuple[Artifact, Edit]:
    """Prepare a model file, run one step on it and save the result with its lineage entry."""
    from onnxpress import artifact, runner
    from onnxpress.errors import UsageError
    from onnxpress.export.prepare import prepare

    if output.resolve() == model.resolve():
        raise UsageError(f"output {output}: is the input, which is never changed. Choose another name.")
    check_output(output, force=force)
    given = artifact.read(model)
    with progress.task(f"{entry['step']} {model}"):
        edit = work(prepare(artifact.load(model)).model)
        entry = entry | {"input_sha256": given.sha256, "versions": runner.versions()}
        return artifact.save(edit.model, output, step=entry, force=force), edit


def quantize_source(
    source: str,
    output: Path,
    entry: dict[str, Any],
    chosen: QuantizeOptions,
    data: Dataset | None,
    *,
    force: bool,
    progress: Progress,
) -> tuple[Artifact, Edit]:
    """Quantize a PyTorch model with neural-compressor and save what it exports to."""
    from onnxpress import artifact, runner
    from onnxpress.errors import UsageError
    from onnxpress.export import sources
    from onnxpress.quantization.backends import neural_compressor
    from onnxpress.quantization.kernels import require

    if data is None:
        raise UsageError("quantize: backend neural-compressor needs calibration data. Give --calibration DATA.")
    check_output(output, force=force)
    with progress.task(f"quantize {source}", data.count) as advance, sources.users_path(source):
        edit = neural_compressor.quantize(sources.network(source), chosen, data, advance)
    if chosen.require_int8 is not None:
        require(edit.model, chosen.require_int8, edit.skipped)
    entry = entry | {"source_sha256": runner.source_sha256(source, None), "versions": runner.versions()}
    return artifact.save(edit.model, output, step=entry, force=force), edit


def read_profile(path: Path, model: Path) -> Profile:
    """Read a profile and check that it is of this model."""
    from onnxpress import artifact
    from onnxpress.errors import UsageError
    from onnxpress_calibration.profile import Profile

    if not path.is_file():
        raise UsageError(f"profile {path}: no such file. Make it with `compress profile`.")
    found = Profile.read(path)
    sha256 = artifact.read(model).sha256
    if found.model_sha256 != sha256:
        raise UsageError(
            f"profile {path}: is of the model {found.model_sha256[:12]}, {model} is {sha256[:12]}. "
            "Make it again with `compress profile`."
        )
    return found


def recipe_path(text: str) -> Path:
    """Return the path of a recipe; ``zoo:NAME`` names the one of a reference model."""
    from onnxpress.errors import UsageError, did_you_mean

    if not text.startswith("zoo:"):
        return Path(text)
    import onnxpress_models

    name = text.removeprefix("zoo:")
    if name not in onnxpress_models.names():
        raise UsageError(f"recipe {text}: no such reference model.{did_you_mean(name, onnxpress_models.names())}")
    return onnxpress_models.recipe_file(name)


def key_value(text: str | None) -> dict[str, str] | None:
    """Turn ``macs=0.7`` into ``{"macs": "0.7"}``."""
    from onnxpress.errors import UsageError

    if text is None:
        return None
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r}: must be NAME=VALUE, for example macs=0.7.")
    return {key: value}


def check_output(output: Path, *, force: bool) -> None:
    """Refuse an output that cannot be written before the work, not after it."""
    from onnxpress.files import writing

    with writing(output, force=force):
        pass


def step_document(step: str, made: Artifact, edit: Edit) -> dict[str, Any]:
    """Return the JSON result of a command that made a model."""
    from dataclasses import asdict

    return {
        "schema": "onnxpress.step/1",
        "step": step,
        "artifact": {"path": str(made.path), "sha256": made.sha256, "size_bytes": made.size_bytes},
        "facts": dict(edit.facts),
        "changed": list(edit.changed),
        "skipped": [asdict(skip) for skip in edit.skipped],
    }


def exit_code(report: Report) -> int:
    """Return the exit code of a report's checks; 0 when there was no policy."""
    from onnxpress.gate import check

    return check.exit_code(report.checks)


def fidelity_line(facts: Mapping[str, Any]) -> list[str]:
    """Say how near an int8 model is to float, where that was measured."""
    if "verified_samples" not in facts:
        return []
    sqnr, agreement = facts["sqnr_db"], facts["agreement_pct"]
    words = ["no difference" if sqnr is None else f"{sqnr:.1f} dB SQNR"]
    words += [] if agreement is None else [f"the same class for {agreement:.1f} %"]
    return [f"against float on {facts['verified_samples']} calibration samples: {', '.join(words)}"]


def size(made: Artifact) -> str:
    """Return an artifact's size for people."""
    return f"{made.size_bytes / 1e6:.2f} MB"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit; a user's mistake is one line on standard error, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        cli.main(arguments, prog_name="compress", standalone_mode=False)
        code = 0
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; finished steps are kept", err=True)
        code = 130
    except BrokenPipeError:  # the reader of our output has gone: nothing to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        code = explain(error, verbose=any(argument in ("-v", "--verbose") for argument in arguments))
    sys.exit(code)


def explain(error: Exception, *, verbose: bool) -> int:
    """Print an error and return its exit code."""
    known = getattr(error, "exit_code", None)
    if isinstance(known, int):
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return known
    if isinstance(error, MemoryError):
        click.echo("error: out of memory. Use a smaller batch or a machine with more memory.", err=True)
        return 5
    if isinstance(error, FileNotFoundError) and str(error.strerror).startswith("No usable temporary directory"):
        click.echo("error: temporary folder: none can be written. Set TMPDIR to a folder that can.", err=True)
        return 2
    if verbose:
        traceback.print_exception(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    click.echo(
        f"internal error: {type(error).__name__}: {error} ({place}). This is a bug of onnxpress "
        f"{onnxpress.__version__}: please report it with the output of -v.",
        err=True,
    )
    return 5
