"""Where samples come from: one grammar for every command.

=============================  =====================================================================================
``data.npz``                   arrays named like the model's inputs, samples on axis 0, labels in ``y``
``folder/``                    images, and how they become arrays (`onnxpress_calibration.preprocessing`)
``module:fn``, ``file.py:fn``  a function without arguments that returns such a dict of arrays, or yields such dicts
=============================  =====================================================================================

A new source is a new file here with ``accepts(text) -> bool`` and ``read(text) -> Iterable[dict]``.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import partial
from pathlib import Path
from types import ModuleType

from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.errors import DataError
from onnxpress_calibration.preprocessing import Preprocessing
from onnxpress_calibration.sources import images


def names() -> list[str]:
    """Return the names of the sources: the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def source(name: str) -> ModuleType:
    """Import the source of this name."""
    return importlib.import_module(f"{__name__}.{name}")


def dataset(text: str, limit: int | None = None, preprocessing: Preprocessing | None = None) -> Dataset:
    """Turn what the user wrote into a data set; nothing is read yet.

    Args:
        text: DATA.
        limit: Use only the first so many samples.
        preprocessing: How the images of a folder become arrays; None for what the folder says. Other data needs none.

    Raises:
        DataError: no source accepts it.

    """
    for name in names():
        module = source(name)
        if module.accepts(text):
            read = partial(images.read, given=preprocessing) if module is images else module.read
            return Dataset(origin=text, read=partial(read, text), limit=limit)
    if Path(text).is_file():
        raise DataError(
            f"data {text}: is no .npz file. Write arrays with numpy.savez, or give file.py:function, which reads it."
        )
    raise DataError(
        f"data {text!r}: no such file, folder or function. Give FILE.npz, a folder of images, module:function, or "
        "file.py:function."
    )
