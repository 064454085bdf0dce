"""Criteria: how much each weight matters. One file each; the word in a recipe is the file's name.

A criterion is a module with ``score(weight, seen) -> array``: ``weight`` has its output channels on axis 0 and its
input channels on axis 1, ``seen`` is what calibration data say of it, and the result has the weight's shape, larger
where a weight matters more and never negative. ``NEEDS`` says what of ``seen`` is looked at. Pruning single
weights uses the scores as they are; the score of a channel comes from all weights that make or read it (`importance`),
unless the criterion says itself what a group loses with each channel, in ``channels(group, evidence)``.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Literal

import numpy as np

from onnxpress.graph import Array
from onnxpress.pruning.evidence import Evidence
from onnxpress.pruning.groups import Group
from onnxpress.pruning.weights import Weight

Needs = Literal["nothing", "inputs", "gradients"]


def names() -> list[str]:
    """Return the names of the criteria: the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def needs(name: str) -> Needs:
    """Return what a criterion wants to know of calibration data."""
    wanted: Needs = _module(name).NEEDS
    return wanted


def score(name: str, weight: Weight, evidence: Evidence) -> Array:
    """Score a weight tensor [out, in, …] by the criterion of this name; float64, same shape."""
    scores: Array = _module(name).score(weight.rows().astype(np.float64), evidence.seen(weight))
    return scores


def importance(name: str, group: Group, evidence: Evidence) -> Array:
    """Return what a group loses with each of its channels, [size]; those that matter least are lost first.

    It is the share of its scores that each weight loses, summed over all weights that make or read the channel: what a
    reader multiplies a channel with says as much about it as what makes it, and a layer's scale says nothing.
    G. Fang et al., "DepGraph: Towards any structural pruning", 2023 (arXiv:2301.12900), section 3.3.
    """
    own = getattr(_module(name), "channels", None)
    if own is not None:
        scores: Array = own(group, evidence)
        return scores
    lost = np.zeros(group.size)
    sides = [(weight, weight.out_axis, 0) for weight in group.makers]
    sides += [(weight, weight.in_axis, 1) for weight in group.readers]
    for weight, axis, place in sides:
        each = score(name, weight, evidence)
        rows = each.sum(axis=tuple(i for i in range(each.ndim) if i != place))
        channel = group.channel(weight.value, axis)
        sums = np.bincount(channel[channel >= 0], weights=rows[channel >= 0], minlength=group.size)
        lost += sums / (sums.sum() or 1)
    return lost


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
