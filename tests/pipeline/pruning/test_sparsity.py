from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.pruning import PruneOptions, prune
from onnxpress.pruning.sparsity import best_of, largest

Build = Callable[..., ir.Model]
NET = """
net (float[N,4,8,8] x, float[8,4,3,3] aw, float[8] ab, float[6,3,1,1] dw, float[8,10] bw, float[6,1,3,3] cw)
  => (float[N,10] y, float[N,6,6,6] z) {
  a = Conv <pads = [1,1,1,1]> (x, aw, ab)
  g = GlobalAveragePool (a)
  f = Flatten (g)
  y = Gemm (f, bw)
  s = Constant <value = int64[1] {0}> ()
  e = Constant <value = int64[1] {3}> ()
  i = Constant <value = int64[1] {1}> ()
  h = Slice (x, s, e, i)
  d = Conv (h, dw)
  z = Conv <group = 6> (d, cw)
}
"""


def arrays(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def test_uniform_zeroes_the_same_share_of_every_weight(build: Build) -> None:
    model = build(NET)
    edit = prune(model, PruneOptions(granularity="weight", amount=0.5, allocation="uniform"))
    before, after = arrays(model), arrays(edit.model)
    for name in ("aw", "bw", "cw", "dw"):
        removed = after[name] == 0
        assert np.count_nonzero(removed) == before[name].size // 2
        assert np.abs(before[name][removed]).max() <= np.abs(before[name][~removed]).min()
        assert np.array_equal(after[name][~removed], before[name][~removed])
    assert np.array_equal(after["ab"], before["ab"])
    assert edit.facts["sparsity"] == 0.5
    assert edit.facts["params_before"] == edit.facts["params_after"]
    assert edit.facts["compressed_bytes_after"] < 0.8 * edit.facts["compressed_bytes_before"]
    assert edit.changed == ("a", "y", "d", "z")


def test_global_compares_all_weights(build: Build) -> None:
    model = build(NET)
    model.graph.initializers["dw"].const_value = ir.tensor(np.full((6, 3, 1, 1), 1e-6, np.float32), name="dw")
    edit = prune(model, PruneOptions(granularity="weight", amount=0.25, method="l1"))
    after = arrays(edit.model)
    assert not after["dw"].any()
    total = sum(after[name].size for name in ("aw", "bw", "cw", "dw"))
    assert edit.facts["sparsity"] == pytest.approx(round(0.25 * total) / total)


def test_pattern_keeps_the_best_along_the_inputs(build: Build) -> None:
    model = build(NET)
    edit = prune(model, PruneOptions(granularity="2:4"))
    before, after = arrays(model), arrays(edit.model)
    rows = before["bw"].T.reshape(10, 2, 4)  # Gemm without transB keeps inputs on axis 0
    kept = after["bw"].T.reshape(10, 2, 4) != 0
    assert (kept.sum(axis=2) == 2).all()
    assert (np.where(kept, np.inf, np.abs(rows)).min(axis=2) <= np.where(kept, np.abs(rows), np.inf).min(axis=2)).all()
    assert (np.count_nonzero(after["aw"], axis=1) == 2).all()
    reasons = {skip.where: (skip.op, skip.reason) for skip in edit.skipped}
    assert reasons == {
        "d": ("Conv", "its 3 input channels are no multiple of 4, so the pattern 2:4 does not fit"),
        "z": ("Conv", "its 1 input channels are no multiple of 4, so the pattern 2:4 does not fit"),
    }
    assert np.array_equal(after["dw"], before["dw"])


def test_recurrent_weights_are_pruned_too(build: Build) -> None:
    text = """
    net (float[S,N,4] x, float[1,16,4] w, float[1,16,4] r) => (float[1,N,4] y) {
      h, y = LSTM <hidden_size = 4> (x, w, r)
    }
    """
    edit = prune(build(text), PruneOptions(granularity="2:4"))
    assert edit.facts["sparsity"] == 0.5
    assert (np.count_nonzero(arrays(edit.model)["r"], axis=2) == 2).all()


def test_weight_that_is_a_graph_input_is_skipped(build: Build) -> None:
    model = build(NET)
    model.graph.inputs.append(model.graph.initializers["aw"])
    edit = prune(model, PruneOptions(granularity="weight", amount=0.5))
    assert ("a", "Conv") in [(skip.where, skip.op) for skip in edit.skipped]
    assert np.array_equal(arrays(edit.model)["aw"], arrays(model)["aw"])


def test_exclude_leaves_a_weight_whole(build: Build) -> None:
    model = build(NET)
    edit = prune(model, PruneOptions(granularity="weight", amount=0.9, exclude="^y$"))
    assert np.array_equal(arrays(edit.model)["bw"], arrays(model)["bw"])
    assert "y" not in edit.changed


@given(
    scores=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(0, 1)),
    amount=st.floats(0, 1),
)
def test_largest_keeps_the_right_number_and_the_best(scores: np.ndarray, amount: float) -> None:
    keep = largest(scores, amount)
    assert keep.shape == scores.shape
    assert np.count_nonzero(~keep) == round(amount * scores.size)
    if keep.any() and not keep.all():
        assert scores[~keep].max() <= scores[keep].min()


@given(
    scores=hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.sampled_from([4, 8]), st.integers(1, 3))),
    n=st.integers(1, 3),
)
def test_best_of_keeps_n_of_each_four(scores: np.ndarray, n: int) -> None:
    keep = best_of(np.nan_to_num(scores), n, 4)
    assert keep is not None
    assert (keep.reshape(len(scores), -1, 4, scores.shape[2]).sum(axis=2) == n).all()


def test_best_of_refuses_what_does_not_divide() -> None:
    assert best_of(np.ones((2, 6)), 2, 4) is None
