"""Zip archives, and the arrays in them, read without trust: checked before anything is allocated, and never unpickled.

Members of ``.npz`` files, profiles and exported programs are read as streams. A member is never larger than the archive
says it is, and an array is never larger than its member, so that a few bytes cannot ask for terabytes.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxpress_calibration.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]
SUFFIX = ".npy"
NPY_MAGIC = b"\x93NUMPY"
ENCRYPTED = 0x1
MOST_AT_ONCE = 1 << 30
"""Bytes of one piece that is read at a time; one that needs more is refused."""
MOST_HEADER = 1 << 16
MOST_REASON = 300
MOST_EMPTY = 1_000_000
"""Length of an array that takes no bytes: nothing else bounds it."""
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, KeyError)
"""What reading a damaged archive raises."""
BROKEN_HEADER = (*BROKEN, SyntaxError, tokenize.TokenError, TypeError, MemoryError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An array in an archive; its header was checked against the bytes that are there."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry of axis 0."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Archive:
    """An open zip archive; use it in a ``with`` statement.

    Raises:
        DataError: it is no zip archive, or one that no tool of the field writes: encrypted, with two members of one
            name, or with members that overlap (one kind of bomb).
    """

    def __init__(self, path: Path, what: str, how: str) -> None:
        """Open an archive.

        Args:
            path: The file.
            what: What it is, in messages.
            how: What to do when it is broken, in messages.
        """
        self.path, self._what, self._how = path, what, how
        if not path.is_file():
            raise DataError(f"{what} {path}: no such file. Check the path.")
        try:
            with path.open("rb") as stream:
                start = stream.read(len(NPY_MAGIC))
            if start == NPY_MAGIC:
                raise self.refusal("is a single array (.npy), not an archive of named ones")
            self._zip = zipfile.ZipFile(path)
        except BROKEN as error:
            raise self.refusal(f"is no archive, or truncated ({error})") from error
        self.members = {info.filename: info for info in self._zip.infolist()}
        try:
            self._check()
        except DataError:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def refusal(self, reason: object) -> DataError:
        """Return the error that says, in one line, why this archive is not read."""
        text = " ".join(str(reason).split()).rstrip(".")
        return DataError(f"{self._what} {self.path}: {text[:MOST_REASON]}. {self._how}")

    def _check(self) -> None:
        infos = self._zip.infolist()
        if len(self.members) < len(infos):
            raise self.refusal("has two members of one name")
        if any(info.flag_bits & ENCRYPTED for info in infos):
            raise self.refusal("is encrypted")
        if sum(info.compress_size for info in infos) > self.path.stat().st_size:
            raise self.refusal("has members that overlap")

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member; whatever is wrong with it while it is read is one `DataError`."""
        try:
            with self._zip.open(name) as stream:
                yield stream
        except BROKEN as error:
            raise self.refusal(f"member {name!r} is damaged ({error})") from error

    def read(self, name: str, most_bytes: int = MOST_AT_ONCE) -> bytes:
        """Return a whole member.

        Raises:
            DataError: there is none, it is damaged, or it is larger than ``most_bytes``.
        """
        if name not in self.members:
            raise self.refusal(f"has no member {name!r}")
        size = self.members[name].file_size
        if size > most_bytes:
            raise self.refusal(f"member {name!r} has {size:,} bytes, at most {most_bytes:,} are read")
        with self.open(name) as stream:
            return stream.read()

    def arrays(self) -> list[Member]:
        """Return the arrays of the archive, after checking each header against the bytes of its member."""
        found = []
        for name, info in self.members.items():
            if name.endswith(SUFFIX):
                with self.open(name) as stream:
                    start = io.BytesIO(stream.read(MOST_HEADER))
                found.append(self._header(name.removesuffix(SUFFIX), start, info.file_size))
        return found

    def _header(self, name: str, start: IO[bytes], size: int) -> Member:
        """Read a header from the first bytes of a member of ``size`` bytes."""
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy says when a file is from Python 2; it reads it all the same
                shape, fortran_order, dtype = readers[np.lib.format.read_magic(start)](start)
        except BROKEN_HEADER as error:
            raise self.refusal(f"array {name!r} has a damaged header ({error})") from error
        if dtype.hasobject:
            raise self.refusal(
                f"array {name!r} holds Python objects: they need pickle, which can run any code, so it is not "
                "read. Store numbers, or strings as numpy.array(strings, dtype=str)"
            )
        content = size - start.tell()
        needed = math.prod(shape) * dtype.itemsize
        if dtype.fields or not dtype.itemsize or min(shape, default=0) < 0 or needed != content:
            raise self.refusal(f"array {name!r} is {dtype} {list(shape)}, which does not fit its {content:,} bytes")
        if not content and max(shape) > MOST_EMPTY:
            raise self.refusal(f"array {name!r} is {list(shape)}: so many entries without a value")
        return Member(name=name, dtype=dtype, shape=shape, fortran_order=fortran_order)

    def array(self, member: Member) -> Array:
        """Return a whole array; see `rows` for one that is too large for that."""
        values = math.prod(member.shape)
        if not values:
            return np.empty(member.shape, member.dtype)
        (flat,) = self._pieces(member, values, member.dtype.itemsize)
        return flat.reshape(member.shape, order="F" if member.fortran_order else "C")

    def rows(self, member: Member, count: int) -> Iterator[Array]:
        """Yield an array, at least one dimension, in pieces of ``count`` entries of axis 0, one in memory at a time.

        An array without entries is one piece.

        Raises:
            DataError: a piece is larger than `MOST_AT_ONCE`, or the member is damaged.
        """
        if member.fortran_order and len(member.shape) > 1:  # the entries of axis 0 lie all over the file
            whole = self.array(member)
            yield from (np.ascontiguousarray(whole[start : start + count]) for start in range(0, len(whole), count))
        elif not member.row_bytes or not member.shape[0]:
            for start in range(0, max(member.shape[0], 1), count):
                yield np.empty((min(count, member.shape[0] - start), *member.shape[1:]), member.dtype)
        else:
            for piece in self._pieces(member, count, member.row_bytes):
                yield piece.reshape(-1, *member.shape[1:])

    def _pieces(self, member: Member, count: int, unit: int) -> Iterator[Array]:
        """Yield the values as flat arrays of ``count`` units of ``unit`` bytes; the last one may be shorter."""
        total = math.prod(member.shape) * member.dtype.itemsize
        step = min(count * unit, total)
        if step > MOST_AT_ONCE:
            raise self.refusal(
                f"array {member.name!r} needs {step:,} bytes at once, at most {MOST_AT_ONCE:,} are read. Store its "
                "samples along axis 0, in C order"
            )
        with self.open(member.name + SUFFIX) as stream:
            stream.read(self.members[member.name + SUFFIX].file_size - total)  # the header
            for start in range(0, total, step):
                content = stream.read(min(step, total - start))
                if len(content) < min(step, total - start):
                    raise EOFError(f"it ends after {start + len(content):,} of {total:,} bytes")
                yield np.frombuffer(bytearray(content), member.dtype)
