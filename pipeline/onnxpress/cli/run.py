"""The command ``run``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from onnxpress.cli.shared import TEXT, Result, common


@click.command()
@click.argument("recipe", type=TEXT)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run folder; default NAME-run beside you.")
@click.option("--variant", "variants", multiple=True, metavar="NAME", help="Only this variant, and the float model.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, what is done already, and how long it takes.")
@common
def run(recipe: str, output: Path | None, variants: tuple[str, ...], dry_run: bool, result: Result) -> None:
    """Do everything in RECIPE (a file, or zoo:NAME): export, variants, evaluate, bench, cost, report, gate.

    A second run repeats only the measurements; an interrupted one continues.
    """
    from onnxpress import plan, runner
    from onnxpress.gate import check
    from onnxpress.printing import printable
    from onnxpress.recipe import Recipe
    from onnxpress.report.formats import terminal

    loaded = Recipe.load(recipe_path(recipe)).only(variants)
    folder = output or Path(f"{loaded.path.stem}-run")
    if dry_run:
        planned = plan.plan(loaded, folder)
        result.show(plan.render(planned), plan.document(planned))
        return
    finished = runner.run(loaded, folder, result.progress)
    place = printable(f"report: {folder / 'report.html'}")
    result.show(f"{terminal.render(finished).rstrip()}\n\n{place}", json.loads(finished.to_json()))
    sys.exit(check.exit_code(finished.checks))


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
