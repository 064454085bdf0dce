"""From a pydantic error to one line a person can act on: where (key, line of the file), what, and what was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from onnxpress.errors import UsageError, did_you_mean

Options = TypeVar("Options", bound=BaseModel)
Location = Sequence[str | int]


def options(model: type[Options], values: Mapping[str, Any]) -> Options:
    """Build a step's options from the command line; None stands for an option that was not given.

    Raises:
        UsageError: a value is wrong.
    """
    try:
        return model.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise UsageError(explain(error, model).removeprefix(": ")) from error


def read_mapping(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """Read a YAML file with some of a model's keys.

    Raises:
        UsageError: there is no such file, it is not YAML, or a key or value is wrong; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}). Check the path.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must be a mapping of names to values, for example `pue: 1.2`.")
    try:
        model.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}{explain(error, model, root)}") from error
    return values


def explain(error: ValidationError, model: type[BaseModel], root: yaml.Node | None = None, at: Location = ()) -> str:
    """Say the first problem, ready to follow a file's name: ``, line 6: unknown key 'calibratr'. Did you mean …``.

    Args:
        error: What pydantic found.
        model: The model it validated.
        root: The YAML document, for line numbers.
        at: Where in the document the model's values stand.
    """
    problem = error.errors(include_url=False)[0]
    inner = [part for part in problem["loc"] if not (isinstance(part, str) and "[" in part)]
    location = [*at, *inner]
    place = line_of(root, location)
    where = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown key {where!r}.{did_you_mean(str(inner[-1]), keys(_owner(model, inner[:-1])))}"
    if problem["type"] == "missing":
        return f"{place}: {where!r} is missing. Add it; see docs/recipe.md."
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] == "value_error" else f" (given: {problem['input']!r})"
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
