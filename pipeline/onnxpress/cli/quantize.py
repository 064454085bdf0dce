"""The command ``quantize``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxpress.cli.shared import (
    INPUT,
    TEXT,
    Result,
    common,
    output_option,
    preprocessing_option,
    read_profile,
    size,
    step_document,
    transform,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxpress.artifact import Artifact, Edit
    from onnxpress.progress import Progress
    from onnxpress.quantization import QuantizeOptions
    from onnxpress_calibration.dataset import Dataset
    from onnxpress_calibration.preprocessing import Preprocessing


@click.command()
@click.argument("model", type=INPUT)
@output_option
@click.option(
    "--mode",
    type=click.Choice(["static", "dynamic", "weight-only", "fp16", "auto"]),
    default="static",
    help="int8 with ranges from data, or computed in each run; only weights stored smaller; float16; "
    "auto: per layer what is fastest here within the bound.",
)
@click.option("--calibration", type=TEXT, metavar="DATA", help="Calibration samples; modes static and auto need them.")
@preprocessing_option
@click.option(
    "--profile", type=INPUT, help="Statistics from `compress profile`, in place of a pass over --calibration."
)
@click.option("--samples", type=click.IntRange(min=1), help="Use only the first so many samples.")
@click.option("--memory-budget", help="Activations held at once (1 GiB); less takes more passes over the data.")
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
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME:DTYPE:SHAPE",
    help="An input of a PyTorch source, as for `compress export`.",
)
@click.option("--require-int8", metavar="REGEX", help="Fail (exit 3) if a layer whose name matches stays float.")
@click.option("--equalize/--no-equalize", default=None, help="Rescale channels, exactly, to fit int8 (on).")
@click.option("--smooth/--no-smooth", default=None, help="Rescale the inputs of MatMul layers (SmoothQuant) (on).")
@click.option("--bias-correction/--no-bias-correction", default=None, help="Take mean errors out of biases (on).")
@click.option("--rounding", type=click.Choice(["nearest", "reconstruct"]), help="Of weights (reconstruct).")
@click.option("--verify/--no-verify", default=None, help="Compare with float, refuse what lost too much (on).")
@click.option("--accept-loss", is_flag=True, help="Write it though it lost too much; the result says how much.")
@click.option("--include", metavar="REGEX", help="Quantize only nodes whose name matches.")
@click.option("--exclude", metavar="REGEX", help="Keep nodes float whose name matches.")
@click.option(
    "--target-cpu",
    type=click.Choice(["any", "avx2", "avx512", "vnni", "amx", "arm"]),
    help="CPUs that will serve (any): int8 is made safe for x86 without VNNI unless this excludes it.",
)
@click.option(
    "--evaluation", type=TEXT, metavar="DATA", help="Samples to judge by, labelled where the metric needs it."
)
@click.option("--metric", help="What to judge by: top1, top5, spearman, mean, or module:fn.")
@click.option("--max-drop", help="What the metric may lose (1%); without one, what a classifier seems to.")
@click.option("--min-sqnr", help="Least fidelity of the outputs, for example 20dB; needs no labels.")
@click.option("--min-agreement", help="Least share of equal classes, for example 99%; needs no labels.")
@click.option("--budget", help="auto: about how long the search may take, for example 5m; it can be continued.")
@click.option("--ep", "provider", help="auto: execution provider to be fast on.")
@click.option("--threads", type=int, help="auto: intra-op threads to be fast with.")
@common
def quantize(
    model: Path,
    output: Path,
    mode: str,
    calibration: str | None,
    preprocessing: Preprocessing | None,
    profile: Path | None,
    samples: int | None,
    memory_budget: str | None,
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
    inputs: tuple[str, ...],
    require_int8: str | None,
    equalize: bool | None,
    smooth: bool | None,
    bias_correction: bool | None,
    rounding: str | None,
    verify: bool | None,
    accept_loss: bool,
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
    result: Result,
) -> None:
    """Quantize MODEL to int8 and prove what runs as int8."""
    from dataclasses import asdict, replace

    from onnxpress.data import dataset
    from onnxpress.errors import UsageError
    from onnxpress.evaluation.evaluate import check_metric
    from onnxpress.quantization import QuantizeOptions, speed
    from onnxpress.quantization.auto.choose import explain
    from onnxpress.quantization.kernels import kernels
    from onnxpress.quantization.quantize import quantize as run
    from onnxpress.validation import options

    values: dict[str, Any] = {"mode": mode, "calibrator": calibrator, "samples": samples, "per_tensor": per_tensor}
    values |= {"format": written, "activations": activations, "weights": weights, "bits": bits, "symmetric": symmetric}
    values |= {"equalize": equalize, "smooth": smooth, "bias_correction": bias_correction, "verify": verify}
    values |= {"target_cpu": target_cpu, "memory_budget": memory_budget, "rounding": rounding}
    values |= {"include": include, "exclude": exclude, "max_drop": max_drop, "min_sqnr": min_sqnr}
    values |= {"min_agreement": min_agreement, "budget": budget, "provider": provider, "threads": threads}
    values |= {"accept_loss": accept_loss, "block_size": block_size, "keep_io": not half_io}
    values |= {"require_int8": require_int8, "backend": backend}
    chosen = options(QuantizeOptions, values)
    data = dataset(calibration, preprocessing=preprocessing) if calibration is not None else None
    statistics = read_profile(profile, model) if profile is not None and mode in ("static", "auto", "fp16") else None
    judged_by = dataset(evaluation, preprocessing=preprocessing) if evaluation is not None else None
    check_metric(metric)
    entry = {
        "step": "quantize",
        "options": chosen.model_dump(mode="json"),
        "data_sha256": statistics.data_sha256 if statistics else data.sha256 if data else None,
    }
    if inputs and backend != "neural-compressor":
        raise UsageError("quantize: --input describes a PyTorch source, which only --backend neural-compressor takes.")
    if backend == "neural-compressor":
        made, edit = quantize_source(str(model), inputs, output, entry, chosen, data, judged_by, metric, result)
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

        made, edit = transform(model, output, entry, work, result)
    if mode == "static":
        facts = timed(model, made.path, data, chosen, result.progress)
        edit = replace(edit, facts={**edit.facts, **facts})
    running = kernels(made.path, edit.skipped)
    unchanged = mode == "auto" and not edit.changed  # float stays: nothing was to become int8
    floats = edit.skipped if mode == "fp16" else () if unchanged else running.stayed_float
    lines = [
        f"{output}: {size(made)}",
        *(explain(edit.facts) if mode == "auto" else []),
        *fidelity_line(edit.facts),
        *speed.lines(edit.facts),
        f"in the loaded onnxruntime session: {running.int8} int8 kernels, {running.float} float, "
        f"{running.conversions} conversions; {running.float_bytes:,} bytes of float weights left",
        *([f"  {running.copies} copies between host and device"] if running.copies else []),
        *(f"  float: {skip.op} {skip.where}: {skip.reason}" for skip in floats),
        *(f"  note: {note}" for note in edit.facts.get("notes", ())),
    ]
    result.show(lines, step_document("quantize", output, made, edit) | {"kernels": asdict(running)})


def timed(
    reference: Path, quantized: Path, data: Dataset | None, chosen: QuantizeOptions, progress: Progress
) -> dict[str, Any]:
    """Return the facts of a brief timing against float, or why there are none."""
    from onnxpress.quantization import speed

    if chosen.backend == "neural-compressor":
        return speed.not_measured("there is no file of the float model")
    if not chosen.verify:
        return speed.not_measured("--no-verify")
    with progress.task("time it against float"):
        return speed.against_float(reference, quantized, data)


def quantize_source(
    source: str,
    inputs: tuple[str, ...],
    output: Path,
    entry: dict[str, Any],
    chosen: QuantizeOptions,
    data: Dataset | None,
    evaluation: Dataset | None,
    metric: str | None,
    result: Result,
) -> tuple[Artifact, Edit]:
    """Quantize a PyTorch model with neural-compressor and save what it exports to."""
    from onnxpress import provenance
    from onnxpress.errors import UsageError
    from onnxpress.export import sources
    from onnxpress.quantization.backends import neural_compressor
    from onnxpress.quantization.kernels import require

    if source.endswith(".onnx"):
        raise UsageError(
            f"model {source}: backend neural-compressor quantizes PyTorch models, and this is an ONNX file. Give "
            "module:factory, file.py:factory, program.pt2 or zoo:NAME; ONNX files go to --backend onnxpress."
        )
    if data is None:
        raise UsageError("quantize: backend neural-compressor needs calibration data. Give --calibration DATA.")
    with result.progress.task(f"quantize {source}", data.count) as advance, sources.users_path(source):
        edit = neural_compressor.quantize(
            sources.network(source, inputs), chosen, data, advance, evaluation=evaluation, metric=metric
        )
    if chosen.require_int8 is not None:
        require(edit.model, chosen.require_int8, edit.skipped)
    entry = entry | {"source_sha256": provenance.source_sha256(source, None), "versions": provenance.versions()}
    return result.save(edit.model, output, entry), edit


def fidelity_line(facts: Mapping[str, Any]) -> list[str]:
    """Say how near an int8 model is to float, where that was measured."""
    if "verified_samples" not in facts:
        return []
    sqnr, agreement, metric = facts["sqnr_db"], facts["agreement_pct"], facts["metric"]
    words = ["no difference" if sqnr is None else f"{sqnr:.1f} dB SQNR"]
    words += [] if agreement is None else [f"the same class for {agreement:.1f} %"]
    words += [] if metric is None else [f"{metric} drops by {facts['drop']:.2f}"]
    interval = facts["drop_ci95"] if metric is not None else None
    words[-1] += "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    return [f"against float on {facts['verified_samples']} samples: {', '.join(words)}"]
