"""A sentence encoder: its samples, and its accuracy as rank correlation with human scores, kept pair by pair."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from onnxpress_calibration.sources.function import load_function

LOADERS = f"{os.environ['ONNXPRESS_REAL_DATA']}/load.py"


def calibration() -> dict[str, Any]:
    """Return every second sentence."""
    return {name: values[::2] for name, values in load_function(f"{LOADERS}:sts_calibration")().items()}


def evaluation() -> dict[str, Any]:
    """Return the sentences that `calibration` leaves."""
    return {name: values[1::2] for name, values in load_function(f"{LOADERS}:sts_calibration")().items()}


def sts(session: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the cosine similarity of each sentence pair of STS 2013 and 2015, and its human score."""
    return _similarities(session, every=1)


def tenth_of_sts(session: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the same of every tenth pair, for whom minutes are too long."""
    return _similarities(session, every=10)


def _similarities(session: Any, *, every: int) -> dict[str, Any]:  # noqa: ANN401
    score, left, right = (column[::every] for column in load_function(f"{LOADERS}:sts")())
    similarity = (_embed(session, left) * _embed(session, right)).sum(1)
    return {"metric": "spearman", "output": similarity, "labels": score}


def _embed(session: Any, sentences: list[str]) -> np.ndarray:  # noqa: ANN401
    """Return the mean of the last hidden state over the real tokens, of length one: [sentences, 384]."""
    tokens = load_function(f"{LOADERS}:tokens")
    parts = []
    for start in range(0, len(sentences), 32):
        feed = tokens(sentences[start : start + 32])
        (hidden,) = session.run(None, {value.name: feed[value.name] for value in session.get_inputs()})
        mask = feed["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        parts.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    return np.concatenate(parts)
