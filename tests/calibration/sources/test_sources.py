"""Sources: the grammar of DATA, and what each kind refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxpress_calibration import sources
from onnxpress_calibration.dataset import InputSpec
from onnxpress_calibration.errors import DataError
from onnxpress_calibration.preprocessing import Preprocessing
from onnxpress_calibration.sources import npz
from onnxpress_calibration.sources.function import load_function


def first(text: str) -> dict[str, np.ndarray]:
    return next(iter(sources.dataset(text).read()))  # type: ignore[return-value]


@pytest.mark.parametrize("name", sources.names())
def test_contract(name: str) -> None:
    module = sources.source(name)
    assert module.accepts("no such thing") is False
    assert callable(module.read)


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((2, 3)), y=np.zeros(2))
    assert first(str(tmp_path / "d.npz")).keys() == {"x", "y"}


def test_npz_is_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "CHUNK_BYTES", 100)
    arrays = {
        "x": np.arange(60.0, dtype=np.float32).reshape(10, 6),
        "y": np.arange(10, dtype=np.int8),
        "k": np.array(2),
    }
    np.savez(tmp_path / "d.npz", **arrays)
    data = sources.dataset(str(tmp_path / "d.npz"))
    assert [len(chunk["x"]) for chunk in data.read()] == [4, 4, 2]
    assert all(chunk["k"] == 2 for chunk in data.read())
    np.testing.assert_array_equal(np.concatenate([chunk["y"] for chunk in data.read()]), arrays["y"])
    specs = {"x": InputSpec(dtype=np.dtype(np.float32), shape=(5, 6))}  # a batch that does not divide the chunks
    assert [batch["y"].tolist() for batch in data.batches(specs)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert [batch["y"].tolist() for batch in sources.dataset(data.origin, 5).batches(specs)] == [[0, 1, 2, 3, 4]]


def test_npz_arrays_of_different_length(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=np.zeros(2))
    with pytest.raises(DataError, match=r"different length \{'x': 3, 'y': 2\}"):
        first(str(tmp_path / "d.npz"))


def test_npz_without_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz")
    with pytest.raises(DataError, match="holds no arrays"):
        first(str(tmp_path / "d.npz"))


def test_images_of_formats_that_start_programs_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    (tmp_path / "preprocessing.yaml").write_text("input: x\nsize: [2, 2]\n")
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        first(str(tmp_path))


def test_npz_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}], object))
    with pytest.raises(DataError, match=r"d\.npz: array 'x' holds Python objects"):
        first(str(tmp_path / "d.npz"))


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_broken_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz: is no archive, or truncated .* Write it with numpy\.savez"):
        first(str(tmp_path / "d.npz"))


def test_missing_files_and_unknown_words() -> None:
    with pytest.raises(DataError, match=r"nothing\.npz: no such file"):
        first("nothing.npz")
    with pytest.raises(DataError, match="no such file, folder or function"):
        sources.dataset("nothing at all")


def test_a_file_of_another_kind_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"")
    with pytest.raises(DataError, match=r"net\.pt: is no \.npz file"):
        sources.dataset(str(tmp_path / "net.pt"))


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "preprocessing.yaml").write_text("size: 2\n")
    with pytest.raises(DataError, match=r"holds no images\. Their names end in .*\.png"):
        first(str(tmp_path))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"labels\.csv: cannot be read \(No such file or directory\)\. Write it with the columns file,label"),
        ("", r"has no column 'file'\. Its first line must be `file,label`"),
        ("file,class\na.png,0\n", r"has no column 'label'"),
        ("file,label\na.png,cat\n", r"labels must be whole numbers \(.*'cat'\)"),
        ("file,label\nb.png,0\n", r"names none of the images\. They are named as they lie in .*, for example a\.png"),
    ],
)
def test_what_is_wrong_with_a_table_of_labels(tmp_path: Path, table: str | None, message: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "preprocessing.yaml").write_text("size: 2\nlabels: labels.csv\n")
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        first(str(tmp_path))


def test_function_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("VALUE = 7\n")
    (tmp_path / "data.py").write_text(
        "import numpy as np\nfrom neighbour import VALUE\n"
        "def whole(): return {'x': np.full((2, 1), VALUE)}\n"
        "def stream():\n    for n in (1, 2): yield {'x': np.zeros((n, 1))}\n"
    )
    assert first(f"{tmp_path}/data.py:whole")["x"].tolist() == [[7], [7]]
    assert [len(chunk["x"]) for chunk in sources.dataset(f"{tmp_path}/data.py:stream").read()] == [1, 2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('my loader broke')", r"data\.py:broken: fails: RuntimeError: my loader broke"),
        ("yield {}; raise KeyError('label')", r"data\.py:broken: fails: KeyError: 'label'"),
        ("return 5", r"data\.py:broken: returns int, not a dict of numpy arrays"),
    ],
)
def test_a_function_that_fails_is_its_owners_to_mend(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "data.py").write_text(f"def broken(): {body}\n")
    with pytest.raises(DataError, match=message):
        list(sources.dataset(f"{tmp_path}/data.py:broken").read())


def test_function_in_a_module_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_data.py").write_text("def x(): return {}\n")
    monkeypatch.chdir(tmp_path)
    assert load_function("my_own_data:x")() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{0}/data.py:absent", "has no function 'absent'. It has: real"),
        ("{0}/none.py:f", "no such file"),
        ("{0}/broken.py:f", "importing .* fails: ZeroDivisionError"),
        ("no_such_module_here:f", "no module named 'no_such_module_here'"),
    ],
)
def test_functions_that_cannot_be_loaded(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.py").write_text("def real(): return {}\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(DataError, match=message):
        load_function(text.format(tmp_path))


SPEC = "input: x\nsize: [2, 2]\nscale: 255\nmean: [0, 0, 0.5]\nstd: [1, 1, 0.5]\n"


def folder(tmp_path: Path, spec: str) -> str:
    for name, color in (("a.png", (255, 0, 255)), ("b.png", (0, 255, 0))):
        Image.new("RGB", (4, 2), color).save(tmp_path / name)
    (tmp_path / "preprocessing.yaml").write_text(spec)
    (tmp_path / "labels.csv").write_text("file,label\na.png,3\nb.png,1\n")
    return str(tmp_path)


def test_images_are_scaled_and_normalized(tmp_path: Path) -> None:
    chunk = first(folder(tmp_path, SPEC + "labels: labels.csv\n"))
    assert chunk["x"].shape == (2, 3, 2, 2) and chunk["x"].dtype == np.float32
    assert chunk["x"][0, :, 0, 0].tolist() == [1, 0, 1] and chunk["x"][1, :, 0, 0].tolist() == [0, 1, -1]
    assert chunk["y"].tolist() == [3, 1]


def test_images_channel_order_layout_and_crop(tmp_path: Path) -> None:
    chunk = first(folder(tmp_path, "input: x\nsize: [2, 2]\nresize: 2\ncolor: BGR\nlayout: NHWC\n"))
    assert chunk["x"].shape == (2, 2, 2, 3)
    assert chunk["x"][1, 0, 0].tolist() == [0, 1, 0]
    gray = first(folder(tmp_path, "input: x\nsize: [2, 2]\ncolor: L\n"))
    assert gray["x"].shape == (2, 1, 2, 2)


def test_images_with_a_wrong_specification(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"preprocessing\.yaml: unknown key 'sizes'. Did you mean 'size'"):
        first(folder(tmp_path, "sizes: 3\n"))


def test_images_of_a_model_with_one_input_need_no_name_and_no_file(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2), (255, 0, 255)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="nothing says how its images become arrays"):
        first(str(tmp_path))
    data = sources.dataset(str(tmp_path), preprocessing=Preprocessing.given("size: 2"))
    spec = InputSpec(dtype=np.dtype(np.float32), shape=(None, 3, 2, 2))
    (batch,) = data.batches({"pixels": spec})
    assert batch["pixels"][0, :, 0, 0].tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="does not say which of the model's inputs"):
        list(data.batches({"pixels": spec, "more": spec}))


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    place = folder(tmp_path, SPEC)
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"c\.png: not a readable image"):
        first(place)
