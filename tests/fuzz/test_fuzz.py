"""A few hundred damaged inputs, always the same: none ends in a fault of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_damaged_inputs_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "pipeline", "models", "calibration"))
    words = ["--count", "300", "--seed", "0", "--failures"]
    found = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words, str(tmp_path / "failures")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    assert "300 inputs, 0 faulty" in found.stdout
