"""The GitHub action and the pre-commit hook: they name what exists, and their scripts keep the exit codes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def action() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    return found


def script(action: dict[str, Any], name: str) -> str:
    (step,) = (step for step in action["runs"]["steps"] if step.get("name") == name)
    return str(step["run"])


def test_what_is_named_is_declared(action: dict[str, Any]) -> None:
    text = (ROOT / "action.yml").read_text()
    named = set(re.findall(r"\binputs\.([\w-]+)", text))
    assert named == set(action["inputs"])
    written = {"verdict", "failed", "exit-code"}  # by onnxpress.gate.github.publish
    assert set(re.findall(r"steps\.gate\.outputs\.([\w-]+)", text)) == written


def test_no_input_is_pasted_into_a_script(action: dict[str, Any]) -> None:
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize(
    ("step", "fail_on", "code", "expected"),
    [
        *(("Gate", "error", code, code) for code in range(6)),
        *(("Gate", "never", code, expected) for code, expected in enumerate((0, 0, 2, 3, 0, 5))),
        *(("Measure", "error", code, expected) for code, expected in enumerate((0, 0, 2, 3, 0, 5))),
    ],
)
def test_scripts_keep_the_exit_codes(
    action: dict[str, Any], tmp_path: Path, step: str, fail_on: str, code: int, expected: int
) -> None:
    stub = tmp_path / "compress"
    stub.write_text(f'#!/bin/sh\nprintf "%s|" "$@"\nexit {code}\n')
    stub.chmod(0o755)
    inputs = {"POLICY": "my gate.yaml", "RUN_DIR": "a run", "RECIPE": "$(reboot).yaml", "FAIL_ON": fail_on}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script(action, step)],
        env={**os.environ, **inputs, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected
    arguments = {"Gate": "gate|a run|--policy|my gate.yaml|", "Measure": "run|$(reboot).yaml|--output|a run|"}
    assert done.stdout == arguments[step]


def test_the_hook_runs_the_gate() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] == "compress gate --static"
    assert hook["pass_filenames"] is False
    assert hook["verbose"] is True  # else pre-commit hides what a hook that passes says it did not judge
    assert re.search(hook["files"], "models/run/report.json")
    assert re.search(hook["files"], "compress-gate.yaml")
    assert not re.search(hook["files"], "README.md")
