"""What all results share: numbers with units and bounds, names, references, and the one reader."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from onnxpress.errors import DataError, UsageError
from onnxpress_calibration.documents import JSON_BYTES, DocumentError, parse_json, read_bytes, shortened

Name = Annotated[str, Field(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=0)]
Some = Annotated[int, Field(ge=1)]
"""A count of at least one."""
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Milliseconds = Annotated[float, Field(ge=0, le=1e12)]
PerSecond = Annotated[float, Field(gt=0, le=1e15)]
Joules = Annotated[float, Field(ge=0, le=1e12)]
Usd = Annotated[float, Field(ge=0, le=1e15)]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
ChangePct = Annotated[float, Field(ge=-100, le=1e9)]
"""100 · (candidate ÷ baseline − 1) of what cannot be negative."""
Score = Annotated[float, Field(ge=-1e100, le=1e100)]
"""Of a metric, in its unit, or a difference of two."""
Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]
Decibels = Annotated[float, Field(ge=-1e4, le=1e4)]
Facts = dict[str, Any]
"""Free values that are shown, never computed with."""

T = TypeVar("T", bound="Result")
Ends = TypeVar("Ends", bound=tuple[float | None, float | None])


def _ordered(ends: Ends) -> Ends:
    low, high = ends
    if low is not None and high is not None and low > high:
        raise ValueError(f"the interval [{low}, {high}] is reversed")
    return ends


ChangeInterval = Annotated[tuple[ChangePct, ChangePct], AfterValidator(_ordered)]
ScoreInterval = Annotated[tuple[Score, Score], AfterValidator(_ordered)]


Bound = Annotated[float, Field(ge=-1e100, le=1e100)] | None
Bounds = Annotated[tuple[Bound, Bound], AfterValidator(_ordered)]
"""Two values between which a number lies; None for an end that cannot be told."""


class Result(BaseModel):
    """A part of a document. Numbers are numbers and text is text: nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())

    @property
    def document(self) -> dict[str, Any]:
        """The JSON value that it was read from: what was not there is not added."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Warned(Result):
    """A reason to trust a number less."""

    code: Name
    message: str


class Skipped(Result):
    """What a step left alone, and why."""

    where: str
    op: str
    reason: str


def unique(names: Iterable[str], what: str) -> set[str]:
    """Return names as a set, after making sure that none is there twice."""
    found: set[str] = set()
    for name in names:
        if name in found:
            raise ValueError(f"{what} {shortened(name)} is there twice")
        found.add(name)
    return found


def known(name: str, names: set[str], what: str) -> None:
    """Make sure that a reference leads somewhere."""
    if name not in names:
        raise ValueError(f"{what} {shortened(name)} is not among the variants")


def read_json(path: Path, kind: type[T], what: str, *, advice: str) -> T:
    """Read a JSON file that a command of ours wrote.

    Args:
        path: The file.
        kind: What it must hold.
        what: What it is, the first word of messages.
        advice: How to make it, a sentence.

    Raises:
        UsageError: there is no such file.
        DataError: it is no JSON within the limits of `documents`, of another schema, or a value in it is wrong.
    """
    try:
        return validated(read_bytes(path, JSON_BYTES), kind, f"{what} {path}", advice=advice)
    except OSError as error:
        raise UsageError(f"{what} {path}: cannot be read ({error.strerror}). {advice}") from error
    except DocumentError as error:
        raise DataError(f"{what} {path}{error} {advice}") from error


def validated(content: bytes, kind: type[T], where: str, *, advice: str) -> T:
    """Return the value of a JSON text.

    Raises:
        DocumentError: it is no JSON within the limits.
        DataError: it is of another schema, or a value in it is wrong; the message has its place, ``variants[0].id``.
    """
    value = parse_json(content)
    schema = kind.model_fields.get("schema_name")
    if schema is not None:
        wanted = schema.annotation.__args__[0]  # type: ignore[union-attr]
        found = value.get("schema") if isinstance(value, dict) else None
        if found != wanted:
            raise DataError(f"{where}: schema {shortened(found)}, this version of onnxpress reads {wanted!r}. {advice}")
    try:
        return kind.model_validate_json(content.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if problem["type"] in ("missing", "value_error") else f" (given: {shortened(problem['input'])})"
        raise DataError(f"{where}: {place + ': ' if place else ''}{message}{given}. {advice}") from error
