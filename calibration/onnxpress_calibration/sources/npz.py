"""Arrays in a ``.npz`` file, named like the model's inputs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxpress_calibration.dataset import Array
from onnxpress_calibration.errors import DataError


def accepts(text: str) -> bool:
    """Tell whether this is a path of ours; a missing file is reported by `read`."""
    return text.endswith(".npz")


def read(text: str) -> Iterator[dict[str, Array]]:
    """Yield the file's arrays as one chunk. Pickled objects are refused: they would run code."""
    path = Path(text)
    if not path.is_file():
        raise DataError(f"data {text}: no such file. Check the path.")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            yield {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise DataError(f"data {text}: not a usable npz file ({error}). Write it with numpy.savez.") from error
