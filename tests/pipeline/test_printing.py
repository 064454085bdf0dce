"""Names are somebody else's text: one list of attacks, and random text, against every form in which text leaves."""

import json
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress import files, printing
from onnxpress.gate import github, junit, sarif
from onnxpress.gate.check import Check
from onnxpress.progress import Progress
from onnxpress.report.formats import html, markdown, terminal
from onnxpress.report.report import Report

ATTACKS = {
    "newline": "a\n::error file=x::b",
    "return": "a\r::error::b",
    "other ends of lines": "a\x0b::error::b\x0c::error::b\x85::error::b\u2028::error::b\u2029::error::b",
    "command": "::error::b",
    "command after blanks": "a  ::set-output name=x::b",
    "command where a line is wrapped": "a" * 79 + "::error::b",
    "old command": "a##[error]b",
    "azure command": "##vso[task.setvariable variable=x]b",
    "colours": "\x1b[31mred\x1b[0m",
    "cursor": "\x1b[2J\x1b[1;1Hgone\x1b[1A",
    "title": "\x1b]0;title\x07",
    "link": "\x1b]8;;http://example.com\x1b\\here\x1b]8;;\x1b\\",
    "bell, backspace, delete, NUL": "a\x07b\x08\x08c\x7fd\x00e",
    "C1 controls": "a\x9b31mb\x9dc\x90d",
    "right to left": "abc\u202egnp.exe\u202c\u2066x\u2069",
    "zero width": "pass\u200b\u200c\u200d\u2060\ufeff",
    "half a pair": "a\ud800b\udcffc",
    "no character": "a\uffff\ufdd0b",
    "markup of rich": "[red]a[/red] [/] [link=http://x]b",
    "markup": "<script>alert(1)</script> | `x` ]]> {{ 7 * 7 }} %0A::error::b",
    "long": "x" * 5000,
    "long words": "word " * 5000,
}
COMMAND = re.compile(rf"^\s*::({'|'.join(printing.COMMANDS)})(::|\s)|##\[|##vso\[", re.IGNORECASE)
SPECIAL = ["::", "##[", "error", "\n", "\r", "\x1b[", " ", "%0A", "[red]", "\u202e", "\ud800"]
names = st.one_of(
    st.sampled_from(list(ATTACKS.values())), st.lists(st.sampled_from(SPECIAL) | st.text(max_size=3)).map("".join)
)
SAMPLE = Path(__file__).parent / "report" / "sample_report.json"
Compress = Callable[..., Any]


def assert_inert(text: str, colour: bool = False) -> None:
    """Check that no character steers a terminal, and that no line is a command of a CI system."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text) if colour else text
    for line in text.split("\n"):
        odd = [
            f"{character!r} ({unicodedata.category(character)})" for character in line if not character.isprintable()
        ]
        assert not odd, (odd, line[:200])
        assert not COMMAND.search(line), line[:200]


@given(names)
def test_printable_text_is_one_short_inert_line_and_stays_so(text: str) -> None:
    shown = printing.printable(text)
    assert_inert(shown)
    assert "\n" not in shown and len(shown) <= printing.LONGEST_LINE
    assert printing.printable(shown) == shown
    assert_inert(f"  {shown}"), assert_inert(printing.one_line(f"line\n{text}\n"))


@pytest.mark.parametrize(
    "text", ["net/layer1.0/Conv_1", "std::vector<int>", "naïve 测试 🙂", "a: b", "50 % | x", "C:\\x"]
)
def test_usual_names_stay_as_they_are(text: str) -> None:
    assert printing.printable(text) == text


def renamed(name: str) -> Report:
    """A report whose variants, nodes, metric, machines, policy and recipe have a name."""
    name = name.encode(errors="replace").decode()[:1000] or "x"  # what a report that is read may hold
    report = json.loads(SAMPLE.read_text())
    machine = report["cost"]["variants"][0]["instances"][0]["instance"]
    words = {"int8-dynamic", "node_linear", "top1", "digits_resnet", machine}
    for facts, key in (
        (report["bench"]["host"], "cpu"),
        (report["bench"]["runtime"], "provider"),
        (report["versions"], "numpy"),
    ):
        facts[key] = name

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {name if key in words - {"top1"} else key: replaced(each) for key, each in value.items()}
        if isinstance(value, list):
            return [replaced(each) for each in value]
        return name if isinstance(value, str) and value in words else value

    for check in report["checks"]:
        check["reason"] = name
    return Report.from_json(json.dumps(replaced(report)))


def check(name: str) -> Check:
    return Check(
        rule="size.total_bytes",
        variant=name,
        level="error",
        verdict="fail",
        measured=name,
        limit=name,
        reason=name,
        line=1,
    )


def everything(name: str) -> dict[str, str]:
    """Every form of a report and of a gate's result in which this is the name of things."""
    report = renamed(name).with_checks([check(name)])
    forms = {f"terminal at {width}": terminal.render(report, width=width) for width in (40, 80, 200)}
    forms |= {
        "gate in a terminal": terminal.gate(report, name, 1, width=80),
        "evaluation": terminal.evaluation(report.evaluation),
        "bench": terminal.bench(report.bench),
        "cost": terminal.cost(report.cost),
        "markdown": markdown.render(report),
        "html": html.render(report),
        "junit": junit.render(report.checks),
        "sarif": sarif.render(report.checks, name),
        "json": files.dumps({name: [name]}),
        "github summary": github.summary(report),
    }
    return forms


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_form_lets_an_attack_through(attack: str) -> None:
    name = ATTACKS[attack]
    forms = everything(name)
    for form, text in forms.items():
        assert_inert(text)
        assert form == "json" or len(text) < 1_000_000
        text.encode()
    assert_inert(terminal.render(renamed(name), width=80, colour=True), colour=True)
    ET.fromstring(forms["junit"].encode())  # noqa: S314 - our own
    assert json.loads(forms["sarif"])["runs"][0]["results"]
    if "\ud800" not in name:
        assert json.loads(forms["json"]) == {name: [name]}
    assert "<script>alert" not in forms["html"]


@settings(max_examples=25, deadline=None)
@given(names)
def test_no_form_lets_random_text_through(name: str) -> None:
    for text in everything(name).values():
        assert_inert(text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_workflow_commands_and_outputs_are_one_line_each(attack: str, tmp_path: Path) -> None:
    name = ATTACKS[attack]
    output = tmp_path / "output"
    report = renamed(name).with_checks([check(name)])
    commands = github.publish(report, name, {"GITHUB_OUTPUT": str(output)}, code=1, html=name)
    assert commands.startswith("::error file=") and len(commands.splitlines()) == 1
    assert printing.visible(commands[:-1]) == commands[:-1] and "::set-output" not in commands[2:].partition("::")[0]
    written = output.read_text()
    assert [line.partition("=")[0] for line in written.split("\n")[:-1]] == ["verdict", "failed", "exit-code", "report"]
    assert_inert(written)


@pytest.mark.parametrize("attack", ATTACKS)
def test_progress_and_logs_are_inert(
    attack: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ATTACKS[attack]
    with Progress().task(name):
        pass
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%s", (name,), None)
    assert_inert(printing.PrintableFormatter("%(name)s: %(message)s").format(record))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with Progress().task(name), Progress().stage(name, 1):
        pass
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", capsys.readouterr().err)
    assert_inert(shown)


MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,8,8] x) => (float[N,4] y)
<float[4,3,3,3] w, float[4,4] v>
{ c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, v) }"""


def hostile_model(path: Path, name: str) -> None:
    """Write a model whose nodes, tensors, inputs and producer have a name."""
    model = onnx.parser.parse_model(MODEL.replace("<float[4,3,3,3] w, float[4,4] v>", ""))
    draw = np.random.default_rng(0)
    encoded = name.encode("utf-8", "replace").decode()
    for weight, shape in (("w", (4, 3, 3, 3)), ("v", (4, 4))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), weight))
    new = {each: f"{encoded}{each}" for each in ("x", "c", "r", "p", "f", "w", "v")}
    for node in model.graph.node:
        node.input[:] = [new.get(each, each) for each in node.input]
        node.output[:] = [new.get(each, each) for each in node.output]
        node.name = f"{encoded}{node.op_type}"
    for each in (*model.graph.input, *model.graph.initializer):
        each.name = new[each.name]
    model.producer_name = model.graph.name = encoded
    path.write_bytes(model.SerializeToString())
    samples = draw.normal(size=(4, 3, 8, 8)).astype(np.float32)
    if "\0" not in encoded:
        np.savez(path.with_suffix(".npz"), **{new["x"]: samples})


POLICY = "schema: onnxpress.policy/1\nrules:\n  size.total_bytes: [error, {max: 1 B}]\n"


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_command_lets_names_of_a_model_through(
    compress: Compress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile_model(tmp_path / "m.onnx", ATTACKS[attack])
    (tmp_path / "policy.yaml").write_text(POLICY)
    for words in (
        ("inspect", "m.onnx"),
        ("inspect", "m.onnx", "--json", "-"),
        ("prune", "m.onnx", "-o", "p.onnx", "--amount", "50%"),
        ("quantize", "m.onnx", "-o", "q.onnx", "--mode", "dynamic", "-v"),
        ("profile", "m.onnx", "--data", "m.npz", "-o", "m.profile"),
        ("inspect", "m.profile"),
        ("quantize", "m.onnx", "-o", "s.onnx", "--profile", "m.profile", "--require-int8", "^nothing$"),
        ("evaluate", "m.onnx", "m.onnx", "--data", "m.npz"),
        ("gate", "m.onnx", "m.onnx", "--policy", "policy.yaml", "--static"),
    ):
        ended = compress(*words)
        assert ended.code in (0, 1, 2, 3), ended
        assert_inert(ended.out)
        assert_inert(ended.err)


@pytest.mark.parametrize("attack", [name for name, text in ATTACKS.items() if "\0" not in text and len(text) < 200])
def test_no_command_lets_names_on_the_command_line_through(
    compress: Compress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = ATTACKS[attack].replace("/", "|").replace("\ud800", "")
    (tmp_path / "policy.yaml").write_text(POLICY)
    hostile_model(tmp_path / "m.onnx", "n")
    file = f"{name}.onnx"
    os.link(tmp_path / "m.onnx", tmp_path / file)
    (tmp_path / f"{name}.yaml").write_text(POLICY.replace("1 B", name), errors="replace")
    for words in (
        ("inspect", file),
        ("inspect", "--json", "-", file),
        ("inspect", f"no-{file}"),
        ("inspect", "m.onnx", f"--{name}"),
        (name,),
        ("quantize", file, "-o", f"q-{file}", "--mode", name),
        ("quantize", file, "-o", f"q-{file}", "--mode", "dynamic"),
        ("quantize", file, "-o", f"q-{file}", "--calibration", name),
        ("evaluate", "m.onnx", file, "--data", "m.npz", "--metric", name),
        ("evaluate", "--data", "m.npz", "m.onnx", file),
        ("gate", "m.onnx", file, "--policy", f"{name}.yaml"),
        ("gate", "m.onnx", file, "--policy", "policy.yaml", "--annotations", "none"),
    ):
        ended = compress(*words)
        assert ended.code in (0, 1, 2, 3, 4), ended
        assert_inert(ended.out)
        assert_inert(ended.err)
    document = compress("inspect", "--json", "-", file).out
    assert json.loads(document)["path"].encode("utf-8", "replace") == file.encode("utf-8", "replace")
