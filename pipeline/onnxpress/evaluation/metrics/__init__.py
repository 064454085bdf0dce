"""Metrics, one file each; the word in a recipe is the file's name.

A metric is a module with

* ``UNIT``: of the value and of a drop;
* ``score(output, labels) -> values``: one number per sample, so that two models are compared on the same samples;
* ``aggregate(values, labels) -> float``: the value reported;
* ``SCALE``: the value is this times the mean of the scores; None where it is no mean.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Protocol, cast

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Metric(Protocol):
    """What a metric's module offers."""

    UNIT: str
    SCALE: float | None

    def score(self, output: Array, labels: Array) -> Array:
        """Return one number per sample, float64 [N], from the model's first output [N, …] and the labels [N]."""
        ...

    def aggregate(self, values: Array, labels: Array) -> float:
        """Return the value reported."""
        ...


def names() -> list[str]:
    """Return the names of the metrics: the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def metric(name: str) -> Metric:
    """Import the metric of this name."""
    return cast(Metric, importlib.import_module(f"{__name__}.{name}"))
