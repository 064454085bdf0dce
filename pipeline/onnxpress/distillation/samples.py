"""Samples in memory, and which of them make up each update: a pure function of the seed and the number of the update.

Nothing here keeps state between updates, so that a resumed run and every process of several see the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxpress_calibration.dataset import LABELS, Array, Dataset, InputSpec

Batch = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples of equal shapes in one group each (texts of different lengths make several)."""

    groups: tuple[Batch, ...]

    @classmethod
    def read(cls, data: Dataset, inputs: Mapping[str, InputSpec]) -> Samples:
        """Read a data set into memory, checked against what the model expects.

        Raises:
            DataError: see `Dataset.batches`.
        """
        found: dict[tuple[Any, ...], list[Batch]] = {}
        for batch in data.batches(inputs, size=1):
            found.setdefault(tuple((name, value.shape[1:]) for name, value in batch.items()), []).append(batch)
        joined = [
            {name: np.concatenate([each[name] for each in group]) for name in group[0]} for group in found.values()
        ]
        return cls(groups=tuple(joined))

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(length(group) for group in self.groups)

    @property
    def labelled(self) -> bool:
        """Tell whether every sample has a label."""
        return all(LABELS in group for group in self.groups)

    def epoch_steps(self, size: int) -> int:
        """Return how many updates see every sample once."""
        return sum(-(-length(group) // size) for group in self.groups)

    def batch(self, step: int, size: int, seed: int) -> tuple[int, Array]:
        """Return (group, positions in it) of an update: every sample once in an epoch, in an order of its own.

        The last batch of a group is filled up from the beginning of its order.
        """
        epoch, at = divmod(step, self.epoch_steps(size))
        random = np.random.default_rng([seed, 2, epoch])
        batches: list[tuple[int, Array]] = []
        for index, group in enumerate(self.groups):
            order, width = random.permutation(length(group)), min(size, length(group))
            for start in range(0, len(order), width):
                batches.append((index, np.resize(np.roll(order, -start), width)))
        chosen: int = random.permutation(len(batches))[at]
        return batches[chosen]

    def take(self, group: int, positions: Array) -> Batch:
        """Return samples of one group."""
        return _take(self.groups[group], positions)


def length(batch: Mapping[str, Array]) -> int:
    """Return the number of samples of a batch."""
    return max((len(value) for value in batch.values() if value.ndim), default=0)


def _take(group: Batch, positions: Array) -> Batch:
    return {name: value[positions] if value.ndim else value for name, value in group.items()}
