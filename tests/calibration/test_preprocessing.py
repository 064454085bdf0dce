"""What says how images become arrays: lenient where it is clear, and one line where it is not."""

from pathlib import Path

import numpy as np
import pytest

from onnxpress_calibration.errors import DataError
from onnxpress_calibration.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("size: 32", (32, 32)),
        ("size: '32'", (32, 32)),
        ("size: 224x192", (224, 192)),
        ("size: [224, 192]", (224, 192)),
        ("size: 8, color: gray, layout: hwc", (8, 8)),
    ],
)
def test_the_size_is_read_as_people_write_it(text: str, size: tuple[int, int]) -> None:
    assert Preprocessing.given(text).size == size


def test_words_in_any_case_and_one_number_for_all_channels() -> None:
    found = Preprocessing.given("size: 8, color: bgr, layout: nhwc, mean: 0.5, std: 0.5")
    assert (found.color, found.layout) == ("BGR", "NHWC")
    pixels = np.array([[[255, 0, 51]]], np.float32)
    assert found.normalized(pixels)[0, 0].tolist() == pytest.approx([-0.6, -1, 1])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mean: 0.5", "'size' is missing. For example size: 224"),
        ("size: 224, meen: 0.5", "unknown key 'meen'. Did you mean 'mean'?"),
        ("size: 0", "size.0: Input should be greater than 0"),
        ("size: big", "size.0: Input should be a valid integer"),
        ("size: [1, 2, 3]", "size"),
        ("size: 8, std: 0", "std.0: Input should be greater than 0"),
        ("size: 8, mean: [1, 2]", "mean: has 2 numbers; give one, or one for each of 3 channels"),
        ("size: 8, mean: .nan", "not a finite number"),
        ("size: 8, color: CMYK", "color: Input should be 'RGB', 'BGR' or 'L'"),
        ("size: 8, color: {a: b}", "color: Input should be 'RGB', 'BGR' or 'L'"),
        ("size: 32, resize: 16", "resize: 16 leaves less than the crop of 32x32 pixels"),
        ("size: [", "not YAML"),
        ("nowhere.yaml", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, says: str) -> None:
    with pytest.raises(DataError) as error:
        Preprocessing.given(text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("size: 16\nscale: 1\n")
    assert Preprocessing.given(str(tmp_path / "p.yaml")).scale == 1
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"list\.yaml: is no list of keys and values"):
        Preprocessing.read(tmp_path / "list.yaml")
