"""Reference models: small networks that we trained on real data, with weights, recipes and the data itself.

====================  =================================================================
``zoo/NAME.py``       a model: architecture, inputs, data set, accuracy, how it is trained
``weights/``          its trained weights, ``NAME.safetensors``
``recipes/``          its recipe, ``NAME.yaml``, and the policies
``datasets/NAME.py``  a data set: one function per split
====================  =================================================================

The file name is the name: a new model or data set is a new file. This is a leaf package; torch is imported only where a
model is built, and nothing here needs scikit-learn.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxpress_models import datasets, zoo

if TYPE_CHECKING:
    import torch

__all__ = ["dataset_function", "dataset_splits", "load", "model", "names", "recipe_file", "weights_file"]

Array = np.ndarray[Any, np.dtype[Any]]


def names() -> list[str]:
    """Return the names of the models: the files in ``zoo``."""
    return sorted(module.name for module in pkgutil.iter_modules(zoo.__path__))


def model(name: str) -> ModuleType:
    """Import the module of a model (see `onnxpress_models.zoo` for what it holds).

    Raises:
        LookupError: there is no such model; the message lists those that exist.

    """
    if name not in names():
        raise LookupError(f"no reference model {name!r}. There are: {', '.join(names())}.")
    return importlib.import_module(f"{zoo.__name__}.{name}")


def weights_file(name: str) -> Path:
    """Return where the trained weights of a model are kept."""
    return Path(__file__).parent / "weights" / f"{name}.safetensors"


def recipe_file(name: str) -> Path:
    """Return where the recipe of a model is kept."""
    return Path(__file__).parent / "recipes" / f"{name}.yaml"


def load(name: str) -> torch.nn.Module:
    """Build a model with its trained weights, ready for inference.

    Raises:
        LookupError: there is no such model.

    """
    from safetensors.torch import load_file

    network: torch.nn.Module = model(name).build()
    network.load_state_dict(load_file(weights_file(name)))
    return network.eval()


def dataset_splits() -> list[str]:
    """Return what can be read, as ``name/split``: ``digits/calibration``, ``digits/test``, …."""
    modules = [
        importlib.import_module(f"{datasets.__name__}.{m.name}") for m in pkgutil.iter_modules(datasets.__path__)
    ]
    return [f"{module.__name__.rpartition('.')[2]}/{split}" for module in modules for split in module.__all__]


def dataset_function(name: str, split: str) -> Callable[[], dict[str, Array]]:
    """Return the function that reads one split of a data set.

    Raises:
        LookupError: there is no such data set or split; the message lists those that exist.

    """
    if f"{name}/{split}" not in dataset_splits():
        raise LookupError(f"no data {f'{name}/{split}'!r}. There are: {', '.join(dataset_splits())}.")
    function: Callable[[], dict[str, Array]] = getattr(importlib.import_module(f"{datasets.__name__}.{name}"), split)
    return function
