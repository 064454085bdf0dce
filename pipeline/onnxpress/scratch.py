"""Scratch folders: gone when they are not needed any more, or soon after their process was killed.

They lie beside outputs, where files move in one rename, and in TMPDIR. When something cannot be written there, the
error names the place that is full, and not what a library made of it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from onnxpress.errors import OutputError, UsageError

if sys.platform != "win32":
    import fcntl

PROBE_BYTES = 1 << 20


@contextmanager
def temporary() -> Iterator[Path]:
    """Give a folder in TMPDIR for what nobody keeps.

    Raises:
        OutputError: none can be made, or the block failed because it is full. A library whose write failed there says
            anything but that.

    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise OutputError("temporary folder: none can be written. Set TMPDIR to a folder that can.") from error
    what = f"temporary folder {outer_tmpdir()} (TMPDIR)"
    with ExitStack() as stack:
        with explained(what):
            folder = stack.enter_context(scratch_folder(parent))
        try:
            yield folder
        except Exception as error:
            blame(error, folder, what)
            raise


def outer_tmpdir() -> Path:
    """Return TMPDIR as the user knows it, whether or not `private_tmpdir` is in use."""
    folder = Path(tempfile.gettempdir())
    return folder.parent if _is_scratch(folder) else folder


@contextmanager
def private_tmpdir() -> Iterator[None]:
    """Make TMPDIR a folder of this process and its children: whatever libraries leave there goes when the block ends.

    Where none can be made everything stays as it is: not every command needs one.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder(Path(tempfile.gettempdir())))
        except OSError:
            yield
            return
        before, variables = tempfile.tempdir, ("TMPDIR", "TEMP", "TMP")
        known = {name: os.environ.get(name) for name in variables}
        tempfile.tempdir = str(folder)
        os.environ.update(dict.fromkeys(variables, str(folder)))
        try:
            yield
        finally:
            tempfile.tempdir = before
            for name, value in known.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


_mine: set[Path] = set()
"""The scratch folders of this process."""


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give a folder that is gone when the block ends, or soon after this process was killed.

    As long as the process lives it holds a lock on the folder; what nobody holds is removed here first. So neither a
    process number that is used again nor a container with numbers of its own can confuse who is alive.

    Raises:
        OSError: none can be made there.

    """
    remove_abandoned(parent)
    path, lock = _held_folder(parent)
    note = Path(tempfile.gettempdir(), path.name) if _is_scratch(Path(tempfile.gettempdir())) else None
    try:
        if note is not None:
            with suppress(OSError):  # it is only for tidying
                note.symlink_to(path.absolute())
        yield path
    finally:
        _remove(path)
        if note is not None:
            note.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders of killed processes: those of this user that nobody holds.

    One in TMPDIR notes, in links, which others the process had, beside its outputs.
    """
    with suppress(OSError):
        for path in parent.iterdir():
            if _is_scratch(path):
                _remove_abandoned(path)


def remove_mine() -> None:
    """Remove every scratch folder that this process still has: where an interrupt fell between two lines."""
    for path in list(_mine):
        _remove(path)


def _remove_abandoned(path: Path) -> None:
    with suppress(OSError), ExitStack() as stack:
        lock = _lock(path)
        stack.callback(os.close, lock)
        if os.fstat(lock).st_uid == os.geteuid():
            for note in path.iterdir():
                if note.is_symlink() and _is_scratch(note) and note.readlink().name == note.name:
                    _remove_abandoned(note.readlink())
            shutil.rmtree(path, ignore_errors=True)


def _held_folder(parent: Path) -> tuple[Path, int | None]:
    while True:
        path = parent / f".onnxpress-{secrets.token_hex(6)}"
        _mine.add(path)
        path.mkdir(mode=0o700)
        try:
            return path, _lock(path)
        except (BlockingIOError, FileNotFoundError):  # one who tidies came between
            _mine.discard(path)
        except OSError:  # there are no locks here: nobody will tidy then
            return path, None


def _lock(folder: Path) -> int:
    """Lock a folder and return the open descriptor that holds it."""
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.lstat(folder)):
            raise FileNotFoundError(folder)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    _mine.discard(path)


def without_scratch(text: str) -> str:
    """Return a message that names files in scratch folders by where they are to be."""
    return re.sub(rf"{_NAME}/", "", text)


_NAME = r"\.onnxpress-[0-9a-f]{12}"


def _is_scratch(path: Path) -> bool:
    return re.fullmatch(_NAME, path.name) is not None


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of the system into one that says what could not be written, and what to do.

    Raises:
        OutputError: the block raised an `OSError`.

    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what}: {explain(error)}") from error


def explain(error: OSError, otherwise: str = "Nothing can be written there: choose another folder.") -> str:
    """Say what the system refused, and what to do; ``otherwise`` where that follows from nothing but the place."""
    advice = _ADVICE.get(error.errno or 0, otherwise)
    return f"{error.strerror or error}. {advice}"


def blame(error: Exception, folder: Path, what: str) -> None:
    """Raise an error that names the folder, where that is why a library failed while it wrote there.

    Libraries say many things of a full disk, so it is tried whether the last file can grow.
    """
    if isinstance(error, UsageError):
        return
    elsewhere = isinstance(error, OSError) and error.filename and folder not in Path(error.filename).parents
    if isinstance(error, OSError) and error.errno in _ADVICE and not elsewhere:
        cause = error
    else:
        try:
            last = max(folder.iterdir(), key=lambda file: file.stat().st_size, default=folder / "probe")
            with (last if last.is_file() else folder / "probe").open("ab") as stream:
                stream.write(bytes(PROBE_BYTES))
            return
        except OSError as found:
            cause = found
    raise OutputError(f"{what}: {explain(cause)}") from error


_SPACE = "Free some space, or choose another disk; nothing was written."
_ADVICE = {
    errno.EACCES: "Give write permission on the folder, or choose another one.",
    errno.EPERM: "Give write permission on the folder, or choose another one.",
    errno.EROFS: "The file system is read-only: choose another folder.",
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: "Free some of your quota, or choose another disk; nothing was written.",
    errno.EFBIG: "The file is larger than the file system or a limit (ulimit -f) allows; nothing was written.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EEXIST: "Choose another name, or replace it with --force.",
    errno.EBUSY: "It is mounted by itself: mount its folder, or choose another name.",
    errno.EMFILE: "Allow more open files (ulimit -n).",
}
