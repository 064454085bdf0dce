from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.bench import inputs
from onnxpress.bench.inputs import prepare
from onnxpress.errors import DataError, ModelError
from onnxpress_calibration.dataset import Dataset


def model(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}'))


def data(**arrays: np.ndarray) -> Dataset:
    return Dataset(origin="test", read=lambda: [arrays])


FREE = model("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }")
FIXED = model("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }")
TOKENS = model(
    """g (int64[N, S] ids, int64[N, S] mask, bool[N] flag, uint8[N, 4] bytes, float[N, S] scores) => (float[N, S, 2] y)
    <float[7, 2] table = {0,1,2,3,4,5,6,7,8,9,10,11,12,13}> { y = Gather(table, ids) }"""
)


def test_real_samples_are_the_first_of_the_data_without_labels() -> None:
    values = np.arange(300, dtype=np.float32).reshape(100, 3)
    found = prepare({"float": FREE}, baseline="float", data=data(x=values, y=np.zeros(100)), seed=0)
    assert (found.kind, len(found.samples), found.batch, found.joinable) == ("real", inputs.SAMPLES, 1, True)
    assert all(list(sample) == ["x"] for sample in found.samples)
    np.testing.assert_array_equal(np.concatenate([sample["x"] for sample in found.samples]), values[:32])


def test_a_recurrent_state_whose_first_axis_counts_layers_is_fed_as_it_is() -> None:
    streaming = model(
        "g (float[N, 3] x, float[2, N, 4] state, int64 rate) => (float[N, 3] y, float[2, N, 4] z, int64 r) "
        "{ y = Relu(x) z = Relu(state) r = Identity(rate) }"
    )
    streaming.graph.inputs[2].shape = ir.Shape([])  # the parser has no word for a scalar
    x, state, rate = np.ones((5, 3), np.float32), np.zeros((5, 2, 1, 4), np.float32), np.full(5, 16000)
    found = prepare({"float": streaming}, baseline="float", data=data(x=x, state=state, rate=rate), seed=0)
    other = prepare({"float": streaming}, baseline="float", data=data(x=x, state=state + 1, rate=rate), seed=0)
    assert [value.shape for value in found.samples[0].values()] == [(1, 3), (2, 1, 4), ()]
    assert found.sha256 != other.sha256


def test_a_fixed_batch_is_fed_as_it_is() -> None:
    found = prepare({"float": FIXED}, baseline="float", data=data(x=np.ones((10, 3), np.float32)), seed=0)
    assert (found.batch, found.joinable, len(found.samples)) == (2, False, 5)


def test_an_axis_that_is_fixed_in_one_variant_is_fixed_for_all() -> None:
    found = prepare({"float": FREE, "int8": FIXED}, baseline="float", data=None, seed=0)
    assert (found.batch, found.joinable) == (2, False)


def test_samples_of_different_shape_are_not_joined() -> None:
    text = model("g (float[N, S] x) => (float[N, S] y) { y = Relu(x) }")
    chunks = [{"x": np.ones((1, size), np.float32)} for size in (3, 5)]
    found = prepare({"float": text}, baseline="float", data=Dataset(origin="test", read=lambda: chunks), seed=0)
    assert not found.joinable


def test_large_samples_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_BYTES", 100)
    found = prepare({"float": FREE}, baseline="float", data=data(x=np.ones((32, 3), np.float32)), seed=0)
    assert len(found.samples) == 100 // 12


def test_one_sample_stays_however_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_BYTES", 1)
    assert len(prepare({"float": FREE}, baseline="float", data=None, seed=0).samples) == 1


def test_synthetic_samples_stay_within_the_ranges_of_a_profile() -> None:
    mixed = model("g (float[N, 50] x, int64[N, 50] t, float[N, 5] z) => (float[N, 50] y) { y = Identity(x) }")
    found = prepare({"a": mixed}, baseline="a", data=None, ranges={"x": (0, 5), "t": (-2, 3)}, seed=0)
    assert found.kind == "synthetic" and found.ranged
    x = np.concatenate([sample["x"] for sample in found.samples])
    t = np.concatenate([sample["t"] for sample in found.samples])
    z = np.concatenate([sample["z"] for sample in found.samples])
    assert 0 <= x.min() < 0.1 and 4.9 < x.max() <= 5
    assert set(t.ravel().tolist()) == {-2, -1, 0, 1, 2, 3}
    assert z.min() < -1  # no range is known of this one
    assert not prepare({"a": mixed}, baseline="a", data=None, seed=0).ranged


def test_synthetic_samples_mean_something_and_are_never_zeros() -> None:
    found = prepare({"float": TOKENS}, baseline="float", data=None, seed=1)
    assert found.kind == "synthetic" and len(found.samples) == inputs.SAMPLES
    first = found.samples[0]
    assert {name: value.shape for name, value in first.items()} == {
        "ids": (1, 128),
        "mask": (1, 128),
        "flag": (1,),
        "bytes": (1, 4),
        "scores": (1, 128),
    }
    assert set(np.unique(first["ids"])) == set(range(7))  # rows of the table
    assert (first["mask"] == 1).all() and first["flag"].all()
    assert len(np.unique(np.concatenate([sample["bytes"] for sample in found.samples]))) > 60
    assert abs(first["scores"].mean()) < 0.5 and 0.7 < first["scores"].std() < 1.3


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    hashes = [prepare({"a": TOKENS}, baseline="a", data=None, seed=seed).sha256 for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_samples_are_written_as_workers_read_them(tmp_path: Path) -> None:
    found = prepare({"float": TOKENS}, baseline="float", data=None, seed=0)
    found.save(tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz") as file:
        np.testing.assert_array_equal(file["3.4"], found.samples[3]["scores"])
        assert len(file.files) == len(found.samples) * 5


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("g (float[N, 3] z) => (float[N, 3] y) { y = Relu(z) }", "its inputs are ['z'], those of 'float' are ['x']"),
        ("g (double[N, 3] x) => (double[N, 3] y) { y = Relu(x) }", "takes float64[?, 3], 'float' takes float32[?, 3]"),
        ("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }", "takes float32[?, 4], 'float' takes float32[?, 3]"),
        ("g (float[N, 3, 1] x) => (float[N, 3, 1] y) { y = Relu(x) }", "takes float32[?, 3, 1]"),
    ],
)
def test_variants_with_other_inputs_cannot_be_compared(other: str, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        prepare({"float": FREE, "int8": model(other)}, baseline="float", data=None, seed=0)
    assert says in str(caught.value) and "'int8'" in str(caught.value)


def test_a_model_without_inputs_cannot_be_fed() -> None:
    constant = model("g () => (float[1] y) { y = Constant <value = float[1] {1}> () }")
    with pytest.raises(ModelError, match="has no inputs"):
        prepare({"float": constant}, baseline="float", data=None, seed=0)


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="shape 1x4, the model expects"):
        prepare({"float": FREE}, baseline="float", data=data(x=np.ones((8, 4), np.float32)), seed=0)
