"""Scratch folders are gone afterwards, whatever happened; who fills them up is named."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from onnxpress import scratch
from onnxpress.errors import ModelError, OutputError, UsageError

KILLED = """
import os, signal, sys
from pathlib import Path
from onnxpress import scratch
with scratch.private_tmpdir(), scratch.scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
LIVING = """
import sys
from pathlib import Path
from onnxpress import scratch
with scratch.scratch_folder(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def tmpdir_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def killed(outputs: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(outputs)], check=False)
    assert done.returncode == -9


def test_what_a_killed_process_left_goes_with_the_next_folder_there(tmp_path: Path, tmpdir_of_its_own: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    killed(outputs)
    assert len(list(outputs.iterdir())) == 1 and len(list(tmpdir_of_its_own.iterdir())) == 1
    with scratch.scratch_folder(outputs) as folder:
        assert list(outputs.iterdir()) == [folder]
    assert list(outputs.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_command_wherever_it_lies(
    tmp_path: Path, tmpdir_of_its_own: Path
) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    killed(outputs)
    with scratch.private_tmpdir():
        pass
    assert list(outputs.iterdir()) == [] and list(tmpdir_of_its_own.iterdir()) == []


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LIVING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        assert living.stdout is not None and living.stdout.readline() == b"ready\n"
        (held,) = tmp_path.iterdir()
        scratch.remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == [held]
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_taken_for_a_scratch_folder(tmp_path: Path) -> None:
    victim, planted = tmp_path / "victim", tmp_path / "planted"
    victim.mkdir()
    planted.mkdir()
    (planted / ".onnxpress-0123456789ab").symlink_to(victim)
    (planted / ".onnxpress-cache").mkdir()
    (planted / ".onnxpress-0123456789ac").write_text("a file")
    scratch.remove_abandoned(planted)
    assert victim.is_dir() and len(list(planted.iterdir())) == 3


def test_libraries_leave_nothing_in_tmpdir(tmpdir_of_its_own: Path) -> None:
    with scratch.private_tmpdir():
        left = Path(tempfile.mkdtemp())
        child = subprocess.run(
            [sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert left.is_dir() and Path(child.stdout.strip()).is_dir()
        assert scratch.outer_tmpdir() == tmpdir_of_its_own
    assert list(tmpdir_of_its_own.iterdir()) == []
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(tmpdir_of_its_own)


def test_a_block_that_ends_between_two_lines_leaves_nothing_at_the_end_of_the_process(tmp_path: Path) -> None:
    scratch.scratch_folder(tmp_path).__enter__()  # never left
    scratch.remove_mine()
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys, tempfile
from onnxpress import scratch
from onnxpress.errors import ModelError
tempfile.tempdir = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with scratch.temporary() as folder:
        try:
            (folder / "model").write_bytes(bytes(2000))
        except OSError:
            raise ModelError("cannot load the model")
except Exception as error:
    print(error)
"""


def test_a_library_that_blames_the_model_is_corrected(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"temporary folder {tmp_path} (TMPDIR): File too large.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ModelError("broken"), UsageError("wrong"), FileNotFoundError(2, "none", "/none")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, scratch.temporary():
        raise error
    assert caught.value is error


def test_no_temporary_folder_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(OutputError, match="Set TMPDIR"), scratch.temporary():
        pass
