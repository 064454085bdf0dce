"""The command ``report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from onnxpress.cli.shared import FILE, Result, common, force_option


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=FILE, help="report.html, report.md or report.json; default: print it.")
@force_option
@common
def report(run_dir: Path, output: Path | None, force: bool, result: Result) -> None:
    """Show the report of RUN_DIR, or write it in the format of the output's suffix."""
    from onnxpress.files import write_text
    from onnxpress.report import files
    from onnxpress.report.formats import terminal
    from onnxpress.report.report import Report

    found = Report.load(run_dir)
    document = json.loads(found.to_json())
    if output is None:
        result.show(terminal.render(found), document)
        return
    write_text(output, files.render(found, output), force=force)
    result.show(f"{output}: written", document)
