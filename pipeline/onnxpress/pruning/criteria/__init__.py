"""Criteria: how much each weight matters. One file each; the word in a recipe is the file's name.

A criterion is a module with ``score(weight) -> array``: ``weight`` has its output channels on axis 0 and its input
channels on axis 1, and the result has its shape, larger where a weight matters more and never negative. Pruning single
weights uses the scores as they are; the score of a channel is the sum over all weights that make it.
"""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np

from onnxpress.graph import Array


def names() -> list[str]:
    """Return the names of the criteria: the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def score(name: str, weight: Array) -> Array:
    """Score a weight tensor [out, in, …] by the criterion of this name; float64, same shape."""
    scores: Array = importlib.import_module(f"{__name__}.{name}").score(np.asarray(weight, np.float64))
    return scores
