"""Files: the one door through which outputs leave, and bytes. Light: needs no onnx.

Every output goes through `Outputs` (or `writing`, which is one of a single file). It refuses what is an input of the
command, what exists unless it was told to replace it, and what cannot be written; it stages each file in a scratch
folder beside its place, where it can be proven, and moves all of them at the end, or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnxpress.errors import OutputError
from onnxpress.scratch import blame, explained, scratch_folder


class Outputs:
    """The files that a command writes: all of them or none, and none over an input.

    ::

        with Outputs(force=False) as outputs:
            outputs.reads(model)  # what must not be harmed
            outputs.claim(path)  # refused here, before the work
            write(outputs.stage(path))  # a path of the same name in a scratch folder
            outputs.publish()

    A block that ends without `publish` leaves nothing. Nor does a killed process for long: the next one to write in the
    folder, and the next command, remove the scratch folders that nobody holds.
    """

    def __init__(self, *, force: bool = False) -> None:
        """Begin a set of outputs.

        Args:
            force: Replace files that exist. Never an input.
        """
        self.force = force
        running = _command.get()
        self._inputs: list[Path] = [] if running is None else running._inputs
        self._claimed: dict[Path, bool] = {}
        self._staged: dict[Path, Path] = {}
        self._scratch = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._scratch:
            if isinstance(error, Exception):
                for path, staged in self._staged.items():
                    blame(error, staged.parent, f"output {path}")

    def reads(self, path: Path) -> None:
        """Keep a file from being written over: it is an input. So is everything that lies in a folder.

        Raises:
            UsageError: it is claimed as an output already.
        """
        if path not in self._inputs:
            self._inputs.append(path)
        for output, replace in self._claimed.items():
            self.refuse_inputs(output, replace=replace)

    def folder(self, path: Path) -> None:
        """Make a folder for outputs; it is gone again when nothing is published in it.

        Raises:
            OutputError: it cannot be made.
        """
        missing = [each for each in (path, *path.parents) if not each.exists()]
        with explained(f"folder {path}"):
            path.mkdir(parents=True, exist_ok=True)
        for each in reversed(missing):  # the innermost goes first
            self._scratch.callback(_remove_empty, each)

    def claim(self, path: Path, *, replace: bool = False) -> None:
        """Refuse an output that cannot be written, before the work and not after it.

        Args:
            path: The output.
            replace: It is a file of the command's own that it keeps up to date, and may have read.

        Raises:
            OutputError: it is an input, or another output, or exists; or nothing can be written there.
        """
        self._check(path, replace=replace)
        for other in self._claimed:
            if _identity(path) == _identity(other):
                raise OutputError(f"output {path}: is asked for twice. Give each output a name of its own.")
        with explained(f"output {path}"), scratch_folder(path.parent):
            self._claimed[path] = replace

    def stage(self, path: Path) -> Path:
        """Return where an output is written: a path of the same name, in a folder whose files all go beside ``path``.

        Raises:
            OutputError: see `claim`.
        """
        if path not in self._claimed:
            self.claim(path)
        if path not in self._staged:
            with explained(f"output {path}"):
                self._staged[path] = self._scratch.enter_context(scratch_folder(path.parent)) / path.name
        return self._staged[path]

    def write(self, path: Path, text: str) -> None:
        """Stage a text file."""
        staged = self.stage(path)
        with explained(f"output {path}"):
            staged.write_text(text, encoding="utf-8")

    def publish(self) -> None:
        """Move everything that is staged to its place, the file that names an output last: who finds it finds all.

        Raises:
            OutputError: something is in the way by now, or cannot be written. Nothing new is left then.
        """
        made: list[Path] = []
        try:
            for path, staged in self._staged.items():
                with explained(f"output {path}"):
                    self._check(path, replace=self._claimed[path])
                    for file in staged.parent.iterdir():
                        with file.open("rb") as stream:
                            os.fsync(stream.fileno())
                        file.chmod(0o666 & ~_umask())
            for path, staged in self._staged.items():
                with explained(f"output {path}"):
                    for file in sorted(staged.parent.iterdir(), key=lambda file: file.name == path.name):
                        target = path.with_name(file.name)
                        self.refuse_inputs(target, replace=self._claimed[path])
                        new = not os.path.lexists(target)
                        _move(file, target, replace=self.force or self._claimed[path] or file.name != path.name)
                        made += [target] if new else []
        except BaseException:
            for target in made:
                target.unlink(missing_ok=True)
            raise
        self._staged.clear()

    def _check(self, path: Path, *, replace: bool) -> None:
        if "\0" in str(path):
            raise OutputError(f"output {str(path)!r}: no file name has a NUL. Choose another name.")
        self.refuse_inputs(path, replace=replace)
        with explained(f"output {path}"):
            if path.is_dir():
                raise OutputError(f"output {path}: is a folder. Name a file.")
            if path.exists() and not path.is_file():
                raise OutputError(f"output {path}: is no regular file. Name a file; - is standard output for --json.")
            if os.path.lexists(path) and not (self.force or replace):
                raise OutputError(f"output {path}: exists already. Choose another name, or replace it with --force.")
            if not path.parent.is_dir():
                if path.parent.exists():
                    raise OutputError(f"output {path}: {path.parent} is a file, not a folder. Choose another name.")
                raise OutputError(f"output {path}: there is no folder {path.parent}. Create it first.")

    def refuse_inputs(self, output: Path, *, replace: bool = False) -> None:
        """Refuse to change an input.

        Raises:
            OutputError: it is one.
        """
        for given in self._inputs:
            if _harms(output, given) and not (replace and output == given):
                raise OutputError(
                    f"output {output}: is the input {given}, which is never changed. Choose another name."
                    if given.is_file()
                    else f"output {output}: lies in the input {given}, which is never changed. Choose another place."
                )


_command: ContextVar[Outputs | None] = ContextVar("command", default=None)
"""The outputs of the command that runs, whose inputs nothing in it may write over."""


@contextmanager
def command(outputs: Outputs) -> Iterator[None]:
    """Let whatever reads and writes while the block runs do so for one command."""
    token = _command.set(outputs)
    try:
        with outputs:
            yield
    finally:
        _command.reset(token)


def reads(path: Path) -> None:
    """Tell the command that runs, if any, that a file is one of its inputs; see `Outputs.reads`."""
    running = _command.get()
    if running is not None:
        running.reads(path)


@contextmanager
def writing(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a scratch folder whose files all move beside ``path`` when the block ends, and none when it fails.

    Raises:
        OutputError: see `Outputs`.

    """
    with Outputs(force=force) as outputs:
        yield outputs.stage(path).parent
        outputs.publish()


def write_text(path: Path, text: str, *, force: bool = False) -> None:
    """Write a text file whole or not at all; see `writing` for what it raises."""
    with Outputs(force=force) as outputs:
        outputs.write(path, text)
        outputs.publish()


def append_text(path: Path, text: str) -> None:
    """Append to a file that others append to, too, in one write.

    Raises:
        OutputError: it is an input, or cannot be written.

    """
    outputs = Outputs(force=True)
    outputs.refuse_inputs(path)
    with explained(f"output {path}"), path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _move(file: Path, target: Path, *, replace: bool) -> None:
    """Move a file within a file system; without ``replace`` what is there by now stays.

    Raises:
        FileExistsError: it did.
        OSError: it cannot be moved.

    """
    if replace:
        file.replace(target)
        return
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        file.replace(target)


def _identity(path: Path) -> object:
    """Return what two names of the same file have in common, also where there is no file yet."""
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    with suppress(OSError):
        found = Path(real).stat()
        return found.st_dev, found.st_ino
    with suppress(OSError):
        found = Path(folder).stat()
        return found.st_dev, found.st_ino, name
    return real


def _harms(output: Path, given: Path) -> bool:
    """Tell whether writing an output would change an input: it is the same file, or lies in it."""
    one = _identity(given)
    if _identity(output) == one:
        return True
    real = Path(os.path.realpath(output))
    return real.exists() and any(_identity(parent) == one for parent in real.parents)


def hash_files(files: Sequence[Path]) -> str:
    """Return the SHA-256 of one file's bytes (what ``sha256sum`` prints), or of the hashes of several, in order."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def chunks(file: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, a megabyte at a time."""
    with file.open("rb") as stream:
        while chunk := stream.read(2**20):
            yield chunk


def compressed_bytes(pieces: Iterable[bytes]) -> int:
    """Return what bytes take after Zstandard (RFC 8878) at level 3, its default: about what a registry moves.

    Level 3 is what BuildKit and containerd take for layers, too; 19 makes float weights a tenth smaller, in a hundred
    times the time.
    """
    import zstandard

    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    return sum(len(compressor.compress(piece)) for piece in pieces) + len(compressor.flush())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def dumps(document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Return a document as JSON text: equal documents, equal text, and nothing that a terminal or a CI system obeys."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    text = _UNUSUAL.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)
    return _COMMAND.sub(r"#\\u0023", text)


_UNUSUAL = re.compile(r"[^\n -~]")
_COMMAND = re.compile(r"##(?=\[|vso\[)", re.IGNORECASE)
