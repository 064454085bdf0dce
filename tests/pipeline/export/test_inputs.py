import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onnxpress.export import ExportOptions
from onnxpress.export.inputs import BATCH, DTYPES, InputArgument, batch_words, choose_sizes, parse, random_arrays


@pytest.mark.parametrize(
    ("text", "name", "shape", "sizes"),
    [
        ("x:float32:batchx3x224x224", "x", ("batch", 3, 224, 224), {}),
        ("ids:int64:batchxlength=8", "ids", ("batch", "length"), {"length": 8}),
        ("boxes:float32:batch,boxes,4", "boxes", ("batch", "boxes", 4), {}),
        ("sr:int64:", "sr", (), {}),
        ("a:b:bool:5", "a:b", (5,), {}),
    ],
)
def test_parse(text: str, name: str, shape: tuple[int | str, ...], sizes: dict[str, int]) -> None:
    argument = parse(text)
    assert (argument.name, argument.shape, argument.sizes) == (name, shape, sizes)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", "is not NAME:DTYPE:SHAPE"),
        ("x:float32", "is not NAME:DTYPE:SHAPE"),
        (":float32:3", "is not NAME:DTYPE:SHAPE"),
        ("x:float:3", "dtype 'float' is not one of float32"),
        ("x:float32:batchx0", "axis '0' is neither"),
        ("x:float32:batchx-1", "axis '-1' is neither"),
        ("x:float32:batchxx3", "axis '' is neither"),
        ("x:float32:batch=two", "axis 'batch=two' is neither"),
    ],
)
def test_what_is_no_input(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


WORDS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)


@given(
    name=st.from_regex(r"[a-z:.]{1,9}", fullmatch=True),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(WORDS | st.integers(1, 999)),
)
def test_text_and_back(name: str, dtype: str, shape: list[int | str]) -> None:
    argument = InputArgument(name=name, dtype=dtype, shape=tuple(shape), sizes={})
    if shape == [word for word in shape if isinstance(word, str) and "x" in word][:1]:
        return  # a single axis needs no comma, so its word cannot hold an x
    assert parse(str(argument)) == argument


def test_batch_words_stand_on_the_first_axis_only() -> None:
    arguments = [parse("x:float32:batchxsteps"), parse("mask:bool:stepsxsteps"), parse("y:float32:3")]
    assert batch_words(arguments) == {"batch"}


def test_random_arrays_are_in_range_and_the_same_each_time() -> None:
    arguments = [
        parse("x:float16:n"),
        parse("b:bool:n"),
        InputArgument(name="ids", dtype="int32", shape=("n",), sizes={}, low=5, high=9),
        parse("u:uint8:n"),
        parse("s:int64:"),
    ]
    arrays = random_arrays(arguments, {"n": 1000})
    assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
        "x": ("float16", (1000,)),
        "b": ("bool", (1000,)),
        "ids": ("int32", (1000,)),
        "u": ("uint8", (1000,)),
        "s": ("int64", ()),
    }
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert set(arrays["ids"]) == {5, 6, 7, 8}
    assert set(arrays["u"]) == {0, 1}
    assert set(arrays["b"]) == {True, False}
    again = random_arrays(arguments, {"n": 1000})
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())


def test_sizes_are_chosen_until_the_model_runs() -> None:
    arguments = [parse("x:float32:batchxheightxwidthxdepth=5")]

    def run(feeds: dict[str, np.ndarray]) -> None:
        assert feeds["x"].shape[1] >= 60

    assert choose_sizes(arguments, run) == {"batch": BATCH, "height": 64, "width": 128, "depth": 5}


def test_the_first_failure_is_told() -> None:
    shapes = []

    def run(feeds: dict[str, np.ndarray]) -> None:
        shapes.append(feeds["x"].shape)
        raise RuntimeError(f"no {len(shapes)}")

    with pytest.raises(RuntimeError, match="no 1"):
        choose_sizes([parse("x:float32:batchxlength")], run)
    assert len(shapes) == 3
    with pytest.raises(RuntimeError, match="no 4"):
        choose_sizes([parse("x:float32:batchx7")], run)
    assert len(shapes) == 4, "nothing else to try"


def test_options_from_a_recipe_and_from_the_command_line() -> None:
    recipe = ExportOptions.model_validate({"inputs": {"x": "float32:batchx3"}, "weights": "w.safetensors"})
    line = ExportOptions.model_validate({"inputs": ["x:float32:batchx3"], "weights": "w.safetensors"})
    assert recipe == line
    assert ExportOptions.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    "wrong", [{"inputs": ["x"]}, {"inputs": ["x:int8:1", "x:int8:1"]}, {"atol": -1}, {"wieghts": "w"}, {"opset": "new"}]
)
def test_wrong_options(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExportOptions.model_validate(wrong)
