"""Files are written whole or not at all, whatever goes wrong."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_many_outputs_appear_together_or_not_at_all(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with pytest.raises(OutputError, match=r"output .*other: exists already"), files.Outputs() as outputs:
        outputs.write(one, "1")
        outputs.write(other, "2")
        other.write_text("made meanwhile")
        outputs.publish()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"other": "made meanwhile"}
    with files.Outputs(force=True) as outputs:
        outputs.write(one, "1")
        outputs.write(other, "2")
        assert other.read_text() == "made meanwhile"
        outputs.publish()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one": "1", "other": "2"}


def test_outputs_that_fail_or_are_not_published_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.Outputs() as outputs:
        outputs.write(tmp_path / "one", "1")
        raise ZeroDivisionError
    with files.Outputs() as outputs:
        outputs.write(tmp_path / "one", "1")
    assert list(tmp_path.iterdir()) == []


def names(folder: Path) -> dict[str, Path]:
    """Make an input, and other names of it: a hard link, a symbolic one, a folder that is a link."""
    original, inside = folder / "given", folder / "inside"
    original.write_text("precious")
    inside.mkdir()
    (inside / "data").write_text("precious")
    (folder / "hard").hardlink_to(original)
    (folder / "soft").symlink_to(original)
    (folder / "linked").symlink_to(inside)
    paths = {"itself": original, "dots": inside / ".." / "given", "hard link": folder / "hard", "link": folder / "soft"}
    return paths | {"in a folder": inside / "data", "in a linked folder": folder / "linked" / "data"}


@pytest.mark.parametrize("name", ["itself", "dots", "hard link", "link", "in a folder", "in a linked folder"])
def test_an_input_is_never_an_output_by_any_name(tmp_path: Path, name: str) -> None:
    path = names(tmp_path)[name]
    for read_first in (True, False):
        with pytest.raises(OutputError, match=r"is the input|lies in the input"), files.Outputs(force=True) as outputs:
            if not read_first:
                outputs.claim(path)
            outputs.reads(tmp_path / "given")
            outputs.reads(tmp_path / "inside")
            outputs.claim(path)
    assert path.read_text() == "precious"


def test_what_a_command_reads_is_safe_from_everything_that_writes_in_it(tmp_path: Path) -> None:
    model = tmp_path / "given"
    model.write_text("precious")
    with files.command(files.Outputs(force=True)):
        files.reads(model)
        for write in (lambda: files.write_text(model, "x", force=True), lambda: files.append_text(model, "x")):
            with pytest.raises(OutputError, match="is the input"):
                write()
    assert model.read_text() == "precious"
    files.append_text(model, "!")
    assert model.read_text() == "precious!"


def test_two_outputs_have_two_names_also_where_there_is_no_file_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with files.Outputs(force=True) as outputs:
        outputs.claim(tmp_path / "one")
        outputs.claim(tmp_path / "other")
        for same in (tmp_path / "one", tmp_path / "link" / "one", tmp_path / "link" / ".." / tmp_path.name / "one"):
            with pytest.raises(OutputError, match="asked for twice"):
                outputs.claim(same)


def test_a_file_of_its_own_may_be_read_and_replaced(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("old")
    with files.Outputs() as outputs:
        outputs.reads(kept)
        outputs.claim(kept, replace=True)
        outputs.write(kept, "new")
        outputs.publish()
    assert kept.read_text() == "new"


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    for path, message in {
        tmp_path: "is a folder",
        tmp_path / "file" / "x": "is a file, not a folder",
        tmp_path / "none" / "x": "there is no folder",
        tmp_path / "pipe": "no regular file",
        tmp_path / "dangling": "exists already",
        tmp_path / ("x" * 300): "Choose a shorter name",
        tmp_path / "a\0b": "has a NUL",
    }.items():
        with pytest.raises(OutputError, match=message):
            files.write_text(path, "x")


@given(st.text())
def test_json_has_no_character_that_a_terminal_obeys_and_says_the_same(text: str) -> None:
    written = files.dumps({"name": text, text: 1})
    assert json.loads(written) == {"name": text, text: 1}
    assert all(character.isprintable() or character == "\n" for character in written)
    written.encode()


def test_outputs_respect_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        files.write_text(tmp_path / "out", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_a_folder_for_outputs_goes_again_when_nothing_is_published_in_it(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="stop"), files.Outputs() as outputs:
        outputs.folder(inner)
        outputs.stage(inner / "x.txt").write_text("x")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []
    with files.Outputs() as outputs:
        outputs.folder(inner)
        outputs.stage(inner / "x.txt").write_text("x")
        outputs.publish()
    assert (inner / "x.txt").read_text() == "x"
