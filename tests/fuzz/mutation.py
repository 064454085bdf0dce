"""How a valid input is damaged: by its bytes, by its text, by its values, by the fields of a model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any

import yaml

MARK = "::error::FUZZ"
"""Begins a line of a terminal only where a name from a file got there raw."""
NAMES = (
    "",
    " ",
    "a" * 300,
    "x" * 100_000,
    f"a\n{MARK}",
    f"\r{MARK}",
    "\x1b[2J\x1b[1;31mred",
    "\x1b]0;title\x07",
    "\u202egnp.exe",
    "\x9b31m",
    "a\x00b",
    "../../up",
    "/etc/passwd",
    "/dev/zero",
    "a/b",
    "<script>alert(1)</script>",
    "[red]markup[/red] [/]",
    "{{ 7 * 7 }}",
    "%s %n {0}",
    "naïve 测试 🙂",
    "float",
    "int8",
    "y",
)
NUMBERS = (0, -1, 1, 2, 3.5, -0.0, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -1e308, 5e-324, 1e-9, 100, 101, 1e6)
ODD_NUMBERS = (math.nan, math.inf, -math.inf)
NESTED: list[Any] = []
for _ in range(60):
    NESTED = [NESTED]
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"a": 1}, [1, 2, 3], ["x"] * 1000, NESTED, {"id": "float"})


def some_bytes(random: Random, content: bytes) -> bytes:
    """Damage bytes in one to four places."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        if not data:
            break
        start = random.randrange(len(data))
        end = min(len(data), start + random.choice([1, 1, 2, 4, 8, 64, len(data)]))
        match random.randrange(7):
            case 0:
                data[start] ^= 1 << random.randrange(8)
            case 1:
                data[start:end] = random.randbytes(end - start)
            case 2:
                del data[start:end]
            case 3:
                data[start:start] = random.randbytes(random.choice([1, 4, 100]))
            case 4:
                data[start:end] = random.choice([b"\x00", b"\xff"]) * (end - start)
            case 5:
                data[start:start] = data[start:end]
            case 6:
                del data[start:]
    return bytes(data)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from _places(one, (*path, key))


def some_value(random: Random, *, odd: bool = True) -> Any:
    """Return a value that rarely belongs where it is put."""
    pools: list[tuple[Any, ...]] = [NAMES, NUMBERS, OTHERS, *([ODD_NUMBERS] if odd else [])]
    return deepcopy(random.choice(random.choice(pools)))


def some_values(random: Random, document: Any) -> Any:
    """Replace, remove, double, rename or exchange one to three parts of a JSON value, in place."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        places = list(_places(document))
        if not places:
            return some_value(random)
        *way, last = random.choice(places)
        holder = document
        for part in way:
            holder = holder[part]
        match random.randrange(8):
            case 0:
                del holder[last]
            case 1 if isinstance(holder, list):
                holder.append(deepcopy(holder[last]))
            case 1:
                holder[random.choice(NAMES)] = holder.pop(last)
            case 2 if isinstance(holder[last], (int, float)):
                holder[last] = holder[last] * random.choice([-1, 0, 1000, 1e300])
            case 2 if isinstance(holder[last], list):
                holder[last] = holder[last][::-1]
            case 3:
                *there, other = random.choice(places)
                second = document
                for part in there:
                    second = second[part]
                holder[last] = deepcopy(second[other])
            case _:
                holder[last] = some_value(random)
    return document


def _digits(random: Random, text: str) -> str:
    places = [index for index, character in enumerate(text) if character.isdigit()]
    if not places:
        return text
    place = random.choice(places)
    return text[:place] + random.choice(["9" * 100_000, "1e999", "-", "1" * 400, "0x10", "1_0"]) + text[place:]


def _lines(random: Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    place = random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            lines.insert(place, lines[place])
        case 1:
            del lines[place]
        case 2:
            lines[place] = random.choice(["\t", "  ", "- ", "#"]) + lines[place]
        case 3:
            lines[place] = lines[place].lstrip()
        case 4:
            random.shuffle(lines)
    return "".join(lines)


TEXTS: tuple[Callable[[Random, str], str | bytes], ...] = (
    lambda random, text: text[: random.randrange(len(text) + 1)],
    lambda random, text: text.encode(random.choice(["utf-16", "utf-8-sig", "utf-32"])),
    lambda random, text: random.choice([b"\xff", b"\x00", b"\xe9", b"\xed\xa0\x80"]) + text.encode(),
    lambda random, text: text.replace("o", "\x00" if random.random() < 0.5 else "\x1b"),
    lambda random, _: random.choice("[{") * random.choice([50, 100, 1000, 100_000]),
    lambda random, _: random.choice(["", "null", "[]", "{}", '"x"', "1", "true", "\n", "---", "NaN"]),
    _digits,
    _digits,
    _lines,
    _lines,
    lambda random, text: some_bytes(random, text.encode()),
    lambda random, text: text + random.choice(["}", "]", text, "\x00", "\n---\n" + text]),
)


def some_json(random: Random, content: bytes) -> bytes:
    """Damage a JSON file."""
    if random.random() < 0.8:
        return json.dumps(some_values(random, json.loads(content))).encode()
    changed = random.choice(TEXTS)(random, content.decode())
    return changed if isinstance(changed, bytes) else changed.encode()


SCALARS = (
    *("on", "no", "~", "yes", "2020-01-01", "2020-13-45", "2020-01-01T00:00:00Z", "0x1F", "0o17", "1_000", "190:20:30"),
    *(".inf", "-.inf", ".nan", "1e400", "9" * 100_000, "'9'", "''", '"\\u202e\\e[2J"', "|\n   a\n   b", ">-\n   a"),
    *("*x", "&x [*x]", "&x {a: *x}", "!!python/name:os.system", '!!python/object/apply:os.system ["touch fuzzed"]'),
    *(
        "!!int x",
        "!!float x",
        "!!bool 3",
        "!!binary '?'",
        "!!timestamp x",
        "!!set {a}",
        "!!omap [a]",
        "!!str 1",
        "!a b",
    ),
    *("{", "[", "'", '"', "@", "`", "%", "%TAG", "- a", "? [a]", "? {a: b}", "{[a]: b}", "{1: 2}", "{~: 1}", "{<<: 1}"),
    *("<<: {a: 1}", "[a, b]", "{a: b}", "5%", "0.5pp", "8 ms", "1e99 ms", "-1 ms", "nan ms", "inf%", "1.2.3", "10:30"),
)


def _scalar(random: Random, text: str) -> str:
    """Replace what follows a colon."""
    lines = text.splitlines()
    places = [index for index, line in enumerate(lines) if ":" in line]
    if not places:
        return text
    place = random.choice(places)
    parts = lines[place].split(":")
    cut = random.randrange(1, len(parts))
    end = random.choice(["", "}", "]", "}]"]) if "{" in lines[place] or "[" in lines[place] else ""
    lines[place] = ":".join(parts[:cut]) + f": {random.choice(SCALARS)}{end}"
    return "\n".join(lines) + "\n"


def _bomb(random: Random, text: str) -> str:
    """Put lists of lists of aliases in: ten levels of ten are 10^10 values."""
    kind = random.choice(["list", "map", "merge"])
    lines = ["bomb0: &b0 " + ("[x, x, x, x, x, x, x, x, x, x]" if kind == "list" else "{a: 1, b: 2}")]
    for level in range(1, random.choice([5, 10, 30])):
        before = [f"*b{level - 1}"] * 10
        content = f"[{', '.join(before)}]"
        if kind == "map":
            content = "{" + ", ".join(f"k{index}: {name}" for index, name in enumerate(before)) + "}"
        elif kind == "merge":
            content = f"{{<<: [{', '.join(before)}], c{level}: 1}}"
        lines.append(f"bomb{level}: &b{level} {content}")
    last = f"*b{len(lines) - 1}"
    if random.random() < 0.5:
        text = "\n".join(
            f"{line.split(':')[0]}: {last}" if random.random() < 0.3 else line for line in text.split("\n")
        )
    return "\n".join(lines) + "\n" + text


def some_yaml(random: Random, content: bytes) -> bytes:
    """Damage a YAML file."""
    text = content.decode()
    choice = random.random()
    if choice < 0.4:
        return yaml.safe_dump(some_values(random, yaml.safe_load(text)), sort_keys=False, allow_unicode=True).encode()
    if choice < 0.7:
        return _scalar(random, text).encode()
    changed = _bomb(random, text) if choice < 0.75 else random.choice(TEXTS)(random, text)
    return changed if isinstance(changed, bytes) else changed.encode()


INTEGERS = (0, 1, -1, 2, 3, 7, 16, 21, 99, 255, 65_536, 2**31 - 1, -(2**31))


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def some_fields(random: Random, message: Any) -> None:
    """Change one to three fields anywhere in a protocol buffer message, in place."""
    for _ in range(random.choice([1, 1, 2, 3])):
        target = random.choice(list(_messages(message)))
        set_fields = [field for field, _ in target.ListFields()]
        field = random.choice(set_fields if set_fields and random.random() < 0.8 else target.DESCRIPTOR.fields)
        value = getattr(target, field.name)
        try:
            if field.is_repeated:
                _some_repeated(random, field, value)
            elif field.type == field.TYPE_MESSAGE:
                target.ClearField(field.name) if random.random() < 0.5 else value.SetInParent()
            elif random.random() < 0.15:
                target.ClearField(field.name)
            else:
                setattr(target, field.name, _field_value(random, field, value))
        except (ValueError, TypeError):  # a value that the field's type has no room for
            continue


def _some_repeated(random: Random, field: Any, value: Any) -> None:
    match random.randrange(5):
        case 0 if value:
            del value[random.randrange(len(value))]
        case 1 if value:
            value.append(value[random.randrange(len(value))])
        case 2 if value and field.type != field.TYPE_MESSAGE:
            value[random.randrange(len(value))] = _field_value(random, field, value[0])
        case 3 if value:
            items = list(value)
            random.shuffle(items)
            del value[:]
            value.extend(items)
        case _ if field.type == field.TYPE_MESSAGE:
            value.add()
        case _:
            value.append(_field_value(random, field, None))


def _field_value(random: Random, field: Any, value: Any) -> Any:
    if field.type == field.TYPE_STRING:
        return random.choice(NAMES)
    if field.type == field.TYPE_BYTES:
        return some_bytes(random, value) if value else random.choice(NAMES).encode()
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return random.choice([0.0, -1.0, 1e38, math.nan, math.inf, 1e-40])
    if field.type == field.TYPE_ENUM:
        return random.choice([0, 1, 2, 7, 8, 10, 16, 22, 99, -1])
    return random.choice([*INTEGERS, 2**62, -(2**63)] if field.type == field.TYPE_INT64 else INTEGERS)
