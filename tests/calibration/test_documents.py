import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onnxpress_calibration.documents import (
    ALIASED_VALUES,
    DEPTH,
    STRING_LENGTH,
    DocumentError,
    parse_json,
    parse_yaml,
    read_bytes,
    shortened,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(categories=["L"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_writes_is_read_back(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.dictionaries(st.text(st.characters(categories=["L"]), min_size=1), VALUES, max_size=4))
def test_json_is_yaml(value: Any) -> None:
    assert parse_yaml(json.dumps(value, ensure_ascii=False).encode())[1] == value


@given(st.text(max_size=40) | st.text("[]{}:&*x!?-\n \t\"'<,|>%@#", max_size=40))
def test_any_text_is_a_document_or_refused_in_one_line(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        try:
            parse(text.encode(errors="surrogatepass"))
        except DocumentError as error:
            assert str(error).startswith((":", ", line ")) and "\n" not in str(error)


def bomb(item: str, levels: int) -> str:
    lines = [f"b0: &b0 {item}"]
    lines += [f"b{level}: &b{level} [{', '.join([f'*b{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  a: 2\n  a: 3", ", line 4: 'a' is there twice. Keep one."),
        ("a: 1\n? [b]\n: c", ", line 2: a key must be text, not a list or mapping."),
        ("a:\n - b\n - !!python/name:os.system", ", line 3: the tag "),
        ('a: !!python/object/apply:os.system ["touch canary"]', ", line 1: the tag "),
        ("a: 1\nb: !!int x", ", line 2: 'x' is not of the type in its tag."),
        ("a: !!bool 3", ", line 1: '3' is not of the type in its tag."),
        ("a:\n  " + "9" * 100_000, "(100000 characters) has more than 64 bits."),
        ("a: 0x" + "f" * 20, "has more than 64 bits."),
        ("\na: .inf", ", line 2: inf is not a finite number."),
        ("a: 1e999", ", line 1: 1e999 is not a finite number."),
        ("a:\n\t- b", ", line 2: not YAML ("),
        ("a: 1\n---\nb: 2", ", line 2: not YAML ("),
        ("a: [1", "not YAML ("),
        ("a: *nothing", ", line 1: not YAML (found undefined alias"),
        ("\na: &a [*a]", ", line 2: an alias that holds itself."),
        (bomb("[x, x, x, x, x, x, x, x, x, x]", 12), f": its aliases stand for more than {ALIASED_VALUES} values."),
        (bomb("{a: 1}", 30), f": its aliases stand for more than {ALIASED_VALUES} values."),
        ("[" * 100_000, f", line 1: more than {DEPTH} levels deep."),
        ("\n".join(" " * i + "a:" for i in range(DEPTH + 5)), f", line {DEPTH + 1}: more than {DEPTH} levels deep."),
        ("a: " + "x" * (STRING_LENGTH + 1), f"has {STRING_LENGTH + 1} characters, more than {STRING_LENGTH}."),
        ('a: "\\0"', ", line 1: '\\x00' holds a NUL character."),
        ("<<: 3", ", line 1: '<<' takes a mapping, or a list of them."),
    ],
)
def test_yaml_that_cannot_be_read_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text.encode())
    assert message in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing", None),
        ("on: no", {"on": "no"}),
        ("2026-01-31: 2026-13-45", {"2026-01-31": "2026-13-45"}),
        ("8: {~: null, true: True}", {"8": {"~": None, "true": True}}),
        ("[1_000, 10:30, 0o17, 0x1F, 1e3, .5, -3, +4]", ["1_000", "10:30", 15, 31, 1000.0, 0.5, -3, 4]),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("<<: [{a: 1}, {a: 2, b: 2}]", {"a": 1, "b": 2}),
        ("!!str 8", "8"),
    ],
)
def test_yaml_is_read_by_the_core_schema(text: str, value: Any) -> None:
    assert parse_yaml(text.encode())[1] == value


def test_yaml_nodes_know_their_lines() -> None:
    root, _ = parse_yaml(b"a: 1\nb: 2")
    assert isinstance(root, yaml.MappingNode)
    assert [key.start_mark.line for key, _ in root.value] == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ", line 1: not JSON"),
        (b"{\n'a': 1}", ", line 2: not JSON"),
        (b"[1] [2]", ", line 1: not JSON (Extra data)."),
        (b"[" * 100_000, f": more than {DEPTH} levels deep."),
        (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), f": more than {DEPTH} levels deep."),
        (b'{"a": 1, "a": 2}', ": the key 'a' is there twice in one object."),
        (b"[NaN]", ": NaN is not a finite number."),
        (b"[-1e400]", ": -1e400 is not a finite number."),
        (b"9" * 100_000, "(100000 characters) has more than 64 bits."),
        (b'["\\ud800"]', "holds half a character (a lone surrogate)."),
        (b'{"\\ud800": 1}', "holds half a character (a lone surrogate)."),
        (b'"' + b"x" * (STRING_LENGTH + 1) + b'"', f"more than {STRING_LENGTH}."),
        (b"[\n\xff]", ", line 2: not UTF-8 (byte 0xff). Save it as UTF-8."),
        ("[1]".encode("utf-16"), ", line 1: not UTF-8"),
    ],
)
def test_json_that_cannot_be_read_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_json(content)
    assert message in str(caught.value) and len(str(caught.value)) < 300


def test_the_deepest_json_is_read() -> None:
    assert parse_json(b"[" * (DEPTH - 1) + b"1" + b"]" * (DEPTH - 1)) is not None


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(DocumentError, match="has more than 1 MiB"):
        read_bytes(file, 2**20)
    with pytest.raises(DocumentError, match="has more than 1 MiB"):
        read_bytes(Path("/dev/zero"), 2**20)


def test_values_in_messages_are_short() -> None:
    assert shortened([1, 2, 3]) == "a list of 3"
    assert shortened({"a": 1}) == "a mapping of 1"
    assert shortened("a\nb") == repr("a\nb")
    assert len(shortened("x" * 10**6)) < 70 and len(shortened("\x00" * 10**6)) < 70
