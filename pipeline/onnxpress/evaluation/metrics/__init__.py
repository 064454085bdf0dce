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

from onnxpress.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]


class Metric(Protocol):
    """What a metric's module offers."""

    UNIT: str
    SCALE: float | None

    def score(self, output: Array | None, labels: Array) -> Array:
        """Return one number per sample, float64 [N], from the model's first output [N, …] and the labels [N].

        Raises:
            DataError: the metric does not fit the output or the labels.
        """
        ...

    def aggregate(self, values: Array, labels: Array) -> float:
        """Return the value reported."""
        ...


def rows(name: str, output: Array | None, labels: Array, *, classes: bool = False) -> Array:
    """Return an output as [samples, values].

    Args:
        name: The metric, for messages.
        output: The model's first output; None where it has none.
        labels: Those of the samples.
        classes: Whether the values are scores, and labels numbers, of classes.

    Raises:
        DataError: the output is no row of numbers a sample, or the labels are no numbers, or no classes of the model.
    """
    numbers = output is not None and output.dtype.kind in "fiub" and (not classes or labels.dtype.kind in "fiub")
    if output is None or not numbers or output.shape[:1] != labels.shape[:1]:
        given = "nothing" if output is None else f"{output.dtype}{list(output.shape)}"
        raise DataError(
            f"metric {name}: does not fit what the model gives first, {given}, with labels "
            f"{labels.dtype}{list(labels.shape)}: it needs numbers for each sample. Say what counts with --metric "
            "module:fn."
        )
    flat = output.reshape(len(output), -1)
    if classes:
        for wrong in labels[~np.isin(labels, np.arange(flat.shape[1]))][:1]:  # it would be lost by every model alike
            raise DataError(
                f"metric {name}: label {wrong} is none of the {flat.shape[1]} classes that the model scores, which are "
                "counted from 0. Correct the labels, or say what counts with --metric module:fn."
            )
    return flat


def names() -> list[str]:
    """Return the names of the metrics: the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def metric(name: str) -> Metric:
    """Import the metric of this name."""
    return cast(Metric, importlib.import_module(f"{__name__}.{name}"))
