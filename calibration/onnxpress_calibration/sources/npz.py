"""Arrays in a ``.npz`` file, named like the model's inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnxpress_calibration.archives import Archive
from onnxpress_calibration.dataset import Array, one_length

CHUNK_BYTES = 1 << 26
"""Samples are read so many bytes at a time; whoever needs only the first of them reads no more."""


def accepts(text: str) -> bool:
    """Tell whether this is a path of ours; a missing file is reported by `read`."""
    return text.endswith(".npz")


def read(text: str) -> Iterator[dict[str, Array]]:
    """Yield the samples in chunks of about `CHUNK_BYTES`.

    Pickled objects are refused: they would run code.

    Raises:
        DataError: there is no such file, or it is damaged; says what is wrong with which array.
    """
    with Archive(Path(text), "data", "Write it with numpy.savez.") as archive:
        members = archive.arrays()
        if not members:
            raise archive.refusal("holds no arrays")
        stacked = [member for member in members if member.shape]
        alone = {member.name: archive.array(member) for member in members if not member.shape}
        one_length(text, {member.name: member.shape[0] for member in stacked})
        rows = max(CHUNK_BYTES // max(sum(member.row_bytes for member in stacked), 1), 1)
        for parts in zip(*(archive.rows(member, rows) for member in stacked), strict=True):
            yield alone | {member.name: part for member, part in zip(stacked, parts, strict=True)}
