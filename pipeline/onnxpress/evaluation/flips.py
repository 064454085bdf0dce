"""Where two models disagree: by class, and sample by sample."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from onnxpress.evaluation.paired import tango
from onnxpress.intervals import CONFIDENCE

Array = np.ndarray[Any, np.dtype[Any]]
LISTED = 20
"""Classes and samples that are listed, the worst first."""
LEAST_SAMPLES = 5
"""Of a class that is worth a line; every class counts for the worst one."""


def by_class(right: Array, still: Array, labels: Array | None) -> list[dict[str, Any]]:
    """Return the classes whose accuracy drops most, with simultaneous paired 95 % intervals of their drops in points.

    Args:
        right: Whether the baseline gets each sample right.
        still: Whether the candidate does.
        labels: The class of each sample; anything but one label a sample has no classes.

    Returns:
        At most `LISTED` entries ``label, samples, drop, ci95, lost, won``, of classes with `LEAST_SAMPLES` or more.

    """
    found = _classes(right, still, labels)
    if found is None:
        return []
    values, count, lost, won = found
    low, high = tango(lost, won, count, simultaneous(len(values)))
    drop = 100 * (lost - won) / count
    order = [place for place in np.argsort(-drop, kind="stable") if count[place] >= LEAST_SAMPLES]
    return [
        {
            "label": values[place].item(),
            "samples": int(count[place]),
            "drop": float(drop[place]),
            "ci95": [100 * float(low[place]), 100 * float(high[place])],
            "lost": int(lost[place]),
            "won": int(won[place]),
        }
        for place in order[:LISTED]
    ]


def worst_class(right: Array, still: Array, labels: Array | None) -> dict[str, Any] | None:
    """Return the drop of the class that loses most, in points, with an interval that knows it was picked.

    The lower end is the largest of all classes' simultaneous lower ends: some class loses at least so much. The upper
    end is the largest of their own upper ends: to be wrong, that of the truly worst class must be, so nothing has to be
    corrected (an intersection-union test: R. L. Berger, Technometrics 24, 1982).

    Returns:
        ``label, samples, drop, ci95, classes``; None without classes.
    """
    found = _classes(right, still, labels)
    if found is None:
        return None
    values, count, lost, won = found
    worst = int(np.argmax((lost - won) / count))
    low, _ = tango(lost, won, count, simultaneous(len(values)))
    _, high = tango(lost, won, count)
    return {
        "label": values[worst].item(),
        "samples": int(count[worst]),
        "drop": 100 * float((lost[worst] - won[worst]) / count[worst]),
        "ci95": [100 * float(low.max()), 100 * float(high.max())],
        "classes": len(values),
    }


def simultaneous(count: int) -> float:
    """Return the normal quantile at which ``count`` intervals hold together at 95 % (Z. Šidák, 1967)."""
    return NormalDist().inv_cdf((1 + CONFIDENCE ** (1 / count)) / 2)


def _classes(right: Array, still: Array, labels: Array | None) -> tuple[Array, Array, Array, Array] | None:
    """Return the labels and, for each, its samples, those lost and those won; None without classes."""
    if labels is None or labels.ndim != 1 or len(labels) != len(right):
        return None
    values, places = np.unique(labels, return_inverse=True)

    def counted(chosen: Array) -> Array:
        return np.bincount(places, chosen, len(values)).astype(np.int64)

    return values, counted(np.ones(len(right))), counted(right & ~still), counted(~right & still)


def flips(right: Array, still: Array, labels: Array | None) -> list[dict[str, Any]]:
    """Return the first samples that only one of the two models gets right: ``sample``, ``label`` and ``change``."""
    known = labels if labels is not None and labels.ndim == 1 and len(labels) == len(right) else None
    changed = [*np.flatnonzero(right & ~still), *np.flatnonzero(~right & still)]
    return [
        {
            "sample": int(index),
            "label": None if known is None else known[index].item(),
            "change": "lost" if right[index] else "won",
        }
        for index in changed[:LISTED]
    ]
