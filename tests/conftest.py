"""What tests of several folders share: the command line in this process, and the real models where they are."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from onnxpress import cli

ROOT = Path(__file__).parents[1]

# Read when torch is imported: its threads must not spin while a test waits for processes or for onnxruntime.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Examples are searched for on people's machines; in CI a red run must mean that the change broke something.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def compress(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run ``compress`` with these words in this process."""

    def run(*words: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Ended(code=int(stop.value.code or 0), out=out, err=err)

    return run


@pytest.fixture(scope="session")
def real() -> Path:
    """Return the folder of the real models, or skip."""
    folder = Path(os.environ.get("ONNXPRESS_REAL_DATA", ROOT.parent / "shared" / "real"))
    if not (folder / "load.py").is_file():
        pytest.skip(f"no real models in {folder} (set ONNXPRESS_REAL_DATA)")
    os.environ["ONNXPRESS_REAL_DATA"] = str(folder)
    return folder
