"""Handwritten digits: 1,797 grey images of 8x8 pixels by 13 people, 10 classes, enlarged to 32x32.

Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49, licence CC BY 4.0; the part that ships with scikit-learn (`sklearn.datasets.load_digits`). The
images are embedded in ``digits.npz`` as they are, so that only writing that file again (`embed`) needs scikit-learn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["calibration", "test", "train"]

Array = np.ndarray[Any, np.dtype[Any]]

FILE = Path(__file__).with_suffix(".npz")
SIZE = 32
TEST_SAMPLES = 700
CALIBRATION_SAMPLES = 200
BRIGHTEST = 16  # a pixel counts the set bits of a 4x4 block of the scan


def train() -> dict[str, Array]:
    """Return the 1,097 training images: ``input`` float32 [N, 1, 32, 32] in 0 … 1, and labels ``y`` int64 [N]."""
    return _samples(slice(TEST_SAMPLES, None))


def calibration() -> dict[str, Array]:
    """Return 200 of the training images, for calibration: none of them is in the test split."""
    return _samples(slice(TEST_SAMPLES, TEST_SAMPLES + CALIBRATION_SAMPLES))


def test() -> dict[str, Array]:
    """Return the 700 test images."""
    return _samples(slice(TEST_SAMPLES))


def _samples(split: slice) -> dict[str, Array]:
    with np.load(FILE) as data:
        images, labels = data["images"], data["y"]
    # RandomState is frozen, unlike Generator: the split stays the same with every version of numpy (NEP 19).
    chosen = np.random.RandomState(0).permutation(len(labels))[split]
    enlarge = _bilinear(images.shape[-1], SIZE)
    pixels = enlarge @ (images[chosen] / np.float32(BRIGHTEST)) @ enlarge.T
    return {"input": pixels[:, None], "y": labels[chosen].astype(np.int64)}


def _bilinear(size: int, enlarged: int) -> Array:
    """Return the float32 matrix [enlarged, size] of bilinear interpolation, pixel centres aligned, edges repeated.

    Its entries and the pixels are multiples of powers of two, so the product is exact in float32: the same bits on
    every machine.
    """
    centres = np.clip((np.arange(enlarged) + 0.5) * size / enlarged - 0.5, 0, size - 1)
    weights: Array = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(size)))
    return weights.astype(np.float32)


def embed() -> None:
    """Write ``digits.npz`` again from scikit-learn (`python -c "from … import digits; digits.embed()"`)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    np.savez_compressed(FILE, images=bunch.images.astype(np.uint8), y=bunch.target.astype(np.uint8))
