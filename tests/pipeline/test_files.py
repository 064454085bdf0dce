"""Files are written whole or not at all, whatever goes wrong."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxpress import files
from onnxpress.errors import OutputError


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_failed_write_is_explained_and_leaves_nothing(tmp_path: Path, code: int) -> None:
    with (
        pytest.raises(OutputError, match=os.strerror(code)),
        files.writing(tmp_path / "out") as scratch,
    ):
        (scratch / "out").write_text("half")
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that takes no files, even of root")
def test_a_folder_that_takes_no_files_is_explained() -> None:
    with pytest.raises(OutputError, match=r"output /proc/out\.onnx: .* choose another folder"):
        files.write_text(Path("/proc/out.onnx"), "")


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    limited = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from onnxpress import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: files.write_text(Path(sys.argv[1]), 'x' * 1000)\n"
        "except files.OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert "larger than the file system or a limit" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".tmp-{dead.pid}-abc").mkdir()
    (tmp_path / f".tmp-{os.getpid()}-abc").mkdir()
    files.write_text(tmp_path / "out", "x")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f".tmp-{os.getpid()}-abc", "out"]


def test_outputs_respect_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        files.write_text(tmp_path / "out", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640
