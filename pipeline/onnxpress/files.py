"""Files, written whole or not at all. Light: what only writes text needs no onnx."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxpress.errors import OutputError


@contextmanager
def writing(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a scratch folder whose files all move beside ``path`` when the block ends, and none when it fails.

    The file named like ``path`` moves last: a reader who finds it finds everything. A killed process leaves at most a
    hidden ``.tmp-`` folder, which the next write to the same folder removes.

    Raises:
        OutputError: ``path`` exists and ``force`` is off, its folder is missing or not writable, the disk is full.

    """
    if path.is_dir():
        raise OutputError(f"output {path}: is a folder. Name a file.")
    if path.exists() and not force:
        raise OutputError(f"output {path}: exists already. Choose another name, or replace it with --force.")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"output {path}: there is no folder {folder}. Create it first.")
    scratch = None
    try:
        remove_abandoned(folder)
        scratch = Path(tempfile.mkdtemp(prefix=f".tmp-{os.getpid()}-", dir=folder))
        yield scratch
        for file in sorted(scratch.iterdir(), key=lambda file: file.name == path.name):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            file.chmod(0o666 & ~_umask())
            file.replace(folder / file.name)
    except OSError as error:
        if error.errno not in _OUTPUT_ERRNO and scratch is not None:
            raise
        advice = _OUTPUT_ERRNO.get(error.errno or 0, "Nothing can be written there: choose another folder.")
        raise OutputError(f"output {path}: {error.strerror}. {advice}") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


_OUTPUT_ERRNO = {
    errno.EACCES: "Give write permission on the folder, or choose another one.",
    errno.EPERM: "Give write permission on the folder, or choose another one.",
    errno.EROFS: "The file system is read-only: choose another folder.",
    errno.ENOSPC: "Free some space, or choose another disk; nothing was written.",
    errno.EDQUOT: "Free some of your quota, or choose another disk; nothing was written.",
    errno.EFBIG: "The file is larger than the file system or a limit (ulimit -f) allows; nothing was written.",
}


def remove_abandoned(folder: Path) -> None:
    """Remove the scratch folders that killed processes left behind."""
    for scratch in folder.glob(".tmp-*-*"):
        pid = scratch.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str, *, force: bool = False) -> None:
    """Write a text file whole or not at all; see `writing` for what it raises."""
    with writing(path, force=force) as scratch:
        (scratch / path.name).write_text(text, encoding="utf-8")


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


def dumps(document: Mapping[str, Any]) -> str:
    """Return a document as JSON text: equal documents, equal text."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
