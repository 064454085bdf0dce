"""A profile: the activation statistics of one model on one data set, in memory and as a file."""

from __future__ import annotations

import json
import zipfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxpress_calibration.channels import ChannelStatistics
from onnxpress_calibration.errors import DataError
from onnxpress_calibration.exact import ExactSum
from onnxpress_calibration.statistics import Array, TensorStatistics

SCHEMA = "onnxpress.profile/2"


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
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                arrays = {name: file[name] for name in file.files if name != "header"}
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(
                f"profile {path}: cannot be read ({error}). Make it again with `compress profile`."
            ) from error
        if header.get("schema") != SCHEMA:
            raise DataError(
                f"profile {path}: schema {header.get('schema')!r}, this version reads {SCHEMA!r}. Make it again."
            )
        tensors, start = {}, 0
        for name, (low, high), size in zip(header["tensors"], arrays["ranges"], arrays["sizes"], strict=True):
            statistics = tensors[name] = TensorStatistics()
            statistics.low, statistics.high = float(low), float(high)
            part = slice(start, start + size)
            statistics.counts[arrays["bins"][part]] = arrays["counts"][part]
            start += size
        start = 0
        for each in header["channels"]:
            part = slice(start, start + each["size"])
            tensors[each["tensor"]].channels = ChannelStatistics(
                axis=each["axis"],
                count=each["count"],
                low=arrays["lows"][part],
                high=arrays["highs"][part],
                sums=ExactSum(np.ascontiguousarray(arrays["sums"][part].T)),
                squares=ExactSum(np.ascontiguousarray(arrays["squares"][part].T)),
            )
            start += each["size"]
        return cls(
            model_sha256=header["model_sha256"],
            data_sha256=header["data_sha256"],
            samples=header["samples"],
            tensors=tensors,
        )


def _joined(arrays: list[Array], dtype: type) -> Array:
    """Concatenate; no arrays make an empty one."""
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.empty(0, dtype)
