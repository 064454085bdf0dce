"""How close a compressed model's outputs are to the float model's, without labels; one pass, constant memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxpress.evaluation.metrics import mean
from onnxpress.evaluation.paired import LEAST_SAMPLES, percentile_interval, value_interval
from onnxpress.intervals import mean_interval, share_interval

Array = np.ndarray[Any, np.dtype[Any]]


MASK = "attention_mask"
"""The name that transformers' exporters give the input [N, L] that is 0 at padding."""


def without_padding(outputs: Mapping[str, Array], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs with zeros at padding: what an output [N, L, …] holds there means nothing, in float neither.

    Args:
        outputs: By name.
        feeds: What the model was fed; without a `MASK` nothing is padding.
    """
    mask = feeds.get(MASK)
    if mask is None or mask.ndim != 2:
        return dict(outputs)
    kept = mask > 0
    return {
        name: np.where(kept.reshape(*kept.shape, *[1] * (value.ndim - 2)), value, value.dtype.type(0))
        if value.shape[:2] == kept.shape
        else value
        for name, value in outputs.items()
    }


@dataclass(slots=True, kw_only=True)
class Fidelity:
    """Sums over all samples seen so far, per output."""

    signal: dict[str, list[Array]] = field(default_factory=dict)
    """Squares of each output, summed by sample, by batch."""
    noise: dict[str, list[Array]] = field(default_factory=dict)
    """Squares of the differences."""
    cosines: list[float] = field(default_factory=list)
    agreed: int = 0
    non_finite: int = 0
    """Output values that are NaN or infinite."""
    compared: int = 0
    """Samples whose first output is a row of class scores."""
    lost: float = 0.0
    """Probability of the reference's class minus that of the given class, as the reference has them; the sum."""

    def update(self, reference: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Compare the outputs of one batch, samples on axis 0."""
        for index, (name, expected) in enumerate(reference.items()):
            if expected.dtype.kind != "f":
                continue
            self.non_finite += int(np.count_nonzero(~np.isfinite(outputs[name])))
            wanted = expected.reshape(len(expected) if expected.ndim else 1, -1).astype(np.float64)
            given = outputs[name].reshape(wanted.shape).astype(np.float64)
            self.signal.setdefault(name, []).append((wanted**2).sum(1))
            self.noise.setdefault(name, []).append(((wanted - given) ** 2).sum(1))
            if index == 0:
                lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(given, axis=1)
                dots = (wanted * given).sum(1)
                self.cosines += np.where(lengths > 0, dots / np.where(lengths > 0, lengths, 1), 1.0).tolist()
                if expected.ndim == 2 and expected.shape[1] > 1:
                    self.agreed += int((wanted.argmax(1) == given.argmax(1)).sum())
                    chances = _probabilities(wanted)
                    self.lost += float((chances.max(1) - chances[np.arange(len(given)), given.argmax(1)]).sum())
                    self.compared += len(wanted)

    @property
    def sqnr_db(self) -> float | None:
        """Signal-to-quantization-noise ratio of the worst output, dB; None without float outputs or without noise."""
        return min(self._ratios().values(), default=None)

    def _ratios(self) -> dict[str, float]:
        sums = {
            name: (float(np.concatenate(each).sum()), float(np.concatenate(self.noise[name]).sum()))
            for name, each in self.signal.items()
        }
        return {
            name: 10 * (math.log10(signal) - math.log10(noise))
            for name, (signal, noise) in sums.items()
            if signal > 0 and noise > 0
        }

    def intervals(self) -> dict[str, list[float] | None]:
        """Return the 95 % intervals of ``agreement_pct, cosine, cosine_p01, sqnr_db``; None where there is none."""
        cosines = np.array(self.cosines)
        known = len(cosines) > 0 and bool(np.isfinite(cosines).all())
        agreed = [100 * end for end in share_interval(self.agreed, self.compared)] if self.compared else None
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
        signal, noise = np.concatenate(self.signal[worst]), np.concatenate(self.noise[worst])
        # What a sample adds to the logarithm of a quotient of two means, to first order.
        parts = ratios[worst] + 10 / math.log(10) * (signal / signal.mean() - noise / noise.mean())
        return mean_interval(parts, ratios[worst]).ci95 if len(parts) >= LEAST_SAMPLES else None

    @property
    def cosine(self) -> float | None:
        """Mean cosine similarity of the first output, sample by sample; None where outputs are no numbers."""
        return _finite(np.mean(self.cosines)) if self.cosines else None

    @property
    def cosine_p01(self) -> float | None:
        """The cosine that all but the worst percent of the samples reach."""
        return _finite(np.percentile(self.cosines, 1)) if self.cosines else None

    @property
    def agreement_pct(self) -> float | None:
        """Share of samples with the same arg max; None where the first output is no row of class scores."""
        return 100 * self.agreed / self.compared if self.compared else None

    @property
    def expected_drop(self) -> float | None:
        """Points of top-1 that changed answers lose if the reference's probabilities are right; None without classes.

        Where the reference gives 51 % to its answer and 49 % to the other one, the change costs 0.02 of a right answer.
        Networks are rather too sure of themselves (C. Guo et al., 2017, arXiv:1706.04599): then this is too high.
        """
        return 100 * self.lost / self.compared if self.compared else None


def _probabilities(scores: Array) -> Array:
    """Return class scores [N, classes] as probabilities: as they are where they are some, else their softmax."""
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers: Array = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _finite(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None
