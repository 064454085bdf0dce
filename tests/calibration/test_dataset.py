"""Data sets: batches as a model wants them, and every kind of data that does not fit named."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress_calibration import dataset
from onnxpress_calibration.dataset import Dataset, InputSpec, samples_in
from onnxpress_calibration.errors import DataError

X = {"x": InputSpec(dtype=np.dtype(np.float32), shape=(None, 2))}


def data(*chunks: dict[str, np.ndarray], limit: int | None = None) -> Dataset:
    return Dataset(origin="test", read=lambda: list(chunks), limit=limit)


def rows(count: int, start: int = 0) -> dict[str, np.ndarray]:
    return {"x": (np.arange(count * 2, dtype=np.float32) + start).reshape(count, 2), "y": np.arange(count)}


def test_chunks_are_split_but_never_joined() -> None:
    sizes = [len(batch["x"]) for batch in data(rows(5), rows(1)).batches(X, 2)]
    assert sizes == [2, 2, 1, 1]


def test_labels_come_along_and_foreign_arrays_do_not() -> None:
    (batch,) = data(rows(3) | {"other": np.zeros(3)}).batches(X, 8)
    assert batch.keys() == {"x", "y"}


def test_limit_cuts_across_chunks() -> None:
    limited = data(rows(5), rows(5), limit=7)
    assert limited.count == 7
    assert [len(batch["x"]) for batch in limited.batches(X, 4)] == [4, 1, 2]


def test_a_fixed_first_axis_sets_the_batch() -> None:
    fixed = {"x": InputSpec(dtype=np.dtype(np.float32), shape=(1, 2))}
    assert [len(batch["x"]) for batch in data(rows(3)).batches(fixed, 32)] == [1, 1, 1]


def test_a_remainder_that_a_fixed_model_cannot_take_is_an_error() -> None:
    fixed = {"x": InputSpec(dtype=np.dtype(np.float32), shape=(2, 2))}
    with pytest.raises(DataError, match=r"sample 2, input 'x': shape 1x2, the model expects 2x2"):
        list(data(rows(3)).batches(fixed))


def test_the_hash_is_of_the_samples_not_of_the_chunks() -> None:
    assert data(rows(4)).sha256 == data(rows(2), {k: v[2:] for k, v in rows(4).items()}).sha256
    assert data(rows(4)).sha256 != data(rows(4, start=1)).sha256


def test_it_can_be_read_again() -> None:
    samples = data(rows(3))
    (first,), (second,) = samples.batches(X, 3), samples.batches(X, 3)
    assert first["x"].tolist() == second["x"].tolist()


def test_another_width_is_converted_where_nothing_is_lost() -> None:
    (batch,) = data({"x": np.array([[0.5, 1e30]]).astype(np.float32).astype(np.float64)}).batches(X)
    assert batch["x"].dtype == np.float32
    ids = {"x": InputSpec(dtype=np.dtype(np.int32), shape=(None, 2))}
    (batch,) = data({"x": np.array([[7, -(2**31)]])}).batches(ids)
    assert batch["x"].dtype == np.int32 and batch["x"].tolist() == [[7, -(2**31)]]
    with pytest.raises(DataError, match="dtype int64, the model expects int32, which cannot hold its values"):
        list(data({"x": np.array([[7, 2**31]])}).batches(ids))


def nan() -> dict[str, np.ndarray]:
    broken = rows(3)
    broken["x"][2, 1] = np.nan
    return broken


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "holds no samples"),
        ([{"x": np.empty((0, 2), np.float32)}], "holds no samples"),
        ([{"image": np.zeros((1, 2), np.float32)}], r"has no array 'x'.*the data has \['image'\]"),
        ([{"x": np.zeros((1, 3), np.float32)}], r"sample 0, input 'x': shape 1x3, the model expects \?x2"),
        ([{"x": np.zeros(4, np.float32)}], "shape 1, the model expects"),
        ([{"x": np.zeros((1, 2), np.int64)}], "dtype int64, the model expects float32"),
        ([{"x": np.full((1, 2), 0.1)}], r"dtype float64, the model expects float32, which .*: astype\('float32'\)"),
        ([{"x": np.full((1, 2), 1e300)}], "dtype float64, the model expects float32, which cannot hold its values"),
        ([{"x": np.full((1, 2), np.nan)}], "sample 0, input 'x': holds NaN"),
        ([{"x": np.zeros((2, 2), np.float32), "y": np.zeros(3)}], "different length"),
        ([nan()], "sample 2, input 'x': holds NaN"),
        ([[1, 2]], "yields list, not a dict"),
        ([{"x": [1, 2]}], "yields a dict in which 'x' is a list, not a dict of numpy arrays"),
        ([7], "yields int, not a dict of numpy arrays"),
    ],
)
def test_data_that_does_not_fit_is_named(chunks: Iterable[dict[str, np.ndarray]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(data(*chunks).batches(X))


def test_whole_inputs_lie_on_an_axis_of_their_own() -> None:
    """A recurrent model's state is [2, batch, 128] and its rate a number: samples cannot lie on their first axis."""
    frames, states = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(3 * 2 * 1 * 5).reshape(3, 2, 1, 5)
    chunk = {"frame": frames, "state": states.astype(np.float32), "rate": np.array([8, 16, 16])}
    inputs = {
        "frame": InputSpec(dtype=np.dtype(np.float32), shape=(None, 4)),
        "state": InputSpec(dtype=np.dtype(np.float32), shape=(2, None, 5)),
        "rate": InputSpec(dtype=np.dtype(np.int64), shape=()),
    }
    batches = list(Dataset(origin="speech", read=lambda: [chunk]).batches(inputs, 2))
    assert [batch["frame"].shape for batch in batches] == [(1, 4)] * 3
    assert [batch["state"].shape for batch in batches] == [(2, 1, 5)] * 3
    assert [int(batch["rate"]) for batch in batches] == [8, 16, 16]
    assert [samples_in(batch) for batch in batches] == [1, 1, 1]
    assert (batches[1]["state"] == states[1]).all()


def test_drawn_samples_depend_on_nothing_but_what_they_hold() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    specs = {"x": InputSpec(dtype=np.dtype(np.float32), shape=(None, 3))}
    forth = Dataset(origin="a", read=lambda: [{"x": values}]).drawn(specs, 8)
    back = Dataset(origin="b", read=lambda: [{"x": values[30:][::-1]}, {"x": values[:30]}]).drawn(specs, 8)
    taken = [np.concatenate([batch["x"] for batch in data.batches(specs)]) for data in (forth, back)]
    assert len(taken[0]) == 8 and np.array_equal(*taken)
    pairs = {"x": InputSpec(dtype=np.dtype(np.float32), shape=(2, 3))}
    assert forth.count == 8
    assert [
        len(batch["x"]) for batch in Dataset(origin="c", read=lambda: [{"x": values}]).drawn(pairs, 5).batches(pairs)
    ] == [2, 2]


def test_drawn_samples_are_held_within_bounds_and_the_data_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    specs = {"x": InputSpec(dtype=np.dtype(np.float32), shape=(None, 3))}
    read = []
    whole = Dataset(origin="a", read=lambda: read.append(1) or [{"x": values}])
    drawn = whole.drawn(specs, 20)
    assert not read
    assert drawn.drawn(specs, 5).sha256 == whole.drawn(specs, 5).sha256 == replace(drawn, limit=5).sha256
    assert drawn.count == 20 and len(read) == 2
    monkeypatch.setattr(dataset, "MOST_BYTES", 8 * values[0].nbytes)
    few, turned = whole.drawn(specs, 20), Dataset(origin="b", read=lambda: [{"x": values[::-1]}]).drawn(specs, 20)
    assert few.sha256 == turned.sha256 == replace(drawn, limit=8).sha256
    monkeypatch.setattr(dataset, "MOST_BYTES", 1)
    assert whole.drawn(specs, 20).count == 1


@pytest.mark.parametrize("limit", [None, 3, 5, 6, 20])
def test_hash_and_count_are_made_in_passing_by_whoever_reads_all(limit: int | None) -> None:
    read = []
    chunks = [rows(5), rows(4)]
    whole = Dataset(origin="a", read=lambda: read.append(1) or iter(chunks), limit=limit)
    expected = replace(whole).sha256
    next(whole.batches(X, 2))
    assert len(list(whole.batches(X, 2))) >= 2 and len(read) == 3
    assert whole.sha256 == expected and whole.count == min(limit or 9, 9) and len(read) == 3


@given(count=st.integers(1, 300), share=st.sampled_from([0.0, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.9]))
def test_split_takes_a_share_that_is_spread_over_all(count: int, share: float) -> None:
    parts = data(rows(count)).split(X, share)
    rest, taken = ([int(sample["x"][0, 0]) // 2 for sample in part.samples()] for part in parts)
    assert sorted(rest + taken) == list(range(count))
    assert bool(taken) == (share > 0)
    for end in range(count + 1):  # in every beginning of the data
        assert abs(sum(number < end for number in taken) - share * end) <= 1


def test_split_takes_the_same_samples_whatever_the_chunks_and_whole_batches() -> None:
    whole, _ = data(rows(30)).split(X, 0.2)
    pieces, _ = data({k: v[:7] for k, v in rows(30).items()}, {k: v[7:] for k, v in rows(30).items()}).split(X, 0.2)
    assert whole.sha256 == pieces.sha256
    fixed = {"x": InputSpec(dtype=np.dtype(np.float32), shape=(4, 2))}
    assert [part.count for part in data(rows(40)).split(fixed, 0.2)] == [32, 8]


def test_split_keeps_chunks_and_the_numbers_of_samples_in_messages() -> None:
    rest, _ = data(rows(20), rows(10)).split(X, 0.1)
    assert [len(batch["x"]) for batch in rest.batches(X, 64)] == [18, 9]
    broken = rows(20)
    broken["x"][17] = np.nan
    with pytest.raises(DataError, match="sample 27, "):
        list(data(rows(10), broken).split(X, 0.1)[0].batches(X))


def test_split_of_whole_inputs() -> None:
    state = {"s": InputSpec(dtype=np.dtype(np.float32), shape=(2, None))}
    chunk = {"s": np.arange(60, dtype=np.float32).reshape(10, 2, 3)}
    rest, taken = data(chunk).split(state, 0.2)
    assert [[batch["s"].shape for batch in part.batches(state)] for part in (rest, taken)] == [
        [(2, 3)] * 8,
        [(2, 3)] * 2,
    ]


def test_a_number_per_sample_stays_an_array() -> None:
    specs = {
        "x": InputSpec(dtype=np.dtype(np.float32), shape=(None, 2)),
        "rate": InputSpec(dtype=np.dtype(np.int64), shape=()),
    }
    arrays = {"x": np.ones((3, 2), np.float32), "rate": np.full(3, 16000)}
    for batch in Dataset(origin="d", read=lambda: [arrays]).batches(specs):
        assert isinstance(batch["rate"], np.ndarray) and batch["rate"].shape == ()
