"""Models that read or give strings: numpy's strings in any form, through every command, without pickle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import graph
from onnxpress.bench.inputs import prepare as bench_inputs
from onnxpress_calibration.dataset import Dataset, InputSpec
from onnxpress_calibration.errors import DataError

WORDS = [f"w{index}" for index in range(20)]
TOKENS = f"[{', '.join(map(repr, WORDS))}]".replace("'", '"')
TEXT = f"""<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]> g (string[n,6] tok) => (OUTPUT)
{{ h = TfIdfVectorizer<mode="TF", min_gram_length=1, max_gram_length=1, max_skip_count=0, ngram_counts=[0],
       ngram_indexes={list(range(20))}, pool_strings={TOKENS}>(tok)
   a = Gemm(h, w1) c = Relu(a) l = Gemm(c, w2) END }}"""
SCORES = TEXT.replace("OUTPUT", "float[n,4] l").replace("END", "")
LABELS = TEXT.replace("OUTPUT", "string[n] label").replace(
    "END",
    """k = ArgMax<axis=1, keepdims=0>(l)
    label = ai.onnx.ml.LabelEncoder<keys_int64s=[0,1,2,3], values_strings=["cat","dog","eel","Łoś"]>(k)""",
)


def build(text: str, *, noise: float = 0.0) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in (("w1", (20, 64)), ("w2", (64, 4))):
        array = random.normal(size=shape) / 4 + noise * random.normal(size=shape)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return model


TOK = np.random.default_rng(1).choice(WORDS, (40, 6))
FORMS: dict[str, np.ndarray] = {
    "fixed width": TOK,
    "wider than needed": TOK.astype("<U50"),
    "bytes": np.char.encode(TOK),
    "objects": TOK.astype(object),
    "objects of bytes": np.char.encode(TOK).astype(object),
    "any width": TOK.astype(np.dtypes.StringDType()),
    "big-endian": TOK.astype(">U3"),
}
SPECS = {"tok": InputSpec(dtype=np.dtype(object), shape=(None, 6))}


@pytest.mark.parametrize("form", FORMS)
def test_strings_of_every_form_are_the_same_data(form: str) -> None:
    data = Dataset(origin="text", read=lambda: [{"tok": FORMS[form]}])
    batches = list(data.batches(SPECS))
    assert len(batches) == 40
    assert all(type(each) is str for batch in batches for each in batch["tok"].flat)
    assert np.concatenate([batch["tok"] for batch in batches]).tolist() == TOK.tolist()
    plain = Dataset(origin="text", read=lambda: [{"tok": TOK}])
    assert data.sha256 == plain.sha256
    drawn, right = ([each["tok"].tolist() for each in one.drawn(SPECS, 5).batches(SPECS)] for one in (data, plain))
    assert drawn == right


def test_words_that_only_joined_are_alike_are_different_data() -> None:
    one, other = (
        Dataset(origin="text", read=lambda words=words: [{"tok": np.array([words])}])  # type: ignore[misc]
        for words in (["ab", "c"], ["a", "bc"])
    )
    assert one.sha256 != other.sha256


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([[None] * 6], object), "holds None of type NoneType"),
        (np.array([["a", 1, "b", "c", "d", "e"]], object), "holds 1 of type int"),
        (np.array([[b"\xff"] * 6], object), r"b'\\xff' is no UTF-8 text"),
        (np.zeros((1, 6), np.int64), "dtype int64, the model expects object"),
        (np.array([["a"] * 5]), "shape 1x5, the model expects"),
    ],
)
def test_what_is_no_string_is_named(value: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(Dataset(origin="text", read=lambda: [{"tok": value}]).batches(SPECS))


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(build(SCORES), tmp_path / "text.onnx")
    onnx.save(build(LABELS), tmp_path / "labels.onnx")
    onnx.save(build(LABELS, noise=0.05), tmp_path / "other.onnx")
    np.savez(tmp_path / "d.npz", tok=TOK)
    np.savez(tmp_path / "labelled.npz", tok=TOK, y=np.array(["cat", "dog", "eel", "Łoś"] * 10))
    np.savez(tmp_path / "objects.npz", tok=TOK.astype(object))
    (tmp_path / "samples.py").write_text(
        "import numpy as np\ndef objects():\n    return {'tok': np.load('d.npz')['tok'].astype(object)}\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(
    "command",
    [
        "quantize text.onnx -o o.onnx --calibration d.npz",
        "quantize text.onnx -o o.onnx --calibration samples.py:objects",
        "quantize text.onnx -o o.onnx --mode dynamic",
        "quantize text.onnx -o o.onnx --mode fp16 --calibration d.npz",
        "quantize labels.onnx -o o.onnx --calibration d.npz",
        "prune text.onnx -o o.onnx --amount 25% --round-to 8",
        "prune text.onnx -o o.onnx --amount 25% --round-to 8 --calibration d.npz",
        "export text.onnx -o o.onnx",
        "inspect text.onnx",
        "profile text.onnx --data d.npz -o p.profile",
        "evaluate text.onnx text.onnx --data d.npz",
        "evaluate labels.onnx other.onnx --data d.npz",
        "bench text.onnx --budget 1s",
        "bench labels.onnx --inputs d.npz --budget 1s",
    ],
)
def test_commands_take_strings(compress: Callable[..., Any], command: str) -> None:
    ended = compress(*command.split())
    assert ended.code in (0, 4), ended.err  # 4: a second is too short to say how fast it is


@pytest.mark.usefixtures("_folder")
def test_pickled_strings_are_refused_with_what_to_do(compress: Callable[..., Any]) -> None:
    ended = compress("evaluate", "text.onnx", "--data", "objects.npz")
    assert ended.code == 3 and "numpy.array(strings, dtype=str)" in ended.err


@pytest.mark.usefixtures("_folder")
def test_distillation_names_the_input_of_strings(compress: Callable[..., Any]) -> None:
    pytest.importorskip("torch")
    ended = compress(*["distill", "text.onnx", "--teacher", "text.onnx", "--data", "d.npz", "-o", "o.onnx"])
    assert ended.code == 3 and "model input 'tok': holds strings" in ended.err


def test_synthetic_strings_are_those_that_the_model_knows() -> None:
    model = ir.from_proto(build(SCORES))
    fed = bench_inputs({"m": model}, baseline="m", data=None, seed=0)
    assert set(np.concatenate([sample["tok"].ravel() for sample in fed.samples]).tolist()) == set(WORDS)
    lower = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (string[n] s) => (string[n] t) '
        '{ t = StringNormalizer<case_change_action="LOWER">(s) }'
    )
    assert graph.words(ir.from_proto(lower).graph.inputs[0]) == ["a", "b", "c"]
