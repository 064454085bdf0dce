"""A profile: the activation statistics of one model on one data set, in memory and as a file."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxpress_calibration.errors import DataError
from onnxpress_calibration.statistics import BINS, TensorStatistics

SCHEMA = "onnxpress.profile/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Statistics by tensor name, and what they were taken from."""

    model_sha256: str
    data_sha256: str
    samples: int
    tensors: dict[str, TensorStatistics]

    def merged(self, other: Profile) -> Profile:
        """Return the profile of both shards together.

        Raises:
            DataError: the profiles are of different models or tensors.
        """
        if self.model_sha256 != other.model_sha256 or self.tensors.keys() != other.tensors.keys():
            raise DataError("profiles: of different models or tensors; only shards of one profile can be merged.")
        tensors = {}
        for name, mine in self.tensors.items():
            tensors[name] = TensorStatistics(low=mine.low, high=mine.high, counts=mine.counts.copy())
            tensors[name].merge(other.tensors[name])
        shards = sorted({*self.data_sha256.split("+"), *other.data_sha256.split("+")})
        return Profile(
            model_sha256=self.model_sha256,
            data_sha256="+".join(shards),
            samples=self.samples + other.samples,
            tensors=tensors,
        )

    def write(self, path: Path) -> None:
        """Write the profile; only occupied bins are stored, so that a file has a few kilobytes per tensor."""
        names = sorted(self.tensors)
        occupied = [np.flatnonzero(self.tensors[name].counts) for name in names]
        header = {"schema": SCHEMA, "model_sha256": self.model_sha256, "data_sha256": self.data_sha256}
        with path.open("wb") as stream:
            np.savez_compressed(
                stream,
                header=np.array(json.dumps(header | {"samples": self.samples, "tensors": names}, sort_keys=True)),
                ranges=np.array([[self.tensors[n].low, self.tensors[n].high] for n in names], np.float64),
                sizes=np.array([len(bins) for bins in occupied], np.int64),
                bins=np.concatenate([*occupied, np.empty(0, np.int64)]).astype(np.uint16),
                counts=np.concatenate(
                    [
                        *(self.tensors[n].counts[bins] for n, bins in zip(names, occupied, strict=True)),
                        np.empty(0, np.int64),
                    ]
                ),
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
                ranges, sizes, bins, values = (file[name] for name in ("ranges", "sizes", "bins", "counts"))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(
                f"profile {path}: cannot be read ({error}). Make it again with `compress profile`."
            ) from error
        if header.get("schema") != SCHEMA:
            raise DataError(
                f"profile {path}: schema {header.get('schema')!r}, this version reads {SCHEMA!r}. Make it again."
            )
        tensors, start = {}, 0
        for name, (low, high), size in zip(header["tensors"], ranges, sizes, strict=True):
            counts = np.zeros(BINS, np.int64)
            counts[bins[start : start + size]] = values[start : start + size]
            tensors[name] = TensorStatistics(low=float(low), high=float(high), counts=counts)
            start += size
        return cls(
            model_sha256=header["model_sha256"],
            data_sha256=header["data_sha256"],
            samples=header["samples"],
            tensors=tensors,
        )
