"""The command ``export``."""

from __future__ import annotations

from pathlib import Path

import click

from onnxpress.cli.shared import INPUT, TEXT, Result, common, output_option, size, step_document


@click.command()
@click.argument("source", type=TEXT)
@output_option
@click.option("--weights", type=INPUT, help="Weights: .safetensors, or .pt that loads without pickle.")
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
    result: Result,
) -> None:
    """Export SOURCE to a prepared ONNX model.

    SOURCE is zoo:NAME, module:factory, file.py:factory, program.pt2, or model.onnx. The result has constants and
    BatchNorm folded, and is compared with PyTorch on several shapes before it is written.
    """
    from onnxpress import provenance
    from onnxpress.export import ExportOptions
    from onnxpress.export.export import export as run
    from onnxpress.validation import options

    values = {"weights": weights and str(weights), "inputs": inputs or None, "opset": opset, "atol": atol, "rtol": rtol}
    chosen = options(ExportOptions, values | {"verify": not no_verify})
    entry = {
        "step": "export",
        "options": chosen.model_dump(mode="json"),
        "source_sha256": provenance.source_sha256(source, chosen.weights),
        "versions": provenance.versions(),
    }
    with result.progress.task(f"export {source}"):
        exported = run(source, chosen)
        made = result.save(exported.edit.model, output, entry, proven=chosen.verify)
    check = exported.verification
    lines = [f"{output}: {size(made)}, sha256 {made.sha256[:12]}"]
    if check is not None:
        lines.append(
            f"matches {check.against} on {len(check.shapes)} shapes: largest error {check.max_abs_error:.2g} absolute, "
            f"{check.max_rel_error:.2g} relative"
        )
    lines += [f"  left alone: {skip.op} {skip.where}: {skip.reason}" for skip in exported.edit.skipped]
    facts = {} if check is None else {"max_abs_error": check.max_abs_error, "max_rel_error": check.max_rel_error}
    result.show(lines, step_document("export", output, made, exported.edit) | facts)
