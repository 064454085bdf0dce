"""DATA: zoo names resolved here, everything else by the sources; paths in files relative to those files."""

from pathlib import Path

import numpy as np
import pytest

from onnxpress.data import dataset, resolve, shared_samples
from onnxpress.errors import DataError, UsageError


def test_the_zoo_has_data() -> None:
    (sample, *_) = dataset("zoo:digits/calibration", limit=3).samples()
    assert sample["input"].shape == (1, 1, 32, 32) and sample["input"].dtype == np.float32
    assert dataset("zoo:digits/calibration", limit=3).count == 3


def test_an_unknown_zoo_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="Did you mean 'digits/test'"):
        dataset("zoo:digits/tests")


def test_what_no_source_accepts_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"Give FILE\.npz"):
        dataset("what is this")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zoo:digits/test", "zoo:digits/test"),
        ("my.module:function", "my.module:function"),
        ("data.npz", "/recipes/data.npz"),
        ("../data.npz", "/recipes/../data.npz"),
        ("/else/data.npz", "/else/data.npz"),
        ("load.py:fn", "/recipes/load.py:fn"),
        ("/else/load.py:fn", "/else/load.py:fn"),
        ("$HERE/load.py:fn", "/here/load.py:fn"),
        ("${HERE}/images", "/here/images"),
    ],
)
def test_resolve(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "/here")
    assert resolve(text, Path("/recipes")) == expected


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(UsageError, match="environment variable NOT_SET_ANYWHERE is not set"):
        resolve("$NOT_SET_ANYWHERE/x.npz", Path("/recipes"))


def test_shared_samples_are_found_by_their_inputs_whatever_the_label(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.savez(tmp_path / "a.npz", x=x[:4])
    np.savez(tmp_path / "b.npz", x=x[2:], y=np.arange(4))
    one, other = dataset(str(tmp_path / "a.npz")), dataset(str(tmp_path / "b.npz"))
    assert shared_samples(one, other) == 2
    assert shared_samples(one, one) == 4
