"""Sums whose bits do not depend on the order of what is added: integers, binned by exponent.

Float addition rounds, so that a sum depends on its order, and shards added up apart would not give the bits of one
pass. Here every term is an integer of 25 bits at its own power of two, added as an integer to one of a few int64 limbs
that are 2¹⁶ apart: after J. Demmel, H. D. Nguyen, "Fast reproducible floating-point summation", 2013 (ARITH 21).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
LIMBS = 32
SPACING = 16
"""Bits between limbs: terms take 25 + 15 bits, which leaves 23 for the number of terms, eight million."""
LOWEST = -208
"""Exponent of the first limb: 2⁻²⁰⁸ up to 2³⁰⁴ holds sums of squares of any float32 that is not almost nothing."""
DIGITS = 25
BLOCK = 64
"""Terms added at a time: splitting a short vector into integers costs more in calls than in work."""


class ExactSum:
    """A vector of running sums; each term is rounded to 25 bits (relative 2⁻²⁵), their addition is exact."""

    __slots__ = ("_limbs", "_waiting")

    def __init__(self, limbs: Array) -> None:
        """Continue from the `limbs` of a sum."""
        self._limbs = limbs
        self._waiting: list[Array] = []

    @classmethod
    def zeros(cls, length: int) -> ExactSum:
        """Return sums of nothing."""
        return cls(np.zeros((LIMBS, length), np.int64))

    @property
    def limbs(self) -> Array:
        """int64 [LIMBS, n]: the sum is ``Σ limbs[i] · 2^(LOWEST + SPACING·i)``."""
        if self._waiting:
            self._flush()
        return self._limbs

    def add(self, terms: Array) -> None:
        """Add finite terms, float64 [terms, n], to the sums; what is below 2⁻²⁰⁸ counts as zero."""
        self._waiting.append(terms)
        if sum(map(len, self._waiting)) >= BLOCK:
            self._flush()

    def merge(self, other: ExactSum) -> None:
        """Add another shard's sums."""
        self._limbs = self.limbs + other.limbs

    @property
    def values(self) -> Array:
        """The sums, float64 [n]."""
        powers = LOWEST + SPACING * np.arange(LIMBS)[:, None]
        total: Array = np.ldexp(self.limbs.astype(np.float64), powers).sum(axis=0)
        return total

    def _flush(self) -> None:
        mantissa, exponent = np.frexp(np.concatenate(self._waiting))
        exponent -= DIGITS + LOWEST
        limb = exponent // SPACING
        integers = np.rint(mantissa * 2.0**DIGITS).astype(np.int64) << (exponent - limb * SPACING)
        integers[limb < 0] = 0
        np.add.at(self._limbs, (np.clip(limb, 0, LIMBS - 1), np.arange(mantissa.shape[1])[None]), integers)
        self._waiting.clear()
