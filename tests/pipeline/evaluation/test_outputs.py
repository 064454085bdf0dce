"""Outputs of every form: brought to tensors, matched where their number depends on the data, refused in one line."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.errors import DataError, ModelError
from onnxpress.evaluation import metrics
from onnxpress.evaluation.fidelity import Fidelity
from onnxpress.evaluation.outputs import detections, pairs, tensors

BOXES = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60.0]], np.float32)
NONE = np.zeros((0, 4), np.float32)


def test_sequences_maps_and_optional_values_become_tensors() -> None:
    found = tensors(
        {
            "s": [np.ones(2), np.zeros(3)],
            "probabilities": [{"dog": 0.25, "cat": 0.75}, {"dog": 0.5, "cat": 0.5}],
            "m": {2: 1.0, 1: 3.0},
            "uneven": [{"a": 1.0}, {"b": 1.0}],
            "nothing": None,
            "scalar": np.float32(3),
        }
    )
    assert {name: value.tolist() for name, value in found.items()} == {
        "s[0]": [1, 1],
        "s[1]": [0, 0, 0],
        "probabilities{cat, dog}": [[0.75, 0.25], [0.5, 0.5]],
        "m{1, 2}": [[3, 1]],
        "uneven[0]{a}": [[1]],
        "uneven[1]{b}": [[1]],
        "scalar": 3,
    }


def model(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}'))


def test_detections_are_found_by_the_free_axis_behind_a_suppression() -> None:
    found = detections(
        model(
            """g (float[n,8,4] b, float[n,2,8] s)
            => (float[k,4] picked, float[n,k,4] rows, float[n,8,4] all, float[3] top)
            { i = NonMaxSuppression(b, s) picked = Foo(b, i) rows = Foo(b, i) top = Foo(i) all = Identity(b) }"""
        )
    )
    assert found == {"picked": 0, "rows": 1}
    assert detections(model("g (float[n,8] x) => (float[n,3] y) { y = Foo(x) }")) == {}


def compared(one: dict[str, np.ndarray], other: dict[str, np.ndarray], boxes: dict[str, int] | None = None) -> Fidelity:
    fidelity = Fidelity()
    fidelity.update(one, other, samples=1, found=boxes or {}, variant="int8")
    return fidelity


def test_boxes_are_matched_whatever_their_order() -> None:
    labels = np.array([7, 8, 9])
    order = [2, 0, 1]
    one, other = {"b": BOXES, "l": labels}, {"b": BOXES[order] + 0.1, "l": labels[order]}
    fidelity = compared(one, other, {"b": 0, "l": 0})
    assert fidelity.sqnr_db is not None
    np.testing.assert_allclose(fidelity.sqnr_db, 10 * np.log10((BOXES**2).sum() / (12 * 0.1**2)), rtol=1e-3)
    assert fidelity.agreement_pct is None and fidelity.expected_drop is None
    (_, of_labels) = pairs(one, other, {"b": 0, "l": 0}, "int8")
    assert (of_labels.wanted == of_labels.given).all()


def test_a_box_that_only_one_finds_counts_whole() -> None:
    for one, other in ((BOXES, BOXES[1:]), (BOXES[1:], BOXES)):
        fidelity = compared({"b": one}, {"b": other}, {"b": 0})
        assert fidelity.sqnr_db is not None
        signal, noise = (one**2).sum(), (BOXES[0] ** 2).sum()
        np.testing.assert_allclose(fidelity.sqnr_db, 10 * np.log10(signal / noise), rtol=1e-6)


def test_no_box_at_all() -> None:
    nothing = compared({"b": NONE}, {"b": NONE}, {"b": 0})
    assert not nothing.is_evidence and nothing.cosine is None and nothing.sqnr_db is None
    assert nothing.agreement_pct is None
    for one, other in ((BOXES, NONE), (NONE, BOXES)):
        ruined = compared({"b": one}, {"b": other}, {"b": 0})
        assert ruined.is_evidence and ruined.cosine == 0
        assert ruined.sqnr_db is not None and ruined.sqnr_db <= 0, "boxes that only one finds are no agreement"
    with np.errstate(all="raise"):
        assert compared({"b": NONE}, {"b": BOXES}, {"b": 0}).intervals()["sqnr_db"] is None


def test_one_row_of_boxes_in_one_sample_is_no_row_of_classes() -> None:
    fidelity = Fidelity()
    for count in (1, 2, 1):
        fidelity.update({"b": BOXES[:count]}, {"b": BOXES[:count]}, samples=1)
    assert fidelity.agreement_pct is None and fidelity.intervals()["agreement_pct"] is None
    scores = compared({"s": np.array([[0.1, 0.9]])}, {"s": np.array([[0.2, 0.8]])})
    assert scores.agreement_pct == 100


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_matching_loses_and_invents_nothing(one: int, other: int, seed: int, axis: int) -> None:
    random = np.random.default_rng(seed)
    shapes = [[1, 1, 1, 4][-3:] for _ in range(2)]
    for shape, count in zip(shapes, (one, other), strict=True):
        shape[axis] = count
    a, b = (random.normal(size=shape) for shape in shapes)
    (pair,) = pairs({"x": a}, {"x": b}, {"x": axis}, "int8")
    rows = max(one, other)
    assert pair.wanted.shape == pair.given.shape and len(pair.wanted) == rows
    np.testing.assert_allclose(np.sort(pair.wanted[np.any(pair.wanted, 1)], None), np.sort(a, None))
    np.testing.assert_allclose(np.sort(pair.given[np.any(pair.given, 1)], None), np.sort(b, None))
    (same,) = pairs({"x": a}, {"x": np.flip(a, axis)}, {"x": axis}, "int8")
    np.testing.assert_array_equal(same.wanted, same.given)


def test_sequences_of_other_lengths_count_what_is_missing() -> None:
    one, other = tensors({"s": [BOXES, BOXES + 1]}), tensors({"s": [BOXES]})
    assert compared(one, one).sqnr_db is None
    missing = compared(one, other)
    assert missing.sqnr_db == 0, "the second entry is all noise"
    assert compared(one, tensors({"s": []})).sqnr_db == 0
    assert compared(tensors({"s": []}), one).sqnr_db == -100, "there should be nothing"


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"a": BOXES}, {"b": BOXES}, r"output 'a': 'int8' has none of this name, only \['b'\]"),
        ({"a": BOXES}, {"a": BOXES[:1, :2]}, r"output 'a': 'int8' gives float32\[1, 2\], the baseline float32\[3, 4\]"),
        ({"a": BOXES}, {"a": BOXES[None]}, "the baseline"),
        ({"a": BOXES}, {"a": BOXES.astype(np.int64)}, r"gives int64\[3, 4\]"),
        ({"p{a, b}": BOXES}, {"p{a, c}": BOXES}, "has none of this name"),
    ],
)
def test_what_cannot_be_compared_names_the_way_out(
    one: dict[str, np.ndarray], other: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        compared(one, other)
    assert "--metric module:fn" in str(refused.value) and "\n" not in str(refused.value)


def test_values_that_are_no_numbers_count_by_equality() -> None:
    labels = Fidelity()
    for mine, theirs in zip("aabbccddee", "aabbccddeX", strict=True):
        labels.update({"l": np.array([mine], object)}, {"l": np.array([theirs], object)}, samples=1)
    assert labels.agreement_pct == 90 and labels.expected_drop is None and labels.cosine is None
    assert labels.sqnr_db is not None and labels.is_evidence
    np.testing.assert_allclose(labels.sqnr_db, 10)
    masks = compared({"m": np.zeros((1, 2, 5), np.int64)}, {"m": np.eye(5, dtype=np.int64)[None, :2]})
    assert masks.agreement_pct == 80


def test_numbers_decide_before_labels_do() -> None:
    one = {"label": np.array([1]), "p": np.array([[0.4, 0.6]])}
    other = {"label": np.array([0]), "p": np.array([[0.51, 0.49]])}
    fidelity = compared(one, other)
    assert fidelity.agreement_pct == 0 and fidelity.sqnr_db is not None and 10 < fidelity.sqnr_db < 20


def test_equal_infinities_are_no_noise_and_others_are() -> None:
    masked = np.array([[1.0, -np.inf, 2.0]])
    assert compared({"s": masked}, {"s": masked.copy()}).sqnr_db is None
    other = compared({"s": masked}, {"s": np.array([[1.0, 0.0, 2.0]])})
    assert other.sqnr_db == -100 and other.intervals()["sqnr_db"] is None
    assert compared({"s": np.array([[1.0, 2.0]])}, {"s": np.array([[np.nan, 2.0]])}).sqnr_db == -100


@pytest.mark.parametrize("name", ["top1", "top5", "mean", "spearman"])
@pytest.mark.parametrize(
    ("output", "labels"),
    [
        (None, np.array([1])),
        (BOXES, np.array([1])),
        (NONE, np.array([1])),
        (np.array(["a", "b"], object), np.array([0])),
    ],
)
def test_a_metric_that_does_not_fit_says_so(name: str, output: np.ndarray | None, labels: np.ndarray) -> None:
    with pytest.raises(DataError, match=f"metric {name}: does not fit"):
        metrics.metric(name).score(output, labels)


def test_top1_of_labels() -> None:
    score = metrics.metric("top1").score
    assert score(np.array(["a", "b"], object), np.array(["a", "c"])).tolist() == [1, 0]
    assert score(np.array([[3], [4]]), np.array([3, 5])).tolist() == [1, 0]
    assert score(np.array([[0.1, 0.9], [0.6, 0.4]]), np.array([1, 1])).tolist() == [1, 0]
    with pytest.raises(DataError, match="needs numbers"):
        score(np.array([[0.1, 0.9]]), np.array(["cat"]))
