"""YAML and JSON that somebody else may have written: read within limits, and what cannot be read is said with its line.

A document is a tree of None, bool, int, float, str, list and dict, whose keys are text. Numbers are finite, whole ones
fit 64 bits, so that nothing that reads them has to ask. YAML is read by the core schema of YAML 1.2.2 (10.3): ``on``,
``no`` and ``2026-01-31`` are text, a key is its text (``8:`` is ``"8"``), and there are no tags.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

YAML_BYTES = 8 * 2**20
JSON_BYTES = 256 * 2**20
DEPTH = 50
STRING_LENGTH = 100_000
ALIASED_VALUES = 10_000
"""How many values aliases may add: ten levels of ten aliases would be 10^10."""
LARGEST = 2**63
SHOWN = 60


class DocumentError(ValueError):
    """What is wrong, ready to follow the file's name: ``, line 3: 'size' is there twice. Keep one.``."""


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes.

    Raises:
        OSError: it cannot be read.
        DocumentError: it is larger.
    """
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise DocumentError(f": has more than {limit >> 20} MiB. Is it the right file?")
    return content


def shortened(value: object) -> str:
    """Return a value for a message, at most `SHOWN` characters of it."""
    if isinstance(value, (list, tuple, dict)):
        return f"{'a list' if not isinstance(value, dict) else 'a mapping'} of {len(value)}"
    text = repr(value[:SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN and not (isinstance(value, str) and len(value) > SHOWN) else f"{text[:SHOWN]}…"


def parse_json(content: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON document.

    Raises:
        DocumentError: it is not JSON (RFC 8259), or passes a limit.
    """
    try:
        value = json.loads(
            _decoded(content),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise DocumentError(f", line {error.lineno}: not JSON ({error.msg}).") from error
    except RecursionError as error:
        raise DocumentError(f": more than {DEPTH} levels deep.") from error
    level: list[Any] = [value]
    for _ in range(DEPTH):
        for each in level:
            if isinstance(each, str):
                _check_text(each, "")
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return value
    raise DocumentError(f": more than {DEPTH} levels deep.")


def _inside(value: Any) -> Iterator[Any]:  # noqa: ANN401
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f": the key {shortened(twice)} is there twice in one object.")
    return found


def _integer(text: str, place: str = "") -> int:
    if len(text) > 20 or not -LARGEST <= int(text) < LARGEST:
        raise DocumentError(f"{place}: {_cut(text)} has more than 64 bits.")
    return int(text)


def _float(text: str, place: str = "") -> float:
    number = float(text) if len(text) <= 1000 else math.inf
    if not math.isfinite(number):
        raise DocumentError(f"{place}: {_cut(text)} is not a finite number.")
    return number


def _constant(text: str) -> NoReturn:
    raise DocumentError(f": {text} is not a finite number.")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentError(
            f", line {line}: not UTF-8 (byte {content[error.start]:#04x}). Save it as UTF-8."
        ) from error


def _check_text(text: str, place: str) -> None:
    if len(text) > STRING_LENGTH:
        raise DocumentError(f"{place}: {shortened(text)} has {len(text)} characters, more than {STRING_LENGTH}.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise DocumentError(f"{place}: {shortened(text)} holds half a character (a lone surrogate).")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Parses; the values are built here, not by PyYAML, whose constructors raise whatever they like."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), _first)


def parse_yaml(content: bytes) -> tuple[yaml.Node | None, Any]:
    """Read a YAML document.

    Returns:
        Its nodes, which know their lines, and its value; None twice for an empty file.

    Raises:
        DocumentError: it is not YAML, passes a limit, or holds a value that cannot be built.
    """
    text = _decoded(content)
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f", line {mark.line + 1}"
        what = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise DocumentError(f"{place}: not YAML ({what}).") from error
    except yaml.YAMLError as error:
        raise DocumentError(f": not YAML ({' '.join(str(error).split())}).") from error
    if root is None:
        return None, None
    counts: dict[int, int] = {}
    if _count(root, counts) - len(counts) > ALIASED_VALUES:
        raise DocumentError(f": its aliases stand for more than {ALIASED_VALUES} values. Write them out.")
    return root, _built(root)


def _check_depth(text: str) -> None:
    """Refuse what is nested too deeply before it is composed, which recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise DocumentError(f"{_place(event)}: more than {DEPTH} levels deep.")


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return how many values a node stands for when every alias is written out."""
    found = counts.get(id(node))
    if found == 0:
        raise DocumentError(f"{_place(node)}: an alias that holds itself.")
    if found is None:
        counts[id(node)] = 0
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = isinstance(node, yaml.MappingNode)
        found = 1 + sum(_count(part, counts) for item in parts for part in (item if pairs else (item,)))
        counts[id(node)] = found
    return found


def _place(part: yaml.Node | yaml.Event) -> str:
    return f", line {part.start_mark.line + 1}" if part.start_mark else ""


def _built(node: yaml.Node) -> Any:  # noqa: ANN401 - any YAML value
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_built(item) for item in node.value]
    if isinstance(node, yaml.MappingNode) and kind == "map":
        return _mapping(node)
    if not isinstance(node, yaml.ScalarNode) or kind not in _SCALARS:
        raise DocumentError(f"{_place(node)}: the tag {shortened(node.tag)} is not known here. Leave it out.")
    text = str(node.value)
    _check_text(text, _place(node))
    if "\0" in text:
        raise DocumentError(f"{_place(node)}: {shortened(text)} holds a NUL character.")
    if kind == "null" and text.lower() in ("", "~", "null"):
        return None
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if kind == "float":
            return _float(text.replace(".inf", "inf").replace(".nan", "nan").lower(), _place(node))
        if kind == "int":
            based = text[:2] in ("0o", "0x")
            return _integer(str(int(text, 0)) if based and len(text) < 30 else text, _place(node))
    except DocumentError:
        raise
    except ValueError:
        kind = f"no {kind}"
    if kind not in ("str", "merge"):  # a tag was written: `!!int x`
        raise DocumentError(f"{_place(node)}: {shortened(text)} is not of the type in its tag. Leave the tag out.")
    return text


_SCALARS = ("null", "bool", "int", "float", "str", "merge")


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise DocumentError(f"{_place(key)}: a key must be text, not a list or mapping.")
        if key.tag == f"{_TAG}merge":
            parts = _built(value)
            for part in parts if isinstance(parts, list) else [parts]:
                if not isinstance(part, dict):
                    raise DocumentError(f"{_place(key)}: '<<' takes a mapping, or a list of them.")
                merged = part | merged
            continue
        name = str(key.value)
        _check_text(name, _place(key))
        if name in own:
            raise DocumentError(f"{_place(key)}: {shortened(name)} is there twice. Keep one.")
        own[name] = _built(value)
    return merged | own
