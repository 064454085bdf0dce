"""Unicode characters: from the letters of a character's name, tell its general category; 10 classes.

``GREEK SMALL LETTER ALPHA`` is Ll, ``TAMIL VOWEL SIGN I`` is Mc, ``BLACK CHESS KNIGHT`` is So. The text is computed
from `unicodedata.ucd_3_2_0`, version 3.2.0 of the Unicode Character Database (Unicode licence), which every Python
carries unchanged, so the data never changes. Left out are names that are computed from the code point (CJK, Hangul) and
names that are too long; rare categories are merged or dropped, and no class has more than `CLASS_LIMIT` samples.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any

import numpy as np

__all__ = ["calibration", "test", "train"]

Array = np.ndarray[Any, np.dtype[Any]]

CLASSES = {
    "Lu": ("Lu",),  # capital letter
    "Ll": ("Ll",),  # small letter
    "Lo": ("Lo",),  # other letter
    "Mn": ("Mn", "Me"),  # mark that takes no space of its own, or encloses
    "Mc": ("Mc",),  # mark that takes space
    "Nd": ("Nd",),  # decimal digit
    "No": ("No", "Nl"),  # other number
    "P": ("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"),  # punctuation
    "Sm": ("Sm",),  # mathematical symbol
    "So": ("So",),  # other symbol
}
CLASS_LIMIT = 900
COMPUTED = ("CJK", "HANGUL SYLLABLE")

LENGTH = 48
PADDING, START, FIRST = 0, 1, 2
VOCABULARY = 64
"""Token ids: 0 pads, 1 starts a text, 2 … 60 are the characters from space to Z in their ASCII order."""

TEST_SAMPLES = 1200
CALIBRATION_SAMPLES = 200


def train() -> dict[str, Array]:
    """Return the training samples.

    Returns:
        ``input_ids`` int64 [N, 48]: `START`, one id per character, `PADDING`. ``attention_mask`` int64 [N, 48]: 1 where
        there is a token, 0 where there is padding. ``y`` int64 [N]: the class, in the order of `CLASSES`.

    """
    return _samples(slice(TEST_SAMPLES, None))


def calibration() -> dict[str, Array]:
    """Return 200 of the training samples, for calibration: none of them is in the test split."""
    return _samples(slice(TEST_SAMPLES, TEST_SAMPLES + CALIBRATION_SAMPLES))


def test() -> dict[str, Array]:
    """Return the 1,200 test samples."""
    return _samples(slice(TEST_SAMPLES))


def _samples(split: slice) -> dict[str, Array]:
    samples = _names()[split]
    ids = np.full((len(samples), LENGTH), PADDING, np.int64)
    for row, (name, _) in zip(ids, samples, strict=True):
        tokens = [START, *(ord(character) - ord(" ") + FIRST for character in name)]
        row[: len(tokens)] = tokens
    return {
        "input_ids": ids,
        "attention_mask": (ids != PADDING).astype(np.int64),
        "y": np.array([label for _, label in samples], np.int64),
    }


@functools.cache
def _names() -> tuple[tuple[str, int], ...]:
    """Return names with their classes, shuffled; kept, because it takes a walk over all code points."""
    labels = {category: label for label, group in enumerate(CLASSES.values()) for category in group}
    database = unicodedata.ucd_3_2_0
    random = np.random.RandomState(0)  # frozen, unlike Generator: the same shuffle with every version of numpy (NEP 19)
    found: list[list[str]] = [[] for _ in CLASSES]
    for character in map(chr, range(0x110000)):
        name = database.name(character, "")
        label = labels.get(database.category(character))
        # Names that would have to be cut are left out: several are the same up to there, with different classes.
        if 0 < len(name) < LENGTH and label is not None and not name.startswith(COMPUTED):
            found[label].append(name)
    samples = [
        (names[index], label)
        for label, names in enumerate(found)
        for index in random.permutation(len(names))[:CLASS_LIMIT]
    ]
    return tuple(samples[index] for index in random.permutation(len(samples)))
