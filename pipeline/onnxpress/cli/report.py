"""The command ``report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from onnxpress.cli.shared import OUTPUT, RUN_DIR, Result, common


@click.command()
@click.argument("run_dir", type=RUN_DIR)
@click.option("-o", "--output", type=OUTPUT, help="report.html, report.md or report.json; default: print it.")
@common
def report(run_dir: Path, output: Path | None, result: Result) -> None:
    """Show the report of RUN_DIR, or write it in the format of the output's suffix."""
    from onnxpress.report import files
    from onnxpress.report.formats import terminal
    from onnxpress.report.report import Report

    found = Report.load(run_dir)
    document = json.loads(found.to_json())
    if output is None:
        result.show(terminal.render(found), document)
        return
    result.outputs.write(output, files.render(found, output))
    result.show([f"{output}: written"], document)
