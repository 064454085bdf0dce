"""Arrays kept in a file: written one after another, read in that order, as often as wanted."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress.graph import Array


class Spool:
    """Tuples of arrays in a file without a name, which goes when the spool does.

    Types and shapes stay in memory: to parse them from headers takes longer than to read the numbers of small arrays.
    """

    def __init__(self, folder: Path, rows: Iterable[tuple[Array, ...]] = ()) -> None:
        """Open a file in a folder and write these rows."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the spool lives
        weakref.finalize(self, self._file.close)
        self._rows: list[list[tuple[np.dtype[Any], tuple[int, ...]]]] = []
        for row in rows:
            self.append(*row)

    def append(self, *row: Array) -> None:
        """Write a row; not while one is being read."""
        self._file.seek(0, 2)
        for array in row:
            array.tofile(self._file)
        self._rows.append([(array.dtype, array.shape) for array in row])

    @property
    def dtypes(self) -> list[np.dtype[Any]]:
        """Types of the arrays of a row."""
        return [dtype for dtype, _ in self._rows[0]]

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        """Yield the rows; several readers do not disturb each other."""
        at = 0
        for row in self._rows:
            arrays = []
            for dtype, shape in row:
                self._file.seek(at)
                arrays.append(np.fromfile(self._file, dtype, prod(shape)).reshape(shape))
                at += arrays[-1].nbytes
            yield tuple(arrays)
