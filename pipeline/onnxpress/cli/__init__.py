"""The command line: parse, call one function, print. Importing it imports neither torch nor onnxruntime.

Each command has a file of its name. Every command takes ``--json FILE|-``, ``-q`` and ``-v``, and ends with the exit
codes of `onnxpress.errors`: 0 done or gate passed, 1 gate failed, 2 wrong usage, 3 model or data broken, 4 evidence
missing, 5 internal error.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import click

import onnxpress
from onnxpress.cli import (
    baseline,
    bench,
    cost,
    distill,
    doctor,
    evaluate,
    export,
    gate,
    inspect,
    prices,
    profile,
    prune,
    quantize,
    report,
    run,
)

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}


@click.group(context_settings=CONTEXT)
@click.version_option(onnxpress.__version__, prog_name="onnxpress")
def cli() -> None:
    """Make trained models cheap to deploy, and prove it.

    Export to ONNX, prune, quantize, measure accuracy and speed in pairs, price, and gate a release.
    """


for command in (
    *(export.export, prune.prune, quantize.quantize, distill.distill),
    *(profile.profile, inspect.inspect, evaluate.evaluate, bench.bench, cost.cost, prices.prices),
    *(gate.gate, baseline.baseline, report.report, run.run, doctor.doctor),
):
    cli.add_command(command)


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
