"""What the commands share: how a result leaves, the options that all have, and how files are named and read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxpress.artifact import Artifact, Edit
    from onnxpress.progress import Progress
    from onnxpress_calibration.profile import Profile

FILE = click.Path(path_type=Path, dir_okay=False)
output_option = click.option("-o", "--output", type=FILE, required=True, help="Where to write the model.")
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
    from onnxpress import artifact, provenance
    from onnxpress.errors import UsageError
    from onnxpress.export.prepare import prepare

    if output.resolve() == model.resolve():
        raise UsageError(f"output {output}: is the input, which is never changed. Choose another name.")
    check_output(output, force=force)
    given = artifact.read(model)
    with progress.task(f"{entry['step']} {model}"):
        edit = work(prepare(artifact.load(model)).model)
        entry = entry | {"input_sha256": given.sha256, "versions": provenance.versions()}
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


def size(made: Artifact) -> str:
    """Return an artifact's size for people."""
    return f"{made.size_bytes / 1e6:.2f} MB"
