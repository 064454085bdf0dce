"""DATA, the one grammar of every command: files, folders, functions, and the embedded data of reference models.

``zoo:NAME/split`` is resolved here, because neither leaf package may import the other; everything else belongs to
`onnxpress_calibration.sources`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnxpress_models
from onnxpress.errors import UsageError, did_you_mean
from onnxpress.files import reads
from onnxpress_calibration import sources
from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.preprocessing import Preprocessing

ZOO = "zoo:"


def dataset(text: str, *, limit: int | None = None, preprocessing: Preprocessing | None = None) -> Dataset:
    """Turn what the user wrote into a data set; nothing is read yet.

    Args:
        text: DATA.
        limit: Use only the first so many samples.
        preprocessing: How the images of a folder become arrays; None for what the folder says. Other data needs none.

    Raises:
        UsageError: an unknown ``zoo:`` name.
        DataError: no source accepts it.
    """
    if not text.startswith(ZOO):
        return sources.dataset(text, limit, preprocessing)
    name, _, split = text.removeprefix(ZOO).partition("/")
    try:
        function = onnxpress_models.dataset_function(name, split)
    except LookupError as error:
        known = onnxpress_models.dataset_splits()
        raise UsageError(f"data {text!r}: unknown.{did_you_mean(f'{name}/{split}', known)}") from error
    return Dataset(origin=text, read=lambda: [function()], limit=limit)


def shared_samples(calibration: Dataset, evaluation: Dataset) -> int:
    """Return how many evaluation samples are calibration samples too, by the bytes of their inputs."""
    known = set(calibration.input_hashes())
    return sum(sample in known for sample in evaluation.input_hashes())


def resolve(text: str, folder: Path) -> str:
    """Return a source or DATA written in a file: relative paths start at that file's folder, ``$NAME`` is replaced.

    Raises:
        UsageError: a variable is not set.
    """
    text = os.path.expandvars(text)
    unset = re.search(r"\$\{?(\w+)\}?", text)
    if unset is not None:
        raise UsageError(f"{text!r}: the environment variable {unset.group(1)} is not set. Set it, or write the path.")
    if text.startswith(ZOO):
        return text
    path, colon, function = text.rpartition(":")
    is_file_function = bool(colon) and path.endswith(".py")
    if bool(colon) and not is_file_function and os.sep not in text:
        return text  # module:function
    place = folder / (path if is_file_function else text)
    reads(place)
    return f"{place}:{function}" if is_file_function else str(place)
