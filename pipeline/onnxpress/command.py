"""What the commands share: how a result leaves, the options that all have, and how files are named and read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnxpress.progress import Progress

FILE = click.Path(path_type=Path, dir_okay=False)
force_option = click.option("--force", is_flag=True, help="Replace an existing output.")


class Result:
    """How a command's result leaves: text for people, or JSON for programs, or both."""

    def __init__(self, json_target: str | None, quiet: int) -> None:
        self.json_target = json_target
        self.quiet = bool(quiet)

    @property
    def progress(self) -> Progress:
        """A progress display that respects ``-q``."""
        from onnxpress.progress import Progress

        return Progress(quiet=self.quiet)

    def show(self, text: str, document: dict[str, Any]) -> None:
        """Print the text, unless ``-q`` or ``--json -`` ask for something else, and write the document."""
        if self.json_target != "-" and not self.quiet:
            click.echo(text.rstrip("\n"))
        if self.json_target is None:
            return
        from onnxpress.files import dumps, write_text

        if self.json_target == "-":
            click.echo(dumps(document), nl=False)
        else:
            write_text(Path(self.json_target), dumps(document), force=True)


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every command has; they arrive as one `Result`."""

    @click.option("--json", "json_target", metavar="FILE|-", help="Write the result as JSON; - for standard output.")
    @click.option("-v", "--verbose", count=True, help="Say more; a traceback for internal errors.")
    @click.option("-q", "--quiet", count=True, help="Say nothing but errors.")
    @functools.wraps(function)
    def command(*args: Any, json_target: str | None, verbose: int, quiet: int, **options: Any) -> None:  # noqa: ANN401
        if verbose:
            import logging

            logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        function(*args, result=Result(json_target, quiet), **options)

    return command


def name_models(paths: tuple[Path, ...]) -> dict[str, Path]:
    """Name models by their file, or by their folder where files of several folders are named alike."""
    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else path.parent.name or path.stem for path in paths]
    unique = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    return dict(zip(unique, paths, strict=True))


def read_json(path: Path, schema: str) -> dict[str, Any]:
    """Read a JSON result of ours and check its schema."""
    from onnxpress.errors import DataError, UsageError

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}).") from error
    found = document.get("schema") if isinstance(document, dict) else None
    if found != schema:
        raise DataError(f"{path}: schema {found!r}, {schema!r} is needed.")
    return dict(document)
