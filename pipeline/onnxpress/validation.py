"""From a pydantic error to one line a person can act on: where (key, line of the file), what, and what was meant."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from onnxpress.errors import UsageError, did_you_mean
from onnxpress_calibration.documents import YAML_BYTES, DocumentError, parse_yaml, read_bytes, shortened

Options = TypeVar("Options", bound=BaseModel)
Location = Sequence[str | int]
_VALIDATOR = re.compile(r"[a-z-]+\[.*\]", re.DOTALL)
LONGEST = 300
"""Characters of a message."""


def options(model: type[Options], values: Mapping[str, Any]) -> Options:
    """Build a step's options from the command line; None stands for an option that was not given.

    Raises:
        UsageError: a value is wrong.
    """
    try:
        return model.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise UsageError(explain(error, model).removeprefix(": ")) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Yaml:
    """A YAML file that was read."""

    root: yaml.Node | None
    """Its nodes, which know their lines; None for an empty file."""
    value: Any
    sha256: str


def read_yaml(path: Path, what: str, *, advice: str = "Check the path.") -> Yaml:
    """Read a YAML file that a user wrote.

    Args:
        path: The file.
        what: What it is, the first word of messages.
        advice: What to do when it cannot be read.

    Raises:
        UsageError: it cannot be read, is not YAML, or passes a limit of `documents`.
    """
    try:
        content = read_bytes(path, YAML_BYTES)
        root, value = parse_yaml(content)
    except OSError as error:
        raise UsageError(f"{what} {path}: cannot be read ({error.strerror}). {advice}") from error
    except DocumentError as error:
        raise UsageError(f"{what} {path}{error}") from error
    return Yaml(root=root, value=value, sha256=hashlib.sha256(content).hexdigest())


def read_mapping(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """Read a YAML file with some of a model's keys.

    Raises:
        UsageError: there is no such file, it is not YAML, or a key or value is wrong; the message names the line.
    """
    found = read_yaml(path, "settings")
    if not isinstance(found.value, dict):
        raise UsageError(f"settings {path}: must be a mapping of names to values, for example `pue: 1.2`.")
    try:
        model.model_validate(found.value)
    except ValidationError as error:
        raise UsageError(f"settings {path}{explain(error, model, found.root)}") from error
    return found.value


def explain(error: ValidationError, model: type[BaseModel], root: yaml.Node | None = None, at: Location = ()) -> str:
    """Say the first problem, ready to follow a file's name: ``, line 6: unknown key 'calibratr'. Did you mean …``.

    Args:
        error: What pydantic found.
        model: The model it validated.
        root: The YAML document, for line numbers.
        at: Where in the document the model's values stand.
    """
    problem, *others = error.errors(include_url=False)
    if problem["type"] == "missing":  # often because its name was misspelt
        beside = (one for one in others if one["type"] == "extra_forbidden" and one["loc"][:-1] == problem["loc"][:-1])
        problem = next(beside, problem)
    unknown = problem["type"] == "extra_forbidden"
    # pydantic names its validators, too: function-before[…]. An unknown key is the user's, whatever it looks like.
    end = len(problem["loc"]) - unknown
    inner = [part for i, part in enumerate(problem["loc"]) if i >= end or not _VALIDATOR.fullmatch(str(part))]
    if not unknown and inner[-1:] == ["[key]"]:  # pydantic's mark of a key, behind the key itself
        inner.pop()
    location = [*at, *inner]
    place = line_of(root, location)
    where = ".".join(str(part) for part in location)
    if unknown:
        return f"{place}: unknown key {where!r}.{did_you_mean(str(inner[-1]), keys(_owner(model, inner[:-1])))}"
    if problem["type"] == "missing":
        return f"{place}: {where!r} is missing. Add it."
    message = problem["msg"].removeprefix("Value error, ")
    message = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"  # a validator may quote what was given
    given = "" if problem["type"] == "value_error" else f" (given: {shortened(problem['input'])})"
    return f"{place}: {where + ': ' if where else ''}{message}{given}"


def keys(model: type[BaseModel]) -> list[str]:
    """Return the keys that a model knows."""
    return [field.alias or name for name, field in model.model_fields.items() if not field.exclude]


def _owner(model: type[BaseModel], location: Location) -> type[BaseModel]:
    """Return the model that a location leads to."""
    for part in location:
        field = model.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return model


def line_of(node: yaml.Node | None, location: Location) -> str:
    """Return ``, line N`` of a location, or of the deepest part of it that is there; "" without a document."""
    if node is None:
        return ""
    line = node.start_mark.line
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
    return f", line {line + 1}"
