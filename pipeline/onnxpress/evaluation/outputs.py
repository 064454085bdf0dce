"""Outputs of two models in one form, so that they can be compared: tensors, sequences, maps, and what a detector finds.

The number and the order of a detector's boxes depend on the data: they are matched, each with the nearest one, and a
box that only one of the models finds counts whole. Scores, labels and masks of a box go with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import ModelError

Array = np.ndarray[Any, np.dtype[Any]]
BOX = 4
"""Numbers of a box."""
MOST_PAIRS = 1 << 20
"""Of rows that are looked at when rows are matched."""
SHOWN_KEYS = 60
"""Letters of a map's keys in its name."""
ADVICE = "They cannot be compared: say what counts with --metric module:fn."


def tensors(outputs: Mapping[str, Any]) -> dict[str, Array]:
    """Return what a model gives as tensors by name.

    Entry 2 of a sequence ``s`` is ``s[2]``. A sequence of maps with the same keys (what ZipMap makes of class scores)
    is one tensor [samples, keys], a map one tensor [keys], in the order of the keys; they are part of its name. An
    optional value that is not there is left out.
    """
    return dict(_tensors(outputs))


def _tensors(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    for name, value in outputs.items():
        if isinstance(value, Mapping):
            yield from _tensors({name: [value]})
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            keys = sorted(value[0])
            if any(sorted(each) != keys for each in value):
                yield from _tensors({f"{name}[{index}]": each for index, each in enumerate(value)})
            else:
                shown = ", ".join(map(str, keys))[:SHOWN_KEYS]
                yield f"{name}{{{shown}}}", np.array([[each[key] for key in keys] for each in value])
        elif isinstance(value, list):
            yield from _tensors({f"{name}[{index}]": each for index, each in enumerate(value)})
        elif value is not None:
            yield name, np.asarray(value)


def detections(model: ir.Model) -> dict[str, int]:
    """Return the outputs behind a NonMaxSuppression that have a free axis, and the first such axis: it counts boxes."""
    behind: set[ir.Value] = set()
    for node in model.graph:
        if node.op_type == "NonMaxSuppression" or any(value in behind for value in node.inputs if value is not None):
            behind.update(node.outputs)
    batch = {str(value.shape[0]) for value in graph.inputs(model) if value.shape} - {"None"}
    found = {}
    for value in model.graph.outputs:
        axes = list(map(str, value.shape or ()))
        free = [index for index, axis in enumerate(axes) if not axis.isdigit() and (index or axis not in batch)]
        if value in behind and free:
            found[value.name or ""] = free[0]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One output of both models, of one shape."""

    name: str
    wanted: Array
    given: Array
    whole: bool = False
    """Whether rows were matched, so that they count together and are no samples."""

    @property
    def numbers(self) -> bool:
        """Whether these are floating-point numbers, of which the difference means something."""
        return _is_float(self.wanted)


def pairs(
    reference: Mapping[str, Array], outputs: Mapping[str, Array], found: Mapping[str, int], variant: str
) -> list[Pair]:
    """Bring the `tensors` of two models together.

    Args:
        reference: Those of the baseline.
        outputs: Those of the other model.
        found: The baseline's `detections`.
        variant: Name of the other model, for messages.

    Raises:
        ModelError: an output is missing or has another form than the baseline's.
    """
    made: dict[str, Pair] = {}
    boxes: dict[tuple[int, int], dict[str, tuple[Array, Array]]] = {}
    given = _with_entries_of(reference, outputs)
    for name, wanted in _with_entries_of(outputs, reference).items():
        if name not in given:
            raise ModelError(f"output {name!r}: {variant!r} has none of this name, only {sorted(outputs)}. {ADVICE}")
        other = given[name]
        axes = [axis for axis, sizes in enumerate(zip(wanted.shape, other.shape, strict=False)) if len(set(sizes)) > 1]
        if _is_float(wanted) > _is_float(other) or wanted.ndim != other.ndim or len(axes) > 1:
            described = [f"{value.dtype}[{', '.join(map(str, value.shape))}]" for value in (other, wanted)]
            raise ModelError(
                f"output {name!r}: {variant!r} gives {described[0]}, the baseline {described[1]}. {ADVICE}"
            )
        made[name] = Pair(name=name, wanted=wanted, given=other)
        axis = axes[0] if axes else found.get(name)
        if axis is not None:
            rows = _rows(wanted, axis), _rows(other, axis)
            boxes.setdefault((len(rows[0]), len(rows[1])), {})[name] = rows
    for group in boxes.values():
        made |= {pair.name: pair for pair in _matched(group)}
    return list(made.values())


def _with_entries_of(others: Mapping[str, Array], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Add the entries of a sequence that only another model's has: without rows."""
    entries = {name: value for name, value in others.items() if name.endswith("]") and value.ndim}
    return {**outputs, **{name: value[:0] for name, value in entries.items() if name not in outputs}}


def _rows(value: Array, axis: int) -> Array:
    moved = np.moveaxis(value, axis, 0)
    return moved.reshape(len(moved), math.prod(moved.shape[1:]))


def _matched(group: Mapping[str, tuple[Array, Array]]) -> Iterator[Pair]:
    """Put the rows of each output of a group in the order in which the rows of its boxes are nearest to each other."""
    floats = [rows for rows in group.values() if _is_float(rows[0])]
    key = next((rows for rows in floats if rows[0].shape[1] == BOX), floats[0] if floats else None)
    one, other = next(iter(group.values())) if key is None else key
    left, right = _nearest(one, other) if key is not None else _in_order(len(one), len(other))
    alone, extra = np.setdiff1d(np.arange(len(one)), left), np.setdiff1d(np.arange(len(other)), right)
    for name, (one, other) in group.items():
        if _is_float(one):
            missing, added = np.zeros((len(alone), one.shape[1])), np.zeros((len(extra), one.shape[1]))
            wanted, given = (
                np.concatenate([part.astype(np.float64) for part in parts])
                for parts in ((one[left], one[alone], added), (other[right], missing, other[extra]))
            )
        else:
            equal = one[left] == other[right]
            given = np.concatenate([equal, np.zeros((len(alone) + len(extra), one.shape[1]), bool)])
            wanted = np.ones_like(given)
        yield Pair(name=name, wanted=wanted, given=given, whole=True)


def _nearest(one: Array, other: Array) -> tuple[Array, Array]:
    """Return the rows of both that belong together: again and again the two nearest that are left."""
    if one.shape[0] * other.shape[0] > MOST_PAIRS:
        return _in_order(len(one), len(other))
    left, right = one.astype(np.float64), other.astype(np.float64)
    distances = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    rows, columns = np.unravel_index(np.argsort(distances, axis=None, kind="stable"), distances.shape)
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row not in chosen and column not in taken:
            chosen[row] = column
            taken.add(column)
            if len(chosen) == min(distances.shape):
                break
    return np.array(list(chosen), np.intp), np.array(list(chosen.values()), np.intp)


def _in_order(one: int, other: int) -> tuple[Array, Array]:
    both = np.arange(min(one, other))
    return both, both


def _is_float(value: Array) -> bool:
    return value.dtype.kind == "f" or "float" in value.dtype.name  # bfloat16 and float8 are of no kind of numpy's
