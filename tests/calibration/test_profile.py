"""Profiles: what is written is read back; shards merge to the bits of one pass."""

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
    with pytest.raises(DataError, match="cannot be read"):
        Profile.read(tmp_path / "p")
