"""The exceptions a user can meet, and the exit code each one carries.

::

    OnnxpressError           5   internal: ours to fix
    ├── UsageError           2   the command line, the recipe or the policy is wrong
    │   └── OutputError      2   the output cannot be written where it was asked for
    ├── ModelError           3   the model is broken or not supported
    └── EvidenceError        4   measurements are missing or cannot decide
    DataError                3   the data is broken (defined by onnxpress_calibration, a leaf package)

Exit code 1 is no exception: it is a gate that ran and failed. Every message is one line that says what, where, the
value, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from onnxpress_calibration.errors import DataError

__all__ = ["DataError", "EvidenceError", "ModelError", "OnnxpressError", "OutputError", "UsageError", "did_you_mean"]


SHOWN_NAMES = 24


class OnnxpressError(Exception):
    """Base of all errors that end a command with a message instead of a traceback."""

    exit_code = 5


class UsageError(OnnxpressError):
    """The command line, recipe or policy asks for something that does not exist or makes no sense."""

    exit_code = 2


class OutputError(UsageError):
    """The output exists already, or its folder cannot be written, or the disk is full."""


class ModelError(OnnxpressError):
    """The model file is broken, or uses something that is refused by name."""

    exit_code = 3


class EvidenceError(OnnxpressError):
    """A decision was asked for, but what it rests on is missing or inconclusive."""

    exit_code = 4


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for a near miss, else `` Known: a, b, c.`` (both with a leading space).

    Of many known names only the first are shown.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f" Known: {', '.join(names[:SHOWN_NAMES]) or 'none'}{more}."
