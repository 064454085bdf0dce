"""The command line: parse, call one function, print. Importing it imports neither torch nor onnxruntime.

Each command has a file of its name. Every command takes ``--json FILE|-``, ``-q`` and ``-v``, and ends with the exit
codes of `onnxpress.errors`: 0 done or gate passed, 1 gate failed, 2 wrong usage, 3 model or data broken, 4 evidence
missing, 5 internal error.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

import onnxpress
from onnxpress import signals, watch
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
from onnxpress.printing import one_line
from onnxpress.quiet import hushed
from onnxpress.scratch import explain as system_says
from onnxpress.scratch import remove_mine, without_scratch

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
    if arguments is None:
        arguments = sys.argv[1:]
        watch.divide(arguments)
    verbose = any(argument in ("-v", "--verbose") for argument in arguments)
    with signals.interrupting() as arrived, hushed(shown=verbose):
        try:
            code = run_command(arguments, arrived, verbose=verbose)
        finally:
            remove_mine()
    sys.exit(code)


def run_command(arguments: list[str], arrived: Sequence[int], *, verbose: bool) -> int:
    """Run one command and return its exit code; ``arrived`` is the signal that ended it."""
    try:
        cli.main(arguments, prog_name="compress", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        return int(stop.code or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" See `{context.command_path} -h`." if context is not None else ""
        click.echo(one_line(f"error: {error.format_message()}{hint}"), err=True)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone: nothing to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, Exception) and not isinstance(error, click.Abort) and not arrived:
            return explain(error, verbose=verbose)
        click.echo("interrupted; finished steps are kept", err=True)
        return 128 + (arrived[0] if arrived else signal.SIGINT)
    return 0


def explain(error: Exception, *, verbose: bool) -> int:
    """Print an error and return its exit code."""
    known = getattr(error, "exit_code", None)
    if isinstance(known, int):
        click.echo(one_line(f"error: {without_scratch(str(error))}"), err=True)
        return known
    if isinstance(error, MemoryError):
        click.echo("error: out of memory. Use a smaller batch or a machine with more memory.", err=True)
        return 3
    if isinstance(error, OSError) and error.errno is not None:  # the system refuses something to every program
        place = f"{error.filename}: " if error.filename else ""
        click.echo(one_line(f"error: {without_scratch(place)}{system_says(error, 'Check the path.')}"), err=True)
        return 2
    if verbose:
        traceback.print_exception(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    click.echo(
        one_line(
            f"internal error: {type(error).__name__}: {error} ({place}). This is a bug of onnxpress "
            f"{onnxpress.__version__}: please report it with the output of -v."
        ),
        err=True,
    )
    return 5
