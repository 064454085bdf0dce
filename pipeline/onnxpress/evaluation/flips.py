"""Where two models disagree: by class, and sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxpress.evaluation.paired import newcombe

Array = np.ndarray[Any, np.dtype[Any]]
LISTED = 20
"""Classes and samples that are listed, the worst first."""
LEAST_SAMPLES = 5
"""Of a class that is worth a line."""


def by_class(right: Array, still: Array, labels: Array) -> list[dict[str, Any]]:
    """Return the classes whose accuracy drops most, with the paired 95 % interval of each drop in points.

    Args:
        right: Whether the baseline gets each sample right.
        still: Whether the candidate does.
        labels: The class of each sample; anything but one label a sample has no classes.

    Returns:
        At most `LISTED` entries ``label, samples, drop, ci95, lost, won``, of classes with `LEAST_SAMPLES` or more.

    """
    if labels.ndim != 1 or len(labels) != len(right):
        return []
    found = []
    for label in np.unique(labels):
        own = labels == label
        count = int(own.sum())
        if count < LEAST_SAMPLES:
            continue
        before, after = right[own], still[own]
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        interval = newcombe(int((before & after).sum()), lost, won, int((~before & ~after).sum()))
        found.append(
            {
                "label": label.item(),
                "samples": count,
                "drop": 100 * (lost - won) / count,
                "ci95": [100 * end for end in interval],
                "lost": lost,
                "won": won,
            }
        )
    return sorted(found, key=lambda each: -each["drop"])[:LISTED]


def flips(right: Array, still: Array, labels: Array) -> list[dict[str, Any]]:
    """Return the first samples that only one of the two models gets right: ``sample``, ``label`` and ``change``."""
    plain = labels.ndim == 1 and len(labels) == len(right)
    changed = [*np.flatnonzero(right & ~still), *np.flatnonzero(~right & still)]
    return [
        {
            "sample": int(index),
            "label": labels[index].item() if plain else None,
            "change": "lost" if right[index] else "won",
        }
        for index in changed[:LISTED]
    ]
