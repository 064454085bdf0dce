"""Profiles: what is written is read back; shards merge to the bits of one pass."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from onnxpress_calibration.errors import DataError
from onnxpress_calibration.profile import Profile
from onnxpress_calibration.statistics import ChannelStatistics, TensorStatistics


def profile(values: np.ndarray, data: str = "d", model: str = "m") -> Profile:
    statistics = TensorStatistics(channels=ChannelStatistics(axis=-1))
    for pair in np.split(values.astype(np.float32), len(values) // 2):
        statistics.update(pair)
    tensors = {"x": statistics, "never": TensorStatistics()}
    return Profile(model_sha256=model, data_sha256=data, samples=len(values), tensors=tensors)


def test_round_trip(tmp_path: Path) -> None:
    written = profile(np.random.default_rng(0).normal(size=1000))
    written.write(tmp_path / "p.profile")
    back = Profile.read(tmp_path / "p.profile")
    assert (back.model_sha256, back.data_sha256, back.samples) == ("m", "d", 1000)
    assert (back.tensors["x"].counts == written.tensors["x"].counts).all()
    assert (back.tensors["x"].low, back.tensors["x"].high) == (written.tensors["x"].low, written.tensors["x"].high)
    assert back.tensors["never"].count == 0 and back.tensors["never"].channels is None
    mine, theirs = written.tensors["x"].channels, back.tensors["x"].channels
    assert mine is not None and theirs is not None and back.axes == {"x": -1}
    assert (mine.count, list(mine.low), list(mine.high)) == (theirs.count, list(theirs.low), list(theirs.high))
    assert (mine.sums.limbs == theirs.sums.limbs).all() and (mine.squares.limbs == theirs.squares.limbs).all()


def test_equal_profiles_have_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        profile(np.arange(6.0)).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_merged_shards_equal_one_pass() -> None:
    values = np.random.default_rng(0).normal(size=300)
    merged = profile(values[:100], "a").merged(profile(values[100:], "b"))
    assert (merged.tensors["x"].counts == profile(values).tensors["x"].counts).all()
    assert merged.samples == 300
    assert merged.data_sha256 == "a+b" == profile(values[100:], "b").merged(profile(values[:100], "a")).data_sha256


def test_profiles_of_different_models_do_not_merge() -> None:
    with pytest.raises(DataError, match="different models"):
        profile(np.ones(2)).merged(profile(np.ones(2), model="other"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text"])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(DataError, match="is no archive, or truncated"):
        Profile.read(tmp_path / "p")


def damaged(path: Path, key: str, value: object) -> Path:
    """Write a profile whose file has another header entry, or another array."""
    profile(np.random.default_rng(0).normal(size=100)).write(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays["header"]))
    if key in header:
        arrays["header"] = np.array(json.dumps(header | {key: value}))
    else:
        arrays[key] = np.asarray(value)
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return path


CHANNELS = {"tensor": "x", "axis": -1, "count": 1, "size": 1}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", None, "schema None"),
        ("samples", -1, "samples: -1 is no count"),
        ("samples", True, "samples: bool in place of int"),
        ("samples", 1 << 70, "is no count"),
        ("tensors", ["x", "x"], "different names"),
        ("tensors", [1, 2], "different names"),
        ("tensors", None, "tensors: NoneType"),
        ("tensors", ["x"], r"ranges: float64 \[2, 2\], not"),
        ("channels", None, "channels: NoneType in place of list"),
        ("channels", [1], "mappings"),
        ("channels", [{}], "tensor: NoneType"),
        ("channels", [CHANNELS | {"tensor": "other"}], "'other'"),
        ("channels", [CHANNELS | {"axis": 1 << 40}], "axis 1099511627776"),
        ("channels", [CHANNELS | {"size": -1}], "is no count"),
        ("channels", [CHANNELS | {"size": 1 << 60}], "lows: float32"),
        ("channels", [CHANNELS, CHANNELS], "twice"),
        ("model_sha256", ["a"], "model_sha256: list"),
        ("header", "{" * 10000, "is damaged"),
        ("header", "[" * 100000, "is damaged"),
        ("ranges", np.full((2, 2), np.nan), "'never': the range"),
        ("ranges", [[np.inf, -np.inf], [1.0, -1.0]], "'x': the range 1.0 to -1.0"),
        ("ranges", np.zeros((2, 2), np.float32), "ranges: float32"),
        ("sizes", [-1, 10**18], "bins: uint16"),
        ("sizes", [[1, 2]], "sizes: int64"),
        ("bins", np.zeros(0, np.uint16), "bins: uint16"),
        ("counts", [0.5], "counts: float64"),
        ("squares", np.zeros((1, 1), np.int64), "squares: int64"),
    ],
)
def test_what_a_damaged_file_says_is_not_believed(tmp_path: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Profile.read(damaged(tmp_path / "p.profile", key, value))


def test_statistics_that_cannot_be(tmp_path: Path) -> None:
    profile(np.arange(2.0)).write(tmp_path / "p")
    with np.load(tmp_path / "p") as file:
        bins, counts, lows = (file[name] for name in ("bins", "counts", "lows"))
    for key, value, message in (
        ("counts", -counts, "not positive"),
        ("counts", np.full_like(counts, 1 << 62), "too large"),
        ("bins", bins[::-1].copy(), "not in order"),
        ("bins", np.array([0, 0x7F80], np.uint16), "no numbers"),
        ("lows", np.full_like(lows, np.nan), "not finite"),
    ):
        with np.load(tmp_path / "p") as file:
            arrays = {name: file[name] for name in file.files} | {key: value}
        with (tmp_path / "q").open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=message):
            Profile.read(tmp_path / "q")


def test_every_flipped_byte_is_one_error_or_none(tmp_path: Path) -> None:
    profile(np.random.default_rng(0).normal(size=10)).write(tmp_path / "p")
    whole = (tmp_path / "p").read_bytes()
    for position in range(0, len(whole), 3):
        (tmp_path / "q").write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        with contextlib.suppress(DataError):
            Profile.read(tmp_path / "q")
