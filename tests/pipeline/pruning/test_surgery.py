from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import CheckerPass, ShapeInferencePass

from onnxpress import graph
from onnxpress.pruning import surgery
from onnxpress.pruning.groups import analyze

Build = Callable[..., ir.Model]
NET = """
net (float[N,3,6,6] x, float[6,3,3,3] aw, float[6] ab, float[4,6,1,1] bw) => (float[N,4,6,6] y) {
  a = Conv <pads = [1,1,1,1]> (x, aw, ab)
  r = Sigmoid (a)
  y = Conv (r, bw)
}
"""


def run(model: ir.Model, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    feeds = {
        value.name: random.standard_normal([size or 2 for size in graph.shape(value) or ()]).astype(np.float32)
        for value in graph.inputs(model)
    }
    return ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)[0]


def cut_first(model: ir.Model, keep: list[int]) -> surgery.Choice:
    group = analyze(model).prunable[0]
    return {group: np.isin(np.arange(group.size), keep)}


def test_masked_is_the_model_with_zero_weights_for_the_removed_inputs(build: Build) -> None:
    model = build(NET)
    by_hand = model.clone()
    weight = by_hand.graph.initializers["bw"]
    array = weight.const_value.numpy().copy()
    array[:, [1, 4]] = 0
    weight.const_value = ir.tensor(array, name="bw")
    masked = surgery.masked(model, cut_first(model, [0, 2, 3, 5]))
    assert np.allclose(run(masked), run(by_hand), atol=1e-6)
    assert not np.allclose(run(masked), run(model), atol=1e-2)


def test_masking_leaves_the_model_alone(build: Build) -> None:
    model = build(NET)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    surgery.masked(model, cut_first(model, [0]))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_channel_that_would_be_infinite_is_masked_to_zero(build: Build) -> None:
    text = NET.replace("Sigmoid", "Reciprocal")
    model = build(text)
    for name in ("aw", "ab"):
        array = model.graph.initializers[name].const_value.numpy().copy()
        array[1] = 0
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    with np.errstate(divide="ignore"):
        assert np.isfinite(run(surgery.masked(model, cut_first(model, [0, 2, 3, 4, 5])))).all()


def test_cut_rewrites_weights_and_shapes(build: Build) -> None:
    model = build(NET)
    whole = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    changed = surgery.cut(model, cut_first(model, [0, 2, 5]))
    assert changed == ["a", "y"]
    arrays = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    assert np.array_equal(arrays["aw"], whole["aw"][[0, 2, 5]])
    assert np.array_equal(arrays["ab"], whole["ab"][[0, 2, 5]])
    assert np.array_equal(arrays["bw"], whole["bw"][:, [0, 2, 5]])
    stated = {node.outputs[0].name: str(node.outputs[0].shape) for node in model.graph}
    for node in model.graph:
        if not node.outputs[0].is_graph_output():
            node.outputs[0].shape = None
    ShapeInferencePass()(model)
    assert {node.outputs[0].name: str(node.outputs[0].shape) for node in model.graph} == stated


def test_nothing_is_touched_when_all_is_kept(build: Build) -> None:
    model = build(NET)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert surgery.cut(model, cut_first(model, list(range(6)))) == []
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


TWICE = {
    "reshape": """
    net (float[N,3,8,8] x, float[8,3,1,1] aw, float[512,5] bw) => (float[N,5] y) {
      a = Conv (x, aw) s = Constant <value = int64[2] {-1, 512}> () f = Reshape (a, s) y = MatMul (f, bw) }
    """,
    "split by count": """
    net (float[N,3,8,8] x, float[12,3,1,1] aw, float[4,6,1,1] bw, float[4,6,1,1] cw) => (float[N,4,8,8] y) {
      a = Conv (x, aw) p, q = Split <axis = 1, num_outputs = 2> (a) b = Conv (p, bw) c = Conv (q, cw) y = Add (b, c) }
    """,
    "pad with axes": """
    net (float[N,3,8,8] x, float[8,3,1,1] aw, float[4,11,1,1] bw) => (float[N,4,8,8] y) {
      a = Conv (x, aw) p = Constant <value = int64[2] {1, 2}> () i = Constant <value = int64[1] {-3}> ()
      e = Pad (a, p, , i) y = Conv (e, bw) }
    """,
    "resize with axes": """
    net (float[1,3,8,8] x, float[8,3,1,1] aw, float[4,8,1,1] bw) => (float[1,4,4,8] y) {
      a = Conv (x, aw) s = Constant <value = int64[2] {8, 4}> ()
      u = Resize <axes = [1, 2]> (a, , , s) y = Conv (u, bw) }
    """,
    "slice of int32": """
    net (float[N,3,8,8] x, float[12,3,1,1] aw, float[4,9,1,1] bw) => (float[N,4,8,8] y) {
      a = Conv (x, aw) b = Constant <value = int32[1] {-9}> () e = Constant <value = int32[1] {2147483647}> ()
      i = Constant <value = int32[1] {-3}> () p = Slice (a, b, e, i) y = Conv (p, bw) }
    """,
    "expand by fewer axes": """
    net (float[N,3,8,8] x, float[8,3,8,8] aw, float[4,8,1,1] bw) => (float[N,4,4,4] y) {
      a = Conv (x, aw) s = Constant <value = int64[3] {8, 4, 4}> () e = Expand (a, s) y = Conv (e, bw) }
    """,
    "reshape that copies a size of another axis": """
    net (float[4,4,3] x, float[3,6] aw, float[8,5] bw) => (float[2,6,5] y) {
      a = MatMul (x, aw) s = Constant <value = int64[3] {2, 0, 8}> () t = Transpose <perm = [0,2,1]> (a)
      r = Reshape (t, s) p = Softmax <axis = 1> (r) y = MatMul (p, bw) }
    """,
    "grouped": """
    net (float[N,3,8,8] x, float[8,3,1,1] aw, float[16,1,3,3] bw, float[4,16,1,1] cw) => (float[N,4,6,6] y) {
      a = Conv (x, aw) b = Conv <group = 8> (a, bw) y = Conv (b, cw) }
    """,
}


@pytest.mark.parametrize("name", TWICE)
def test_a_pruned_model_is_valid_and_can_be_pruned_again(build: Build, name: str) -> None:
    model = build(TWICE[name], opset=18)
    for turn in range(2):
        choice = {group: (np.arange(group.size) != 1) | (group.size == 1) for group in analyze(model).prunable}
        assert choice or turn
        masked = surgery.masked(model, choice)
        surgery.cut(model, choice)
        CheckerPass(full_check=True)(model)
        assert np.allclose(run(model), run(masked), atol=1e-5)
        stored = ir.from_proto(onnx.load_from_string(ir.to_proto(model).SerializeToString()))
        assert np.array_equal(run(stored), run(model))


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (
            12,
            "net (float[N,3,8,8] x, float[6,3,1,1] aw, float[4,2,1,1] bw, float[4,4,1,1] cw) => (float[N,4,8,8] y) {"
            " a = Conv (x, aw) p, q = Split <axis = 1, split = [2, 4]> (a) b = Conv (p, bw) c = Conv (q, cw)"
            " y = Add (b, c) }",
        ),
        (
            9,
            "net (float[N,3,8,8] x, float[8,3,1,1] aw, float[4,6,1,1] bw) => (float[N,4,8,8] y) {"
            " a = Conv (x, aw) s = Slice <axes = [1], starts = [1], ends = [6]> (a)"
            " p = Pad <pads = [0, 1, 0, 0, 0, 0, 0, 0]> (s) y = Conv (p, bw) }",
        ),
    ],
)
def test_old_operator_sets_keep_their_lists_in_attributes(build: Build, opset: int, text: str) -> None:
    model = build(text, opset=opset)
    choice = {group: np.arange(group.size) != 1 for group in analyze(model).prunable}
    assert any(not keep.all() for keep in choice.values())
    masked = surgery.masked(model, choice)
    surgery.cut(model, choice)
    CheckerPass(full_check=True)(model)
    assert np.allclose(run(model), run(masked), atol=1e-5)


def test_a_constant_that_others_read_keeps_its_value(build: Build) -> None:
    text = """
    net (float[N,8,8,8] x, float[8,8,1,1] aw, float[5,8,1,1] bw) => (float[N,5,8,8] y, float[N,8,64] z) {
      shape = Constant <value = int64[3] {0, 8, 64}> ()
      back = Constant <value = int64[4] {0, 8, 8, 8}> ()
      a = Conv (x, aw)
      r = Reshape (a, shape)
      s = Softmax (r)
      b = Reshape (s, back)
      y = Conv (b, bw)
      z = Reshape (x, shape)
    }
    """
    model = build(text)
    surgery.cut(model, {group: np.arange(group.size) < 3 for group in analyze(model).prunable})
    CheckerPass(full_check=True)(model)
    assert graph.constant(model.graph.outputs[1].producer().inputs[1]).tolist() == [0, 8, 64]
    assert graph.shape(model.graph.initializers["aw"]) == (3, 8, 1, 1)
