"""A data set: samples for a model, read as a stream, checked against what the model expects.

A source yields dicts of arrays named like the model's inputs, samples on axis 0, with the labels (where there are any)
under ``y``. A data set can be read many times; nothing here keeps more than one chunk of it in memory, except what the
source itself holds.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import numpy as np

from onnxpress_calibration.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]
LABELS = "y"
ONLY_INPUT = ""
"""Name of an array for a model with one input, whatever that is called."""
TEXT = "USTO"
"""Kinds of arrays that hold strings: of one length, bytes, of any length, objects."""
MOST_BYTES = 1 << 28
"""Of samples that are held in memory."""
SPLIT_AT_ONCE = 256
"""Samples that are copied at a time when data is split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a model expects at one of its inputs."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    """Axis sizes; None where any size will do. Axis 0 counts the samples."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples that can be read again and again."""

    origin: str
    """What the user wrote, for messages and reports."""
    read: Callable[[], Iterable[Mapping[str, Array]]]
    """Start reading: yields chunks, each a dict of arrays with any number of samples on axis 0."""
    limit: int | None = None
    """Use only the first so many samples."""

    @cached_property
    def sha256(self) -> str:
        """Hash of the samples themselves: names, dtypes, shapes and bytes, whatever the chunks or the file.

        Whoever reads all of the data makes it in passing, so that it seldom takes another reading.
        """
        deque(self.samples(), maxlen=0)
        return str(self.__dict__["sha256"])

    def input_hashes(self) -> Iterator[bytes]:
        """Yield a hash of each sample without its label: equal inputs, equal hashes, whatever the data set."""
        for sample in self.samples():
            digest = hashlib.sha256()
            _add(digest, {name: value for name, value in sample.items() if name != LABELS})
            yield digest.digest()

    @cached_property
    def count(self) -> int:
        """Number of samples; made in passing like `sha256`."""
        deque(self.samples(), maxlen=0)
        return int(self.__dict__["count"])

    def drawn(self, inputs: Mapping[str, InputSpec], count: int) -> Dataset:
        """Return a part of this data, held in memory: the ``count`` samples whose hashes are lowest, one by one.

        Which they are, and their order, does not depend on the order of the data, and what is drawn from a part are the
        first samples of that part. This data is read when the part is, once. A model with a fixed batch gets whole
        batches. Of large samples there are fewer: what `MOST_BYTES` hold, but at least one.

        Raises (when the part is read):
            DataError: as `batches` does.
        """

        @cache
        def lowest() -> list[dict[str, Array]]:
            found: dict[bytes, dict[str, Array]] = {}
            position, size, held = 0, _batch_size(inputs, 1), 0
            for piece in self._pieces(size, inputs):
                checked = self._checked(piece, inputs, position)
                position += samples_in(piece)
                digest = hashlib.sha256()
                for name in sorted(checked):
                    digest.update(name.encode() + _content(checked[name]))
                if (key := digest.digest()) in found:
                    continue
                found[key] = {name: value.copy() for name, value in piece.items()}
                held += _bytes(found[key])
                while len(found) > 1 and (len(found) > count // size or held > MOST_BYTES):
                    held -= _bytes(found.pop(max(found)))
            if position == 0:
                raise self._empty()
            return [found[key] for key in sorted(found)]

        return Dataset(origin=self.origin, read=lowest)

    def split(self, inputs: Mapping[str, InputSpec], share: float) -> tuple[Dataset, Dataset]:
        """Return (the rest, a share of this data that is spread over all of it).

        Of each ``1 / share`` samples in a row one is taken, at a place drawn at random but always alike, in the first
        row the first one. Thus every reader of the same data takes the same ones, without counting them before. A model
        with a fixed batch gets whole batches.

        Raises (when the parts are read):
            DataError: as `batches` does.
        """
        exact, unit = Fraction(share).limit_denominator(1000), _batch_size(inputs, 1)

        def part(*, taken: bool) -> Dataset:
            def read() -> Iterator[dict[str, Array]]:
                position = 0
                for piece in self._pieces(_batch_size(inputs, SPLIT_AT_ONCE), inputs):
                    numbers = range(position, position + samples_in(piece))
                    for row in range(0, len(numbers), unit):  # here, where the number of a sample is known
                        one = _rows(piece, row, row + unit)
                        self._checked(one, inputs, numbers[row])
                    position = numbers.stop
                    rows = [row for row, n in enumerate(numbers) if _is_taken(n // unit, exact) == taken]
                    if rows:
                        yield {name: value[rows] if value.ndim else value for name, value in piece.items()}

            return Dataset(origin=self.origin, read=read)

        return part(taken=False), part(taken=True)

    def samples(self) -> Iterator[dict[str, Array]]:
        """Yield one sample at a time, each array with a first axis of 1 (labels too)."""
        return self._pieces(1)

    def batches(self, inputs: Mapping[str, InputSpec], size: int = 1) -> Iterator[dict[str, Array]]:
        """Yield checked batches of at most ``size`` samples: the model's inputs, and ``y`` where the data has labels.

        A model whose inputs have a fixed first axis gets batches of exactly that size (a remainder is an error).
        Chunks of a source are split, never joined, because their other axes may differ. An array with one axis more
        than its input (a recurrent state ``[N, 2, 1, 128]``, a number per sample ``[N]``) holds whole inputs: then
        batches have one sample, without that axis.

        Args:
            inputs: What the model expects, by name.
            size: Samples a batch.

        Raises:
            DataError: no samples, a missing input, a wrong dtype or shape, NaN or infinity; with the sample's number.

        """
        position = 0
        for piece in self._pieces(_batch_size(inputs, size), inputs):
            length = samples_in(piece)
            yield self._checked(piece, inputs, position)
            position += length
        if position == 0:
            raise self._empty()

    def _empty(self) -> DataError:
        return DataError(f"data {self.origin}: holds no samples. At least one is needed.")

    def _pieces(self, size: int, inputs: Mapping[str, InputSpec] | None = None) -> Iterator[dict[str, Array]]:
        count, left, digest = 0, self.limit, None if "sha256" in self.__dict__ else hashlib.sha256()
        for chunk in () if left == 0 else self._chunks(_batch_size(inputs or {}, 1)):
            length = self._chunk_length(chunk)
            one_by_one = any(_is_whole(chunk[name], spec) for name, spec in (inputs or {}).items() if name in chunk)
            step = 1 if one_by_one else size
            for start in range(0, length, step):
                stop = min(start + step, length, length if left is None else start + left)
                if digest is not None:
                    for row in range(start, stop):
                        _add(digest, _rows(chunk, row, row + 1))
                yield _rows(chunk, start, stop)
                count += stop - start
                left = None if left is None else left - (stop - start)
                if left == 0:
                    break
            if left == 0:
                break
        if digest is not None:
            self.__dict__.update(sha256=digest.hexdigest(), count=count)

    def _chunks(self, unit: int) -> Iterator[Mapping[str, Array]]:
        """Yield the source's chunks; what is left over of a model's fixed batch of ``unit`` joins the next chunk."""
        rest: dict[str, Array] = {}
        for given in self.read():
            chunk, length = given, self._chunk_length(given)
            if rest and _alike(rest, given):
                chunk = {
                    name: np.concatenate([rest[name], given[name]]) if given[name].ndim else given[name]
                    for name in given
                }
                length = self._chunk_length(chunk)
            elif rest:
                yield rest
            whole = length - length % unit
            rest = _rows(chunk, whole, length) if whole < length else {}
            if whole or not length:
                yield _rows(chunk, 0, whole) if rest else chunk
        if rest:
            yield rest

    def _chunk_length(self, chunk: Mapping[str, Array]) -> int:
        given = "" if isinstance(chunk, Mapping) else type(chunk).__name__
        for name, value in () if given else chunk.items():
            if not isinstance(value, np.ndarray):
                given = f"a dict in which {name!r} is a {type(value).__name__}"
        if given:
            raise DataError(f"data {self.origin}: yields {given}, not a dict of numpy arrays named like the inputs.")
        return one_length(self.origin, {name: len(value) for name, value in chunk.items() if value.ndim})

    def _checked(self, batch: dict[str, Array], inputs: Mapping[str, InputSpec], position: int) -> dict[str, Array]:
        where = f"data {self.origin}, sample {position}"
        if ONLY_INPUT in batch:
            if len(inputs) != 1:
                raise DataError(
                    f"data {self.origin}: does not say which of the model's inputs it is for ({sorted(inputs)}). "
                    "Add `input: NAME` to its preprocessing."
                )
            batch = {next(iter(inputs)) if name == ONLY_INPUT else name: value for name, value in batch.items()}
        missing = sorted(inputs.keys() - batch.keys())
        if missing:
            raise DataError(
                f"data {self.origin}: has no array {missing[0]!r}. The model's inputs are {sorted(inputs)}, "
                f"the data has {sorted(batch)}: rename its arrays."
            )
        checked = {name: _matching(batch[name], spec, f"{where}, input {name!r}") for name, spec in inputs.items()}
        if LABELS in batch and LABELS not in inputs:
            checked[LABELS] = batch[LABELS]
        return checked


def one_length(origin: str, lengths: Mapping[str, int]) -> int:
    """Return the length that all arrays have on axis 0, where the samples are counted.

    Raises:
        DataError: there are none, or they differ.
    """
    if not lengths:
        raise DataError(f"data {origin}: holds no arrays with samples on axis 0.")
    if len(set(lengths.values())) > 1:
        raise DataError(f"data {origin}: arrays of different length {dict(lengths)}. Axis 0 counts the samples.")
    return next(iter(lengths.values()))


def _is_taken(number: int, share: Fraction) -> bool:
    if share == 0:
        return False
    row = math.floor(number * share)
    first, end = math.ceil(row / share), math.ceil((row + 1) / share)
    return number == (np.random.default_rng([1, row]).integers(first, end) if row else 0)


def _batch_size(inputs: Mapping[str, InputSpec], size: int) -> int:
    """Return the samples of a batch: those a model is fixed to, else as many as asked for.

    Raises:
        DataError: the model is fixed to batches of no samples.
    """
    empty = next((name for name, spec in inputs.items() if spec.shape and spec.shape[0] == 0), None)
    if empty is not None:
        raise DataError(
            f"model input {empty!r}: is fixed at 0 samples, so no data fits. Export it with a free first axis."
        )
    fixed = {spec.shape[0] for spec in inputs.values() if spec.shape and spec.shape[0] is not None}
    return int(next(iter(fixed), size)) if len(fixed) == 1 else size


def _is_whole(value: Array, spec: InputSpec) -> bool:
    """Tell whether an array holds, on its first axis, whole inputs of the model."""
    return value.ndim == len(spec.shape) + 1


def _matching(value: Array, spec: InputSpec, where: str) -> Array:
    value = np.asarray(value[0]) if _is_whole(value, spec) and len(value) == 1 else value
    if spec.dtype == object and value.dtype.kind in TEXT:
        value = _texts(value, where)
    if value.dtype != spec.dtype:
        if value.dtype.kind != spec.dtype.kind or not np.can_cast(value.dtype, spec.dtype, "same_kind"):
            raise DataError(f"{where}: dtype {value.dtype}, the model expects {spec.dtype}. Convert the array.")
        with np.errstate(over="ignore"):
            converted = value.astype(spec.dtype)
        if (converted != value).any() and not np.isnan(value).any():  # as anywhere, NaN is told below
            raise DataError(
                f"{where}: dtype {value.dtype}, the model expects {spec.dtype}, which cannot hold its values. Convert "
                f"the array as the service will: astype('{spec.dtype}')."
            )
        value = converted
    expected = "x".join("?" if size is None else str(size) for size in spec.shape)
    fits = value.ndim == len(spec.shape) and all(
        size is None or size == given for size, given in zip(spec.shape, value.shape, strict=True)
    )
    if not fits:
        given = "x".join(map(str, value.shape))
        raise DataError(f"{where}: shape {given}, the model expects {expected} (? is free; axis 0 counts samples).")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise DataError(f"{where}: holds NaN or infinity. Clean the data: statistics of it would mean nothing.")
    return value


def _texts(value: Array, where: str) -> Array:
    """Return strings, however numpy keeps them, as the objects of type str that onnxruntime takes and gives."""
    texts = value.astype(object)
    for position, each in enumerate(texts.flat):
        if isinstance(each, bytes):
            try:
                texts.flat[position] = each.decode()
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: {each[:20]!r} is no UTF-8 text. Decode it as the service will.") from error
        elif not isinstance(each, str):
            raise DataError(f"{where}: holds {each!r} of type {type(each).__name__}, the model expects strings.")
    return texts


def samples_in(batch: Mapping[str, Array]) -> int:
    """Return how many samples a batch holds; a recurrent state's first axis may be larger, and scalars have none."""
    return min(len(value) for value in batch.values() if value.ndim)


def _bytes(sample: Mapping[str, Array]) -> int:
    return sum(value.nbytes for value in sample.values())


def _alike(left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    """Tell whether two chunks differ in nothing but their samples."""
    described = [{name: (value.dtype, value.shape[1:]) for name, value in chunk.items()} for chunk in (left, right)]
    return described[0] == described[1]


def _rows(chunk: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
    return {name: value[start:stop] if value.ndim else value for name, value in chunk.items()}


def _add(digest: hashlib._Hash, sample: Mapping[str, Array]) -> None:
    for name in sorted(sample):
        value = sample[name]
        kind = "text" if value.dtype.kind in TEXT else value.dtype.str  # of any length, or as objects: the same text
        digest.update(f"{name} {kind} {value.shape}\n".encode())
        digest.update(_content(value))


def _content(value: Array) -> bytes:
    """Return the bytes of an array; those of objects would be addresses."""
    if value.dtype.kind not in TEXT:
        return np.ascontiguousarray(value).tobytes()
    texts = [each if isinstance(each, bytes) else str(each).encode(errors="surrogatepass") for each in value.flat]
    return b"".join(b"%d %b" % (len(text), text) for text in texts)
