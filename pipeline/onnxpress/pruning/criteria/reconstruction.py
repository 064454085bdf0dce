"""Reconstruction: the error that is left after the weights behind the cut have been re-solved by least squares.

For a layer ``y = Wᵀ x`` whose inputs have the covariance ``H``, leaving out some inputs ``c`` and re-solving the other
weights costs ``tr(W_cᵀ ([H⁻¹]_cc)⁻¹ W_c)``, and changes the weights by ``-H⁻¹_·c ([H⁻¹]_cc)⁻¹ W_c``. A channel that
others can stand in for is cheap, however large its weights are.

B. Hassibi, D. Stork, "Optimal brain surgeon", 1993; E. Frantar, D. Alistarh, "Optimal brain compression", 2022
(arXiv:2208.11580), section 4; for channels: J.-H. Luo et al., "ThiNet", 2017 (arXiv:1707.06342).
"""

from __future__ import annotations

import numpy as np

from onnxpress.graph import Array
from onnxpress.pruning.evidence import Evidence, Seen
from onnxpress.pruning.groups import Group

NEEDS = "inputs"
ROUNDS = 64
"""Channels leave in about so many rounds: one at a time up to this number of them, then several."""


def score(weight: Array, seen: Seen) -> Array:
    """Return ``w² / [H⁻¹]_cc``, the error after the other weights of the same output have made good what they can."""
    return np.square(weight) * seen.variance


def channels(group: Group, evidence: Evidence) -> Array:
    """Return what a group loses with each channel, [size], when the cheapest leave first, one after the other.

    The loss is the error relative to the variance of the output, summed over the weights that read the group.
    """
    readers = [
        _Reader(*problem, group.channel(weight.value, weight.in_axis), group.size)
        for weight in group.readers
        for problem in evidence.problems(weight)
    ]
    lost, left = np.zeros(group.size), np.arange(group.size)
    total = 0.0
    while len(left) and readers:
        costs = np.sum([reader.costs(left) for reader in readers], axis=0)
        chosen = np.argsort(costs, kind="stable")[: max(1, group.size // ROUNDS)]
        for position in chosen:
            total = max(total, float(costs[position]))  # with fewer to stand in, none gets cheaper
            lost[left[position]] = total
        for reader in readers:
            reader.remove(left[chosen])
        left = np.delete(left, chosen)
    return lost


class _Reader:
    """A least-squares problem from which channels leave."""

    def __init__(self, covariance: Array, matrix: Array, channel: Array, size: int) -> None:
        feature = np.repeat(channel, len(matrix) // len(channel))
        rest = np.flatnonzero(feature < 0)
        order = np.argsort(feature, kind="stable")[len(rest) :]
        self._features = order.reshape(size, -1)  # of each channel
        self._matrix = matrix.copy()
        self._inverse = np.linalg.inv(covariance)
        self._scale = float(np.sum(matrix * (covariance @ matrix))) or 1.0

    def costs(self, left: Array) -> Array:
        """Return the error that the loss of each channel adds, relative to the variance of the whole output."""
        features = self._features[left]  # [channels, k]
        blocks = self._inverse[features[:, :, None], features[:, None, :]]
        weights = self._matrix[features]  # [channels, k, outputs]
        costs: Array = np.sum(weights * np.linalg.solve(blocks, weights), axis=(1, 2)) / self._scale
        return costs

    def remove(self, gone: Array) -> None:
        """Take channels out and re-solve the weights of the others."""
        features = self._features[gone].ravel()
        columns = self._inverse[:, features]
        part = np.linalg.solve(columns[features], np.hstack([columns.T, self._matrix[features]]))
        size = len(self._inverse)
        self._inverse -= columns @ part[:, :size]
        self._matrix -= columns @ part[:, size:]
