"""How close a compressed model's outputs are to the float model's, without labels; one pass, few numbers per sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from onnxpress.evaluation.metrics import mean
from onnxpress.evaluation.outputs import pairs, tensors
from onnxpress.evaluation.paired import LEAST_SAMPLES, percentile_interval, value_interval
from onnxpress.intervals import mean_interval, share_interval

Array = np.ndarray[Any, np.dtype[Any]]


LEAST_DB = -100.0
"""Where there should be no signal at all, or noise is not finite."""
MASK = "attention_mask"
"""The name that transformers' exporters give the input [N, L] that is 0 at padding."""


def without_padding(outputs: Mapping[str, Any], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs as `tensors`, with zeros at padding: what one [N, L, …] holds there means nothing.

    Args:
        outputs: By name.
        feeds: What the model was fed; without a `MASK` nothing is padding.
    """
    mask, found = feeds.get(MASK), tensors(outputs)
    if mask is None or mask.ndim != 2:
        return found
    kept = mask > 0
    return {
        name: np.where(kept.reshape(*kept.shape, *[1] * (value.ndim - 2)), value, value.dtype.type(0))
        if value.shape[:2] == kept.shape and value.dtype != object
        else value
        for name, value in found.items()
    }


@dataclass(slots=True, kw_only=True)
class Fidelity:
    """Sums over all samples seen so far, per output."""

    signal: dict[str, list[Array]] = field(default_factory=dict)
    """Squares of each output of numbers, summed by sample, by batch."""
    noise: dict[str, list[Array]] = field(default_factory=dict)
    """Squares of the differences."""
    values: dict[str, list[Array]] = field(default_factory=dict)
    """How many integers, strings and booleans an output has, by sample, by batch."""
    unequal: dict[str, list[Array]] = field(default_factory=dict)
    """How many of them differ."""
    cosines: list[float] = field(default_factory=list)
    agreed: float = 0
    non_finite: int = 0
    """Output values that are NaN or infinite."""
    compared: int = 0
    """Samples whose first output is a row of class scores, or is no numbers (labels)."""
    lost: float = 0.0
    """Probability of the reference's class minus that of the given class, as the reference has them; the sum."""
    scored: int = 0
    """Samples whose first output is a row of class scores."""
    no_answers: bool = False
    """Whether the first output has been something else than one answer a sample."""

    def update(
        self,
        reference: Mapping[str, Array],
        outputs: Mapping[str, Array],
        *,
        samples: int | None = None,
        found: Mapping[str, int] = MappingProxyType({}),
        variant: str = "",
    ) -> None:
        """Compare the outputs of one batch.

        Args:
            reference: The baseline's `tensors`.
            outputs: The other model's.
            samples: Of the batch; None where each entry of axis 0 of an output is one.
            found: The baseline's `detections`.
            variant: Name of the other model, for messages.

        Raises:
            ModelError: the outputs cannot be compared; see `pairs`.
        """
        measured = False
        for index, pair in enumerate(pairs(reference, outputs, found, variant)):
            length = len(pair.wanted) if pair.wanted.ndim and not pair.whole else 1
            rows = length if samples in (None, length) else 1
            if index == 0 and (found or pair.whole or samples not in (None, length)):
                self.no_answers = True
            if not pair.wanted.size:
                continue
            wanted, given = pair.wanted.reshape(rows, -1), pair.given.reshape(rows, -1)
            if pair.numbers:
                self.non_finite += int(np.count_nonzero(~np.isfinite(given)))
                wanted, given = _without_same_infinities(wanted.astype(np.float64), given.astype(np.float64))
                self.signal.setdefault(pair.name, []).append((np.where(np.isfinite(wanted), wanted, 0) ** 2).sum(1))
                self.noise.setdefault(pair.name, []).append(_squares(wanted, given))
                if not measured:
                    self.cosines += _cosines(wanted, given)
                measured = True
            else:
                self.values.setdefault(pair.name, []).append(np.full(rows, wanted.shape[1], np.float64))
                self.unequal.setdefault(pair.name, []).append((wanted != given).sum(1).astype(np.float64))
            if index == 0 and not pair.numbers:
                self.agreed += float((wanted == given).mean(1).sum())
                self.compared += rows
            elif index == 0 and pair.wanted.ndim == 2 and wanted.shape[1] > 1:
                self.agreed += int((wanted.argmax(1) == given.argmax(1)).sum())
                chances = _probabilities(wanted)
                self.lost += float((chances.max(1) - chances[np.arange(rows), given.argmax(1)]).sum())
                self.compared += rows
                self.scored += rows

    @property
    def is_evidence(self) -> bool:
        """Whether anything was compared: a detector that finds nothing in any sample proves nothing."""
        return bool(self.signal or self.values)

    @property
    def sqnr_db(self) -> float | None:
        """Signal-to-quantization-noise ratio of the worst output, dB; None without float outputs or without noise."""
        return min(self._ratios().values(), default=None)

    def _ratios(self) -> dict[str, float]:
        """Return the signal-to-noise ratio of each output that has noise; of values that are no numbers, where alone.

        Ten percent of labels that differ are 10 dB, like noise of ten percent of the power.
        """
        signals, noises = self._of_interest()
        sums = {
            name: (float(np.concatenate(each).sum()), float(np.concatenate(noises[name]).sum()))
            for name, each in signals.items()
        }
        return {
            name: max(10 * (math.log10(signal) - math.log10(noise)), LEAST_DB)
            if signal > 0 and noise < math.inf
            else LEAST_DB
            for name, (signal, noise) in sums.items()
            if noise > 0
        }

    def _of_interest(self) -> tuple[dict[str, list[Array]], dict[str, list[Array]]]:
        return (self.signal, self.noise) if self.signal else (self.values, self.unequal)

    def intervals(self) -> dict[str, list[float] | None]:
        """Return the 95 % intervals of ``agreement_pct, cosine, cosine_p01, sqnr_db``; None where there is none."""
        cosines = np.array(self.cosines)
        known = len(cosines) > 0 and bool(np.isfinite(cosines).all())
        agreed = None
        if self.agreement_pct is not None:  # of a sample with many values, as a mask, a part may agree
            low, _ = share_interval(math.floor(self.agreed), self.compared)
            _, high = share_interval(math.ceil(self.agreed), self.compared)
            agreed = [100 * low, 100 * high]
        return {
            "agreement_pct": agreed,
            "cosine": value_interval(cosines, cosines, mean).ci95 if known else None,
            "cosine_p01": percentile_interval(cosines, 0.01).ci95 if known else None,
            "sqnr_db": self._sqnr_interval(),
        }

    def _sqnr_interval(self) -> list[float] | None:
        ratios = self._ratios()
        if not ratios:
            return None
        worst = min(ratios, key=lambda name: ratios[name])
        signal, noise = (np.concatenate(each[worst]) for each in self._of_interest())
        if ratios[worst] == LEAST_DB:
            return None
        # What a sample adds to the logarithm of a quotient of two means, to first order.
        parts = ratios[worst] + 10 / math.log(10) * (signal / signal.mean() - noise / noise.mean())
        return mean_interval(parts, ratios[worst]).ci95 if len(parts) >= LEAST_SAMPLES else None

    @property
    def cosine(self) -> float | None:
        """Mean cosine similarity of the first output of numbers, sample by sample; None where none has any."""
        return _finite(np.mean(self.cosines)) if self.cosines else None

    @property
    def cosine_p01(self) -> float | None:
        """The cosine that all but the worst percent of the samples reach."""
        return _finite(np.percentile(self.cosines, 1)) if self.cosines else None

    @property
    def agreement_pct(self) -> float | None:
        """Share of samples with the same arg max, or of labels that are equal.

        None where the first output is neither a row of class scores nor labels, as a detector's boxes.
        """
        return 100 * self.agreed / self.compared if self.compared and not self.no_answers else None

    @property
    def expected_drop(self) -> float | None:
        """Points of top-1 that changed answers lose if the reference's probabilities are right; None without classes.

        Where the reference gives 51 % to its answer and 49 % to the other one, the change costs 0.02 of a right answer.
        Networks are rather too sure of themselves (C. Guo et al., 2017, arXiv:1706.04599): then this is too high.
        """
        return 100 * self.lost / self.scored if self.scored and not self.no_answers else None


def _without_same_infinities(wanted: Array, given: Array) -> tuple[Array, Array]:
    """Return numbers with zeros where both are the same infinity (masked scores), or NaN."""
    same = ~np.isfinite(wanted) & ((wanted == given) | (np.isnan(wanted) & np.isnan(given)))
    return np.where(same, 0, wanted), np.where(same, 0, given)


def _squares(wanted: Array, given: Array) -> Array:
    """Return the sum of squared differences by row, infinite where one of two numbers is not finite."""
    finite = np.isfinite(wanted) & np.isfinite(given)
    difference = np.where(finite, wanted, 0) - np.where(finite, given, 0)
    squares: Array = np.where(finite.all(1), (difference**2).sum(1), np.inf)
    return squares


def _cosines(wanted: Array, given: Array) -> list[float]:
    """Return the cosine of what is finite, by row: 1 where both are zero, 0 where one is."""
    wanted, given = (np.where(np.isfinite(each), each, 0) for each in (wanted, given))
    sizes = np.linalg.norm(wanted, axis=1), np.linalg.norm(given, axis=1)
    lengths = sizes[0] * sizes[1]
    cosines = (wanted * given).sum(1) / np.where(lengths == 0, 1, lengths)
    cosines[(sizes[0] == 0) & (sizes[1] == 0)] = 1
    return list(cosines)


def _probabilities(scores: Array) -> Array:
    """Return class scores [N, classes] as probabilities: as they are where they are some, else their softmax."""
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers: Array = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _finite(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None
