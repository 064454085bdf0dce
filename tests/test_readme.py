"""The README keeps its word: every command in it is run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ") for kind, block in BLOCKS if kind == "console" for line in block.splitlines() if line
]


VARYING = {"kB", "MB", "ms", "drop", "gain"}
"""Words that come and go with the numbers of a machine."""


NET = """
from torch import nn


def make():
    conv = nn.Conv2d(3, 16, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16 * 64, 2))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what a reader of the README would bring: a network, its weights and samples."""
    folder = tmp_path_factory.mktemp("read me")  # a path with a space in it
    (folder / "net.py").write_text(NET)
    namespace: dict[str, Any] = {}
    exec(NET, namespace)  # noqa: S102 - the text above
    torch.manual_seed(0)
    torch.save(namespace["make"]().state_dict(), folder / "net.pt")
    images = np.random.default_rng(0).normal(size=(32, 3, 32, 32)).astype(np.float32)
    np.savez(folder / "samples.npz", image=images)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "COLUMNS": "100"}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)  # noqa: S602


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {kind for kind, _ in BLOCKS} == {"console", "text"}
    assert [command for command in COMMANDS if not command.startswith(("compress ", "make "))] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("compress ")])
def test_commands(command: str, place: Path) -> None:
    done = run(command, place)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_shown_table_is_what_the_recipe_prints(place: Path) -> None:
    """The numbers are this machine's; the words, variants and columns must be the ones shown.

    What is recommended follows from the numbers, and a noisy machine is told that it can say nothing.
    """
    (shown,) = (block.partition("\n\n")[2] for kind, block in BLOCKS if kind == "text")
    printed = run("compress report demo-run", place).stdout
    words = {word for word in re.findall(r"[A-Za-z][\w/-]+", shown) if word not in VARYING}
    assert words <= set(re.findall(r"[A-Za-z][\w/-]+", printed))


@pytest.mark.slow
def test_make_demo_ends_with_the_gate_passed(tmp_path: Path) -> None:
    if not (ROOT / ".venv" / ".demo").exists() or shutil.which("make") is None:
        pytest.skip("not run by make")
    done = run(f"make demo DEMO='{tmp_path / 'demo run'}'", ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for variant in ("float", "int8-dynamic", "int8", "pruned-int8", "The gate passes"):
        assert variant in done.stdout


def test_make_test_is_the_whole_suite() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make here")
    assert "-m pytest" in run("make -n test", ROOT).stdout
