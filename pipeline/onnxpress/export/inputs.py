"""``NAME:DTYPE:SHAPE``, how a model's input is described: ``image:float32:batchx3x224x224``.

A word is a dynamic axis, and the same word is the same size everywhere. ``word=8`` also says which size to trace with;
without it the first size is taken that the model runs on. Where a word holds an ``x``, commas separate the axes
(``batch,boxes,4``); a shape left empty is a scalar.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress_calibration.dataset import Array

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
BATCH = 3
"""Models are traced with this many samples: torch takes 0 and 1 for special."""
BASES = (16, 64, 224)
"""Other dynamic axes get a multiple of the first of these that fits, no two axes the same."""
SYNTAX = "NAME:DTYPE:SHAPE, for example image:float32:batchx3x224x224 (words are dynamic axes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputArgument:
    """One input of a model."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Axis sizes; a word is a dynamic axis."""
    sizes: Mapping[str, int]
    """Sizes to trace with, for those words that were given one."""
    low: int = 0
    high: int = 2
    """Random integers are drawn from [low, high): by default any vocabulary has them."""

    @property
    def words(self) -> tuple[str, ...]:
        """The dynamic axes, each once."""
        return tuple(dict.fromkeys(axis for axis in self.shape if isinstance(axis, str)))

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        separator = "," if any("x" in word for word in self.words) else "x"
        return f"{self.name}:{self.dtype}:{separator.join(str(axis) for axis in self.shape)}"


def parse(text: str) -> InputArgument:
    """Read ``NAME:DTYPE:SHAPE``.

    Raises:
        ValueError: it is no such text; the message says what is wrong with it.
    """
    name, *rest = text.rsplit(":", 2)
    if len(rest) != 2 or not name:
        raise ValueError(f"input {text!r}: is not {SYNTAX}")
    dtype, written = rest
    if dtype not in DTYPES:
        raise ValueError(f"input {text!r}: dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    shape: list[int | str] = []
    sizes: dict[str, int] = {}
    for axis in re.split(r"," if "," in written else r"x", written) if written else []:
        word, assigned, size = axis.partition("=")
        if axis.isdigit() and int(axis) > 0:
            shape.append(int(axis))
        elif word.isidentifier() and (not assigned or (size.isdigit() and int(size) > 0)):
            shape.append(word)
            sizes |= {word: int(size)} if assigned else {}
        else:
            raise ValueError(f"input {text!r}: axis {axis!r} is neither a positive number nor a word; write {SYNTAX}")
    return InputArgument(name=name, dtype=dtype, shape=tuple(shape), sizes=sizes)


def batch_words(arguments: Sequence[InputArgument]) -> set[str]:
    """Return the words that count samples: those that stand on the first axis only."""
    first = {argument.shape[0] for argument in arguments if argument.shape}
    later = {axis for argument in arguments for axis in argument.shape[1:]}
    return {word for word in first - later if isinstance(word, str)}


def choose_sizes(arguments: Sequence[InputArgument], run: Callable[[Mapping[str, Array]], object]) -> dict[str, int]:
    """Return a size for each word on which a model runs: the one given, `BATCH` samples, else from `BASES`.

    Args:
        arguments: The inputs.
        run: Runs the model on named arrays, or raises.

    Raises:
        Exception: what ``run`` raises for the first sizes, when it runs on none.
    """
    words = dict.fromkeys(word for argument in arguments for word in argument.words)
    given = {word: size for argument in arguments for word, size in argument.sizes.items()}
    batch = batch_words(arguments)
    failed: Exception | None = None
    tried: list[dict[str, int]] = []
    for base in BASES:
        samples, others = itertools.count(BATCH), itertools.count(base, base)
        sizes = {word: given.get(word) or next(samples if word in batch else others) for word in words}
        if sizes in tried:
            break  # no axis left to choose
        tried.append(sizes)
        try:
            run(random_arrays(arguments, sizes))
        except Exception as error:  # whatever the model's code raises
            failed = failed or error
        else:
            return sizes
    assert failed is not None  # noqa: S101 - it was tried at least once
    raise failed


def random_arrays(arguments: Sequence[InputArgument], sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    """Draw one array for each input: normal numbers, integers in the argument's range, booleans.

    Args:
        arguments: The inputs.
        sizes: A size for each word.
        seed: The same seed draws the same numbers.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for argument in arguments:
        shape = [axis if isinstance(axis, int) else sizes[axis] for axis in argument.shape]
        dtype = np.dtype(argument.dtype)
        if dtype.kind == "f":
            drawn: Array = rng.standard_normal(shape)
        else:
            high = 2 if dtype.kind == "b" else argument.high
            drawn = rng.integers(argument.low, high, shape)
        arrays[argument.name] = np.asarray(drawn, dtype)  # a scalar, too, is to be an array
    return arrays
