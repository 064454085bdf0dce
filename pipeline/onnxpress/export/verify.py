"""Proof that an exported model computes what its source computes: both are run on the same random inputs.

Batch sizes 1, 2 and 7, and two more sizes of every other dynamic axis, because exporters fix axes silently: a model
that is right on the shape it was traced with is not yet right.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.errors import ModelError
from onnxpress.evaluation.outputs import tensors
from onnxpress.export.inputs import InputArgument, batch_words, random_arrays
from onnxpress.graph import Array
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import TEXT

Reference = Callable[[Mapping[str, Array]], Sequence[Array]]
"""Runs the source: inputs by name -> outputs in the order of the model's outputs."""

BATCHES = (1, 2, 7)
SIZES_PER_AXIS = 2
TOLERANCE = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-4}
"""Absolute; relative ten times that. Kernels sum in different orders, and float32 is what most of them compute in."""


TINY = 1e-12
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was compared, and the largest error found."""

    against: str
    """What the model was compared with."""
    max_abs_error: float
    max_rel_error: float
    """The largest error of an output, as a share of that output's largest absolute value."""
    shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    """The shapes of the inputs, by name, that were run."""


def verify(
    model: ir.Model,
    reference: Reference,
    arguments: Sequence[InputArgument],
    sizes: Mapping[str, int],
    *,
    against: str,
    atol: float | None = None,
    rtol: float | None = None,
) -> Verification:
    """Compare a model with its source on several shapes.

    Args:
        model: The exported model.
        reference: Runs the source. A shape that it refuses itself says nothing about the export and is left out.
        arguments: The inputs.
        sizes: For each dynamic axis a size that the source runs on.
        against: What the source is called in messages.
        atol: Absolute tolerance; by default it follows from the dtype.
        rtol: Relative tolerance.

    Raises:
        ModelError: the model fails where its source does not, or an output differs; says which, where and by how much.
    """
    session = open_session(model, SessionOptions())
    names = [output.name or "" for output in model.graph.outputs]
    worst_abs, worst_rel, shapes = 0.0, 0.0, []
    for axis, feeds, expected in _cases(arguments, sizes, reference):
        shape = {name: array.shape for name, array in feeds.items()}
        where = f"at {_written(shape)}{axis}"
        try:
            found = run(session, feeds)
        except ModelError as error:
            raise ModelError(f"verification: {against} runs {where}, the exported {error}") from error
        right = tensors(dict(zip(names, expected, strict=True)))
        given = tensors({name: found[name] for name in names})
        for name in dict.fromkeys([*right, *given]):
            if name not in right or name not in given:
                raise ModelError(f"verification: only one of {against} and the exported model gives {name!r} {where}.")
            problem, absolute, relative = _compare(given[name], right[name], atol, rtol)
            if problem:
                raise ModelError(
                    f"verification: output {name!r} {where} {problem}, compared with {against}. Look for what fixes a "
                    "shape or depends on the data; if it is right, allow it with --atol/--rtol or leave it out with "
                    "--no-verify."
                )
            worst_abs, worst_rel = max(worst_abs, absolute), max(worst_rel, relative)
        shapes.append(shape)
    return Verification(against=against, max_abs_error=worst_abs, max_rel_error=worst_rel, shapes=tuple(shapes))


def _cases(
    arguments: Sequence[InputArgument], sizes: Mapping[str, int], reference: Reference
) -> Iterator[tuple[str, dict[str, Array], Sequence[Array]]]:
    """Yield which axis was changed (in words), the inputs, and what the source makes of them."""
    batch = batch_words(arguments)
    for count in BATCHES if batch else (0,):
        case = _attempt(arguments, {**sizes, **dict.fromkeys(batch, count)}, reference)
        if case is not None:
            yield f" (axis {', '.join(sorted(batch))} = {count})" if batch else "", *case
    for word in dict.fromkeys(word for argument in arguments for word in argument.words if word not in batch):
        size, left = sizes[word], SIZES_PER_AXIS
        for other in dict.fromkeys((2 * size, size + 1, 3 * size, size - 1, size // 2)):
            case = _attempt(arguments, {**sizes, word: other}, reference) if other > 0 and left else None
            if case is not None:
                yield f" (axis {word} = {other})", *case
                left -= 1


def _attempt(
    arguments: Sequence[InputArgument], sizes: Mapping[str, int], reference: Reference
) -> tuple[dict[str, Array], Sequence[Array]] | None:
    feeds = random_arrays(arguments, sizes)
    try:
        return feeds, reference(feeds)
    except Exception as error:  # the user's code, on a shape nobody promised that it takes
        _log.info("not compared at %s: the source refuses it (%s)", sizes, error)
        return None


def _compare(found: Array, expected: Array, atol: float | None, rtol: float | None) -> tuple[str, float, float]:
    """Return what is wrong ("" for nothing) and the largest absolute and relative error."""
    if found.shape != expected.shape:
        return f"has the shape {list(found.shape)} instead of {list(expected.shape)}", math.inf, math.inf
    if found.dtype != expected.dtype:
        return f"has the dtype {found.dtype} instead of {expected.dtype}", math.inf, math.inf
    if expected.dtype.kind in TEXT:
        unequal = int((found != expected).sum())
        return f"differs in {unequal} of {found.size} strings" if unequal else "", float(unequal > 0), 0.0
    is_float = expected.dtype.kind == "f"
    absolute_allowed = (TOLERANCE[expected.dtype.name] if atol is None else atol) if is_float else 0.0
    relative_allowed = (10 * TOLERANCE[expected.dtype.name] if rtol is None else rtol) if is_float else 0.0
    left, right = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True) or not np.isfinite(left[finite]).all():
        return "has NaN or infinity in other places", math.inf, math.inf
    difference = np.abs(left[finite] - right[finite])
    magnitude = np.abs(right[finite])
    if not difference.size:
        return "", 0.0, 0.0
    largest = float(difference.max())
    relative = largest / max(float(magnitude.max()), TINY)
    wrong = difference > absolute_allowed + relative_allowed * magnitude
    if wrong.any():
        text = (
            f"differs by {largest:.2g} ({wrong.sum()} of {wrong.size} values; allowed is "
            f"{absolute_allowed:.2g} + {relative_allowed:.2g} of the value)"
        )
        return text, largest, relative
    return "", largest, relative


def _written(shape: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name}={'x'.join(map(str, axes)) or 'scalar'}" for name, axes in shape.items())
