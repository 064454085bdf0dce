"""What the models are fed: real samples, or synthetic ones that say so. Every variant gets the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import ModelError
from onnxpress.session import Arrays
from onnxpress_calibration.dataset import Dataset, InputSpec

SAMPLES = 32
"""Samples that are cycled: enough that data-dependent operators and caches see variety."""
MAX_BYTES = 256 * 2**20
"""Fewer samples are used when so many would need more memory than this in every worker."""
SYNTHETIC_AXIS = 128
"""Size of a free axis (other than the batch) in synthetic samples."""

Specs = Mapping[str, InputSpec]
Ranges = Mapping[str, tuple[float, float]]
"""Low and high value by name of input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The samples of a benchmark."""

    kind: Literal["real", "synthetic"]
    ranged: bool = False
    """Whether synthetic values were drawn from the ranges of a profile."""
    samples: tuple[Arrays, ...]
    sha256: str
    batch: int
    """Samples in one run of the model as it is fed: 1, or the model's fixed batch size."""
    joinable: bool
    """Whether samples may be joined to larger batches: the batch axis is free and all other axes agree."""

    def save(self, path: Path) -> None:
        """Write the samples where workers read them: array ``I.J`` is input ``J`` of sample ``I``."""
        arrays = {f"{i}.{j}": value for i, sample in enumerate(self.samples) for j, value in enumerate(sample.values())}
        np.savez(path, allow_pickle=False, **arrays)


def prepare(
    models: Mapping[str, ir.Model], *, baseline: str, data: Dataset | None, ranges: Ranges | None = None, seed: int
) -> Inputs:
    """Choose the samples that all variants are measured with.

    Args:
        models: The variants' graphs.
        baseline: The one whose operators tell what synthetic integers mean.
        data: Real samples; None for synthetic ones.
        ranges: Values that synthetic samples are drawn from, by input; None for a standard normal distribution.
        seed: Of synthetic samples.

    Raises:
        ModelError: the variants do not take the same inputs, or an input cannot be fed.
        DataError: the data do not fit the models.

    """
    specs = common_specs({name: graph.input_specs(model) for name, model in models.items()}, baseline)
    if data is None:
        samples = synthetic(models[baseline], specs, seed, ranges or {})
    else:
        samples = ({name: batch[name] for name in specs} for batch in islice(data.batches(specs), SAMPLES))
    used = 0
    kept: list[Arrays] = []
    for sample in samples:
        used += sum(value.nbytes for value in sample.values())
        if kept and used > MAX_BYTES:
            break
        kept.append({name: _storable(value) for name, value in sample.items()})
    shapes = {tuple((name, value.shape) for name, value in sample.items()) for sample in kept}
    batched = [spec for spec in specs.values() if spec.shape]
    return Inputs(
        kind="synthetic" if data is None else "real",
        ranged=data is None and bool(ranges),
        samples=tuple(kept),
        sha256=_sha256(kept),
        batch=next((len(value) for value in kept[0].values() if value.ndim), 1),
        joinable=bool(batched) and len(shapes) == 1 and all(spec.shape[0] is None for spec in batched),
    )


def _storable(value: graph.Array) -> graph.Array:
    """Return an array as a file holds it without pickle: strings as numpy keeps them."""
    return np.asarray(value, str if value.dtype == object else value.dtype, order="C")


def _sha256(runs: list[Arrays]) -> str:
    """Hash what runs are fed; whole runs, as not every first axis need count samples (a recurrent state's does not)."""
    return Dataset(
        origin="benchmark", read=lambda: ({name: value[None] for name, value in run.items()} for run in runs)
    ).sha256


def common_specs(specs: Mapping[str, Specs], baseline: str) -> dict[str, InputSpec]:
    """Return what all variants accept: an axis that is fixed in one of them is fixed for all.

    Raises:
        ModelError: names, dtypes, ranks or fixed sizes differ.

    """
    common = dict(specs[baseline])
    if not common:
        raise ModelError(f"variant {baseline!r}: has no inputs, so there is nothing to feed it. It cannot be measured.")
    for variant, own in specs.items():
        if own.keys() != common.keys():
            raise ModelError(
                f"variant {variant!r}: its inputs are {sorted(own)}, those of {baseline!r} are {sorted(common)}. "
                "Only models with the same inputs can be compared."
            )
        for name, spec in own.items():
            axes = list(zip(common[name].shape, spec.shape, strict=False))
            differs = any(None not in pair and pair[0] != pair[1] for pair in axes)
            if spec.dtype != common[name].dtype or len(spec.shape) != len(common[name].shape) or differs:
                raise ModelError(
                    f"variant {variant!r}, input {name!r}: takes {_describe(spec)}, {baseline!r} takes "
                    f"{_describe(common[name])}. Only models with the same inputs can be compared."
                )
            merged = tuple(size if size is not None else other for size, other in axes)
            common[name] = replace(spec, shape=merged)
    return common


def synthetic(model: ir.Model, specs: Specs, seed: int, ranges: Ranges) -> Iterator[Arrays]:
    """Yield random samples, never zeros, which take short cuts in kernels that real data do not take.

    Numbers whose range is known are uniform in it. Of the others, floats are standard normal, bytes uniform over their
    range, integers that look up a table uniform over its rows, and other integers and booleans one, as in an attention
    mask. Strings are drawn from those that the operators reading them know.
    """
    random = np.random.default_rng(seed)
    values = {value.name: value for value in graph.inputs(model)}
    for _ in range(SAMPLES):
        yield {
            name: random.choice(np.array(graph.words(values[name])), _shape(spec))
            if spec.dtype == object
            else _random(random, spec, _table_rows(values[name]), ranges.get(name))
            for name, spec in specs.items()
        }


def _shape(spec: InputSpec) -> tuple[int, ...]:
    free = [1, *[SYNTHETIC_AXIS] * len(spec.shape)]
    return tuple(size if size is not None else free[axis] for axis, size in enumerate(spec.shape))


def _random(
    random: np.random.Generator, spec: InputSpec, rows: int | None, known: tuple[float, float] | None
) -> np.ndarray[Any, np.dtype[Any]]:
    shape = _shape(spec)
    if known is not None and spec.dtype.kind in "iuf":
        low, high = known
        if spec.dtype.kind == "f":
            return random.uniform(low, high, shape).astype(spec.dtype)
        return random.integers(int(low), int(high), shape, endpoint=True).astype(spec.dtype)
    if spec.dtype.kind in "iu" and rows is not None:
        return random.integers(0, rows, shape).astype(spec.dtype)
    if spec.dtype in (np.int8, np.uint8):
        limits = np.iinfo(spec.dtype)
        return random.integers(limits.min, limits.max, shape, endpoint=True).astype(spec.dtype)
    if spec.dtype.kind in "iub":
        return np.ones(shape, spec.dtype)
    return random.standard_normal(shape).astype(spec.dtype)


def _table_rows(value: ir.Value) -> int | None:
    """Return the rows of the smallest table that an input looks up directly; None when it is no index."""
    rows = []
    for node in graph.consumers(value):
        if node.op_type == "Gather" and node.inputs[1] is value:
            table = graph.shape(node.inputs[0])
            axis = graph.attribute_int(node, "axis", 0)
            if table and table[axis] is not None:
                rows.append(table[axis])
    return min((size for size in rows if size is not None), default=None)


def _describe(spec: InputSpec) -> str:
    return f"{spec.dtype}[{', '.join('?' if size is None else str(size) for size in spec.shape)}]"
