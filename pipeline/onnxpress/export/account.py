"""Why PyTorch could not export a model, in one line: the user's file and line, and the first line of the reason."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from onnxpress.export.inputs import InputArgument

FIXED_AXIS = (
    re.compile(r"static shape of (?P<size>\d+) for dimension inputs\['(?P<input>\w+)'\]\.shape\[(?P<axis>\d+)\]"),
    re.compile(r"L\['(?P<input>\w+)'\]\.size\(\)\[(?P<axis>\d+)\].*?constant \((?P<size>\d+)\)", re.DOTALL),
)
NO_COUNTERPART = re.compile(r"No ONNX function found for <OpOverload\(op='(?P<operator>[\w.]+)'")

FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def account(
    error: BaseException,
    parameters: Sequence[str],
    arguments: Sequence[InputArgument],
    stacks: Callable[[str], Sequence[str]],
) -> str:
    """Say why an export failed and where.

    Args:
        error: What torch raised.
        parameters: Names of the arguments of ``forward``, in the order of ``arguments``.
        arguments: The inputs, with the words of their dynamic axes.
        stacks: Returns, for the name of an operator, the stack traces of the code that called it.
    """
    causes = list(_chain(error))
    text = "\n".join(str(cause) for cause in causes)
    place = next(filter(None, map(user_line, reversed(causes))), None)
    at = f" at {place}" if place else ""
    for pattern in FIXED_AXIS:
        found = pattern.search(text)
        if found is not None:
            axis, argument = int(found["axis"]), dict(zip(parameters, arguments, strict=True)).get(found["input"])
            word = "" if argument is None else f" {argument.shape[axis]!r}"
            return (
                f"the model fixes the dynamic axis{word} (axis {axis} of {found['input']!r}) at {found['size']}{at}: "
                "it uses that size as a number. Change the code, or write the number in place of the word in --input."
            )
    found = NO_COUNTERPART.search(text)
    if found is not None:
        frames = [frame for stack in stacks(found["operator"]) for frame in FRAME.findall(stack)]
        place = next((shown(file, int(line)) for file, line in reversed(frames) if _is_theirs(file)), None)
        at = f" at {place}" if place else ""
        return f"operator {found['operator']}{at} has no ONNX counterpart. Replace it with operators that have one."
    reason = first_line(causes[-1])
    if "data-dependent" in text:
        return (
            f"the code decides by the values of a tensor{at} ({reason.partition(' (unhinted')[0]}). A graph cannot: "
            "use torch.where or torch.cond."
        )
    return f"{reason}{at}"


def user_line(error: BaseException) -> str | None:
    """Return ``file:line`` of the deepest frame that is neither a library's nor ours; None when there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_theirs(frame.filename):
            return shown(frame.filename, frame.lineno or 0)
    return None


def _is_theirs(filename: str) -> bool:
    """Tell whether a file is the user's: no library's, not ours, and a file at all."""
    ours = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parents[1]), "<")
    return not filename.startswith(ours)


def shown(filename: str, line: int) -> str:
    """Return ``file:line``, relative to the current folder where the file is in it."""
    file = Path(filename)
    return f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}:{line}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from, down to the first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def first_line(error: BaseException) -> str:
    """Return the class of an exception and the first line of its message."""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
