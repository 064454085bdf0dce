"""Archives: arrays are read piece by piece, and what is damaged, or made to harm, is one line and takes no memory."""

import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxpress_calibration.archives import Archive
from onnxpress_calibration.errors import DataError


def opened(path: Path) -> Archive:
    return Archive(path, "data", "Write it with numpy.savez.")


def with_header(path: Path, header: str, content: bytes = b"", compression: int = zipfile.ZIP_STORED) -> Path:
    """Write an archive with one array ``x`` of this header."""
    text = header.encode() + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x.npy", array)
    return path


ARRAYS = {
    "plain": np.arange(24.0).reshape(6, 4),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.int16).reshape(6, 4)),
    "words": np.array([["ä", "bc"], ["", "def"]]),
    "number": np.array(3.5),
    "none": np.empty((0, 3), np.float32),
    "thin": np.empty((6, 0), np.float32),
    "big_endian": np.arange(5, dtype=">i4"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_what_numpy_wrote(tmp_path: Path, name: str, save: Callable[..., None]) -> None:
    array = ARRAYS[name]
    save(tmp_path / "d.npz", **{name: array})
    with opened(tmp_path / "d.npz") as archive:
        (member,) = archive.arrays()
        np.testing.assert_array_equal(archive.array(member), array, strict=True)
        if array.ndim:
            for count in (1, 4, 100):
                pieces = list(archive.rows(member, count))
                np.testing.assert_array_equal(np.concatenate(pieces, dtype=array.dtype), array, strict=True)
                assert all(len(piece) <= count for piece in pieces)


def test_the_first_rows_are_read_without_the_rest(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((64, 1 << 20), np.uint8))
    tracemalloc.start()
    with opened(tmp_path / "d.npz") as archive:
        (member,) = archive.arrays()
        assert next(archive.rows(member, 2)).shape == (2, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


def test_a_header_of_python_2_is_read(tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2L,), }"
    with opened(with_header(tmp_path / "d.npz", header, np.ones(2, np.float32).tobytes())) as archive:
        assert archive.array(archive.arrays()[0]).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8)}", r"does not fit its 8 bytes"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -2)}", r"does not fit"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", r"does not fit"),
        ("{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999,)}", r"does not fit"),
        ("{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (1,)}", r"does not fit"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': '" + "-" * 60000 + "'}", "damaged header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2", "damaged header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 5000, "damaged header"),
        ("__import__('os').system('touch ran')", "damaged header"),
        ("{'descr': 'zzz', 'fortran_order': False, 'shape': (2,)}", "damaged header"),
        ("{}", "damaged header"),
    ],
)
def test_headers_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = with_header(tmp_path / "d.npz", header, b"12345678")
    with opened(path) as archive, pytest.raises(DataError, match=message):
        archive.arrays()
    assert list(tmp_path.iterdir()) == [path]


def test_endless_empty_entries_are_refused(tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 0)}"
    with opened(with_header(tmp_path / "d.npz", header)) as archive, pytest.raises(DataError, match="without a value"):
        archive.arrays()


class Canary:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([Canary(tmp_path / "ran")], object))
    with opened(tmp_path / "d.npz") as archive, pytest.raises(DataError, match="'x' holds Python objects"):
        archive.arrays()
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as made:
        made.writestr("x.npy", pickle.dumps(Canary(tmp_path / "ran")))
    with opened(tmp_path / "p.npz") as archive, pytest.raises(DataError, match="damaged header"):
        archive.arrays()
    assert not (tmp_path / "ran").exists()


def test_a_single_array_is_told_from_an_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros(2))
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    with pytest.raises(DataError, match="single array"):
        opened(tmp_path / "d.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_no_tool_writes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("x.npy", b"1")
        archive.writestr("x.npy", b"2")
    with pytest.raises(DataError, match="two members of one name"):
        opened(tmp_path / "twice.npz")
    np.savez(tmp_path / "d.npz", x=np.zeros(100))
    whole = (tmp_path / "d.npz").read_bytes()
    central = whole.index(b"PK\x01\x02")
    locked = bytearray(whole)
    locked[central + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(locked)
    with pytest.raises(DataError, match="encrypted"):
        opened(tmp_path / "locked.npz")
    greedy = bytearray(whole)
    greedy[central + 20 : central + 24] = (10**6).to_bytes(4, "little")
    (tmp_path / "greedy.npz").write_bytes(greedy)
    with pytest.raises(DataError, match="overlap"):
        opened(tmp_path / "greedy.npz")
    with pytest.raises(DataError, match="no such file"):
        opened(tmp_path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (1, 1 << 28)})
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", stream.getvalue())
    content = (tmp_path / "d.npz").read_bytes()
    central, size = content.index(b"PK\x01\x02"), len(stream.getvalue()) + (1 << 30) + 4
    (tmp_path / "d.npz").write_bytes(content[: central + 24] + size.to_bytes(4, "little") + content[central + 28 :])
    with opened(tmp_path / "d.npz") as archive, pytest.raises(DataError, match="does not fit"):
        archive.arrays()
    with pytest.raises(DataError, match="at most 10 are read"), opened(tmp_path / "d.npz") as archive:
        archive.read("x.npy", most_bytes=10)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_flipped_byte_and_truncation_is_one_error_or_none(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "d.npz", x=np.arange(12.0).reshape(3, 4), y=np.arange(3))
    whole = (tmp_path / "d.npz").read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        for damaged in (whole[:position], whole[:position] + bytes([whole[position] ^ 0xA5]) + whole[position + 1 :]):
            (tmp_path / "e.npz").write_bytes(damaged)
            try:
                with opened(tmp_path / "e.npz") as archive:
                    for member in archive.arrays():
                        archive.array(member)
            except DataError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > len(whole) // 3
