"""A profile: the activation statistics of one model on one data set, in memory and as a file."""

from __future__ import annotations

import json
from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxpress_calibration.archives import Archive
from onnxpress_calibration.channels import ChannelStatistics
from onnxpress_calibration.errors import DataError
from onnxpress_calibration.exact import LIMBS, ExactSum
from onnxpress_calibration.statistics import MOST_COUNT, Array, TensorStatistics

SCHEMA = "onnxpress.profile/2"
STORED: dict[str, type] = {
    "ranges": np.float64,
    "sizes": np.int64,
    "bins": np.uint16,
    "counts": np.int64,
    "lows": np.float32,
    "highs": np.float32,
    "sums": np.int64,
    "squares": np.int64,
}
"""The arrays of a profile's file."""
MOST_BYTES, MOST_TENSORS, MOST_AXES = 1 << 30, 1 << 16, 64
"""What a file may hold: no model comes near, and a damaged one must not take all memory."""

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Statistics by tensor name, and what they were taken from."""

    model_sha256: str
    data_sha256: str
    samples: int
    tensors: dict[str, TensorStatistics]

    @property
    def axes(self) -> dict[str, int]:
        """The tensors with statistics by channel, and the axis of their channels."""
        return {name: each.channels.axis for name, each in self.tensors.items() if each.channels is not None}

    def merged(self, other: Profile) -> Profile:
        """Return the profile of both shards together.

        Raises:
            DataError: the profiles are of different models or tensors.
        """
        alike = self.tensors.keys() == other.tensors.keys() and self.axes == other.axes
        if self.model_sha256 != other.model_sha256 or not alike:
            raise DataError("profiles: of different models or tensors; only shards of one profile can be merged.")
        tensors = deepcopy(self.tensors)
        for name, statistics in tensors.items():
            statistics.merge(other.tensors[name])
        shards = sorted({*self.data_sha256.split("+"), *other.data_sha256.split("+")})
        return Profile(
            model_sha256=self.model_sha256,
            data_sha256="+".join(shards),
            samples=self.samples + other.samples,
            tensors=tensors,
        )

    def write(self, path: Path) -> None:
        """Write the profile; only occupied bins are stored, so that a file has a few kilobytes per tensor."""
        names, split = sorted(self.tensors), sorted(self.axes)
        occupied = [np.flatnonzero(self.tensors[name].counts) for name in names]
        channels = [each for name in split if (each := self.tensors[name].channels) is not None]
        header = {
            "schema": SCHEMA,
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
            "samples": self.samples,
            "tensors": names,
            "channels": [
                {"tensor": name, "axis": each.axis, "count": each.count, "size": len(each.low)}
                for name, each in zip(split, channels, strict=True)
            ],
        }
        with path.open("wb") as stream:
            np.savez_compressed(
                stream,
                header=np.array(json.dumps(header, sort_keys=True)),
                ranges=np.array([[self.tensors[n].low, self.tensors[n].high] for n in names], np.float64),
                sizes=np.array([len(bins) for bins in occupied], np.int64),
                bins=_joined(occupied, np.uint16),
                counts=_joined([self.tensors[n].counts[b] for n, b in zip(names, occupied, strict=True)], np.int64),
                lows=_joined([each.low for each in channels], np.float32),
                highs=_joined([each.high for each in channels], np.float32),
                sums=_joined([each.sums.limbs.T for each in channels], np.int64),
                squares=_joined([each.squares.limbs.T for each in channels], np.int64),
            )

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a profile.

        Raises:
            DataError: not a profile, or of another version.
        """
        with Archive(path, "profile", "Make it again with `compress profile`.") as archive:
            members = {member.name: member for member in archive.arrays()}
            if sum(info.file_size for info in archive.members.values()) > MOST_BYTES:
                raise archive.refusal(f"holds more than {MOST_BYTES:,} bytes")
            try:
                header = _Header.parse(str(archive.array(members["header"])))
                arrays = {name: archive.array(members[name]) for name in STORED}
                return header.profile(arrays)
            except (KeyError, ValueError, RecursionError) as error:
                raise archive.refusal(f"is damaged, or no profile ({error})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What a profile's file says of its arrays; nothing in it is believed before it was checked."""

    model_sha256: str
    data_sha256: str
    samples: int
    tensors: tuple[str, ...]
    channels: tuple[_Split, ...]

    @classmethod
    def parse(cls, text: str) -> _Header:
        """Read the JSON.

        Raises:
            ValueError: it is none, of another version, or a value is not what it must be.
        """
        given = json.loads(text)
        schema = given.get("schema") if isinstance(given, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"schema {schema!r}, this version reads {SCHEMA!r}")
        tensors = tuple(_expect(given, "tensors", list))
        known = {name for name in tensors if isinstance(name, str)}
        if len(known) < len(tensors):
            raise ValueError("tensors: not a list of different names")
        if len(tensors) > MOST_TENSORS:
            raise ValueError(f"tensors: {len(tensors):,} names, at most {MOST_TENSORS:,} are read")
        channels = tuple(_Split.parse(each, known) for each in _expect(given, "channels", list))
        if len({each.tensor for each in channels}) < len(channels):
            raise ValueError("channels: a tensor is named twice")
        return cls(
            model_sha256=_expect(given, "model_sha256", str),
            data_sha256=_expect(given, "data_sha256", str),
            samples=_count(given, "samples"),
            tensors=tensors,
            channels=channels,
        )

    def profile(self, arrays: dict[str, Array]) -> Profile:
        """Give each tensor its part of the arrays.

        Raises:
            ValueError: an array has another type or length than the header says, or holds what no statistics are.
        """
        split, occupied = sum(each.size for each in self.channels), int(arrays["sizes"].astype(float).sum())
        lengths = {"ranges": (len(self.tensors), 2), "sizes": (len(self.tensors),)}
        lengths |= dict.fromkeys(("bins", "counts"), (occupied,)) | dict.fromkeys(("lows", "highs"), (split,))
        lengths |= dict.fromkeys(("sums", "squares"), (split, LIMBS))
        for name, dtype in STORED.items():
            if arrays[name].dtype != dtype or arrays[name].shape != lengths[name]:
                found = f"{arrays[name].dtype} {list(arrays[name].shape)}"
                raise ValueError(f"{name}: {found}, not {np.dtype(dtype)} {list(lengths[name])}")
        if (arrays["sizes"] < 0).any():
            raise ValueError("sizes: a negative length")
        tensors, ends = {}, np.cumsum(arrays["sizes"])
        for name, (low, high), size, end in zip(self.tensors, arrays["ranges"], arrays["sizes"], ends, strict=True):
            part = slice(end - size, end)
            try:
                tensors[name] = TensorStatistics.restored(
                    float(low), float(high), arrays["bins"][part], arrays["counts"][part]
                )
            except ValueError as error:
                raise ValueError(f"tensor {name!r}: {error}") from error
        start = 0
        for each in self.channels:
            part = slice(start, start + each.size)
            low, high = arrays["lows"][part], arrays["highs"][part]
            if each.size and not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
                raise ValueError(f"tensor {each.tensor!r}: the ranges of its channels are not finite, or not in order")
            tensors[each.tensor].channels = ChannelStatistics(
                axis=each.axis,
                count=each.count,
                low=low,
                high=high,
                sums=ExactSum(arrays["sums"][part].T),
                squares=ExactSum(arrays["squares"][part].T),
            )
            start += each.size
        return Profile(
            model_sha256=self.model_sha256, data_sha256=self.data_sha256, samples=self.samples, tensors=tensors
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """A tensor with statistics by channel."""

    tensor: str
    axis: int
    count: int
    size: int

    @classmethod
    def parse(cls, given: object, tensors: Collection[str]) -> _Split:
        if not isinstance(given, dict):
            raise ValueError("channels: not a list of mappings")
        split = cls(
            tensor=_expect(given, "tensor", str),
            axis=_expect(given, "axis", int),
            count=_count(given, "count"),
            size=_count(given, "size"),
        )
        if split.tensor not in tensors or not -MOST_AXES <= split.axis < MOST_AXES or (split.count and not split.size):
            raise ValueError(f"channels: {split.tensor!r} with {split.size} channels on axis {split.axis}")
        return split


def _expect(given: dict[str, Any], key: str, kind: type[Kind]) -> Kind:
    value = given.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key}: {type(value).__name__} in place of {kind.__name__}")
    return value


def _count(given: dict[str, Any], key: str) -> int:
    value = _expect(given, key, int)
    if not 0 <= value < MOST_COUNT:
        raise ValueError(f"{key}: {value} is no count")
    return value


def _joined(arrays: list[Array], dtype: type) -> Array:
    """Concatenate; no arrays make an empty one."""
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.empty(0, dtype)
