import hashlib
import sys
from types import ModuleType

import numpy as np
import pytest

from onnxpress_models.datasets import digits, unicode_names

SPLITS = ("train", "calibration", "test")


def rows(arrays: dict[str, np.ndarray]) -> set[bytes]:
    """Return the samples as bytes, without their labels."""
    inputs = [value.reshape(len(value), -1) for name, value in arrays.items() if name != "y"]
    return {b"".join(value[row].tobytes() for value in inputs) for row in range(len(inputs[0]))}


@pytest.mark.parametrize(
    ("split", "samples", "sha256"),
    [("train", 1097, "c7b1a6a0f0f8a15f"), ("calibration", 200, "8b506cfdd797657f"), ("test", 700, "3477f7643ac7f51e")],
)
def test_digits(split: str, samples: int, sha256: str) -> None:
    data = getattr(digits, split)()
    assert {name: (value.dtype, value.shape) for name, value in data.items()} == {
        "input": (np.float32, (samples, 1, 32, 32)),
        "y": (np.int64, (samples,)),
    }
    assert (data["input"].min(), data["input"].max()) == (0, 1)
    assert set(data["y"]) == set(range(10))
    assert hash_of(data) == sha256


@pytest.mark.parametrize(
    ("split", "samples", "sha256"),
    [("train", 4773, "cddb716b5abdda27"), ("calibration", 200, "902f21d35ec69959"), ("test", 1200, "ad63548d06208455")],
)
def test_unicode_names(split: str, samples: int, sha256: str) -> None:
    """The hash holds in Python 3.9 to 3.13: version 3.2.0 of the database is the same in all of them."""
    data = getattr(unicode_names, split)()
    assert {name: (value.dtype, value.shape) for name, value in data.items()} == {
        "input_ids": (np.int64, (samples, 48)),
        "attention_mask": (np.int64, (samples, 48)),
        "y": (np.int64, (samples,)),
    }
    assert 0 <= data["input_ids"].min() < data["input_ids"].max() < unicode_names.VOCABULARY
    assert set(data["y"]) == set(range(10))
    assert hash_of(data) == sha256


def hash_of(data: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(data):
        digest.update(name.encode() + data[name].tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("module", [digits, unicode_names])
def test_no_test_sample_is_seen_in_training(module: ModuleType) -> None:
    train, calibration, test = (rows(getattr(module, split)()) for split in SPLITS)
    assert calibration < train
    assert not train & test


def test_callers_get_arrays_of_their_own() -> None:
    unicode_names.test()["y"][:] = -1
    assert unicode_names.test()["y"].min() == 0


def test_digits_are_enlarged_with_centres_aligned() -> None:
    """Each 4x4 block of bilinear upsampling is symmetric around its pixel, so averaging blocks of an affine image
    gives the image back, away from the clamped border (independent of how the interpolation is computed)."""
    ramp = np.arange(8, dtype=np.float32)
    enlarged = digits._bilinear(8, 32) @ ramp
    np.testing.assert_allclose(enlarged[2:-2], (np.arange(32)[2:-2] + 0.5) / 4 - 0.5, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(enlarged[[0, 1, -2, -1]], [0, 0, 7, 7])


def test_digits_are_those_of_scikit_learn() -> None:
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    with np.load(digits.FILE) as embedded:
        np.testing.assert_array_equal(embedded["images"], bunch.images)
        np.testing.assert_array_equal(embedded["y"], bunch.target)


def test_names_spell_what_their_class_says() -> None:
    data = unicode_names.test()
    categories = list(unicode_names.CLASSES)
    spelt = ["".join(chr(token - 2 + ord(" ")) for token in row if token > 1) for row in data["input_ids"]]
    labels = dict(zip(spelt, (categories[label] for label in data["y"]), strict=True))
    capital = [name for name in labels if name.startswith("CYRILLIC CAPITAL LETTER")]
    assert capital
    assert {labels[name] for name in capital} == {"Lu"}
    np.testing.assert_array_equal(data["attention_mask"].sum(axis=1), [len(name) + 1 for name in spelt])


@pytest.mark.parametrize("module", [digits, unicode_names])
def test_data_needs_no_scikit_learn(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert len(module.test()["y"]) > 0
