"""What the commands share: how a result leaves, the options that all have, and how files are named and read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxpress.artifact import Artifact, Edit
    from onnxpress.files import Outputs
    from onnxpress.progress import Progress
    from onnxpress_calibration.preprocessing import Preprocessing
    from onnxpress_calibration.profile import Profile

READ, WRITTEN = "onnxpress.read", "onnxpress.written"
"""Keys of click's ``Context.meta``: the paths on the command line that the command reads, and those that it writes."""


class InputPath(click.Path):
    """A path that the command reads: no output of it may be the same file. Of a run folder that is its report."""

    def __init__(self, *, dir_okay: bool = False) -> None:
        super().__init__(path_type=Path, dir_okay=dir_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ANN401
        """Take the path down as an input."""
        path = Path(str(super().convert(value, param, ctx)))
        _noted(ctx, READ).append(path / "report.json" if path.is_dir() else path)
        return path


class InputText(click.Path):
    """DATA or SOURCE: where a part of it names a file or a folder, the command reads that."""

    def __init__(self) -> None:
        super().__init__(path_type=str, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        """Take down what may be a path as an input."""
        text = str(super().convert(value, param, ctx))
        file = text.rpartition(":")[0]
        _noted(ctx, READ).extend(Path(part) for part in (text, file) if part == text or part.endswith(".py"))
        return text


class OutputPath(click.Path):
    """A path that the command writes; refused before the work where that cannot be."""

    def __init__(self, *, allow_dash: bool = False) -> None:
        super().__init__(path_type=Path, allow_dash=allow_dash)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ANN401
        """Take the path down as an output."""
        path = Path(str(super().convert(value, param, ctx)))
        if path != STANDARD_OUTPUT:
            _noted(ctx, WRITTEN).append(path)
        return path


def _noted(ctx: click.Context | None, key: str) -> list[Path]:
    paths: list[Path] = (ctx or click.get_current_context()).meta.setdefault(key, [])
    return paths


STANDARD_OUTPUT = Path("-")
INPUT, RUN_DIR, TEXT, OUTPUT = InputPath(), InputPath(dir_okay=True), InputText(), OutputPath()
output_option = click.option("-o", "--output", type=OUTPUT, required=True, help="Where to write the result.")
shape_option = click.option(
    "--shape", metavar="NAME=SIZE", multiple=True, help="Size of a free axis of the inputs, for the MACs (1)."
)


def _preprocessing(context: click.Context, option: click.Parameter, text: str | None) -> Preprocessing | None:
    """Read how images become arrays: a file, which is an input of the command, or its keys and values in a line."""
    from onnxpress_calibration.preprocessing import Preprocessing

    if text is None:
        return None
    return Preprocessing.given(TEXT.convert(text, option, context))


preprocessing_option = click.option(
    "--preprocessing",
    callback=_preprocessing,
    metavar="FILE|'size: 224, …'",
    help="How the images of a folder become arrays, in place of the preprocessing.yaml in it (docs/data.md).",
)


class Result:
    """How a command's result leaves: files that appear together, text for people, JSON for programs."""

    def __init__(self, outputs: Outputs, json_target: Path | None, *, quiet: bool) -> None:
        self.outputs = outputs
        self.quiet = quiet
        self.json_target = json_target

    @property
    def progress(self) -> Progress:
        """A progress display that respects ``-q``."""
        from onnxpress.progress import Progress

        return Progress(quiet=self.quiet)

    def save(self, model: ir.Model, output: Path, step: dict[str, Any], *, proven: bool = True) -> Artifact:
        """Stage a model with its lineage entry; it appears under its name with `show`.

        Args:
            model: The model.
            output: Its name.
            step: What made it.
            proven: Make sure that onnxruntime loads what was staged.

        Raises:
            ModelError: it does not.
        """
        from onnxpress import artifact
        from onnxpress.session import open_session

        made = artifact.save(model, self.outputs.stage(output), step=step)
        if proven:
            open_session(made.path)
        return made

    def show(self, said: str | Iterable[str], document: dict[str, Any]) -> None:
        """Let all outputs appear, the document with them, and say what was done unless ``-q`` or ``--json -`` forbid.

        Args:
            said: Lines, which are made printable; or a text of `onnxpress.report.formats.terminal`, which is.
            document: The same for programs.
        """
        from onnxpress.files import dumps
        from onnxpress.printing import printable

        if self.json_target not in (None, STANDARD_OUTPUT):
            self.outputs.write(self.json_target, dumps(document))
        self.outputs.publish()
        if self.json_target == STANDARD_OUTPUT:
            click.echo(dumps(document), nl=False)
        elif not self.quiet:
            click.echo(said.rstrip("\n") if isinstance(said, str) else "\n".join(map(printable, said)))


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every command has; they arrive as one `Result`.

    What the command reads and writes is known from the types of its options, and checked before it runs.
    """

    @click.option(
        "--json",
        "json_target",
        metavar="FILE|-",
        type=OutputPath(allow_dash=True),
        help="Write the result as JSON; - for standard output.",
    )
    @click.option("--force", is_flag=True, help="Replace outputs that exist; never an input.")
    @click.option("-v", "--verbose", count=True, show_default=False, help="Say more; a traceback for internal errors.")
    @click.option("-q", "--quiet", count=True, show_default=False, help="Say nothing but errors.")
    @functools.wraps(function)
    def command(
        *args: Any,  # noqa: ANN401
        json_target: Path | None,
        force: bool,
        verbose: int,
        quiet: int,
        **options: Any,  # noqa: ANN401
    ) -> None:
        from onnxpress import files
        from onnxpress.scratch import private_tmpdir

        if verbose:
            import logging

            from onnxpress.printing import PrintableFormatter

            handler = logging.StreamHandler()
            handler.setFormatter(PrintableFormatter("%(name)s: %(message)s"))
            logging.basicConfig(level=logging.INFO, handlers=[handler])
        outputs = files.Outputs(force=force)
        with private_tmpdir(), files.command(outputs):
            for path in _noted(None, READ):
                outputs.reads(path)
            for path in _noted(None, WRITTEN):
                outputs.claim(path)
            function(*args, result=Result(outputs, json_target, quiet=bool(quiet)), **options)

    return command


def name_models(paths: tuple[Path, ...]) -> dict[str, Path]:
    """Name models by their file, or by their folder where files of several folders are named alike."""
    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else path.parent.name or path.stem for path in paths]
    unique = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    return dict(zip(unique, paths, strict=True))


def transform(
    model: Path,
    output: Path,
    entry: dict[str, Any],
    work: Callable[[ir.Model], Edit],
    result: Result,
) -> tuple[Artifact, Edit]:
    """Prepare a model file, run one step on it and stage the result with its lineage entry."""
    from onnxpress import artifact, provenance
    from onnxpress.export.prepare import prepare

    given = artifact.read(model)
    with result.progress.task(f"{entry['step']} {model}"), blaming(model):
        edit = work(prepare(artifact.load(model)).model)
        entry = entry | {"input_sha256": given.sha256, "versions": provenance.versions()}
        return result.save(edit.model, output, entry), edit


@contextmanager
def blaming(model: Path) -> Iterator[None]:
    """Where the block fails, ask whether onnxruntime can run the model: if not, the fault is not ours.

    Raises:
        ModelError: it is the model's.
    """
    from onnxpress.errors import ModelError

    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        try:
            _run_once(model)
        except ModelError as reason:
            said = str(reason).removeprefix(f"model {model}: ")
            raise ModelError(f"model {model}: onnxruntime cannot run it: {said}") from error
        raise


def _run_once(model: Path) -> None:
    """Run a model on a random sample.

    Raises:
        ModelError: it cannot be run.
    """
    from onnxpress import artifact
    from onnxpress.bench import inputs
    from onnxpress.session import open_session, run

    session = open_session(model)
    fed = inputs.prepare({"model": artifact.load(model)}, baseline="model", data=None, seed=0)
    run(session, fed.samples[0])


def axis_sizes(given: tuple[str, ...]) -> dict[str, int]:
    """Read ``--shape NAME=SIZE``."""
    from onnxpress.errors import UsageError

    sizes = {}
    for text in given:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise UsageError(f"--shape {text!r}: must be NAME=SIZE with a size of at least 1, for example time=200.")
        sizes[name] = int(size)
    return sizes


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


def step_document(step: str, output: Path, made: Artifact, edit: Edit) -> dict[str, Any]:
    """Return the JSON result of a command that made a model."""
    from dataclasses import asdict

    return {
        "schema": "onnxpress.step/1",
        "step": step,
        "artifact": {"path": str(output), "sha256": made.sha256, "size_bytes": made.size_bytes},
        "facts": dict(edit.facts),
        "changed": list(edit.changed),
        "skipped": [asdict(skip) for skip in edit.skipped],
    }


def size(made: Artifact) -> str:
    """Return an artifact's size for people."""
    return f"{made.size_bytes / 1e6:.2f} MB"
