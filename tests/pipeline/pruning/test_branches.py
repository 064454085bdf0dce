"""Whole residual branches: which may go, what is left of them, and what is counted for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import graph, macs, parameters, session
from onnxpress.pruning import PruneOptions, allocation, branches, proof, prune, surgery
from onnxpress.pruning.groups import Group, analyze
from onnxpress.pruning.widths import widths
from onnxpress_calibration.dataset import Dataset

Build = Callable[..., ir.Model]
RESIDUAL = """
net (float[N,4,6,6] x, float[4,4,1,1] sw, float[6,4,3,3] aw, float[4,6,3,3] bw, float[4] bb, float[3,4,1,1] yw)
  => (float[N,3,6,6] y) {
  s = Conv (x, sw)
  a = Conv <pads = [1,1,1,1]> (s, aw)
  r = Sigmoid (a)
  b = Conv <pads = [1,1,1,1]> (r, bw, bb)
  t = Add (b, s)
  q = Relu (t)
  y = Conv (q, yw)
}
"""
BOTTLENECK = """
net (float[N,4,6,6] x, float[4,4,1,1] sw, float[8,4,1,1] aw, float[5,8,3,3] bw, float[4,5,1,1] cw, float[3,4,1,1] yw)
  => (float[N,3,6,6] y) {
  s = Conv (x, sw)
  a = Conv (s, aw)
  ar = Relu (a)
  b = Conv <pads = [1,1,1,1]> (ar, bw)
  br = Relu (b)
  c = Conv (br, cw)
  t = Add (s, c)
  y = Conv (t, yw)
}
"""
PROJECTED = RESIDUAL.replace("t = Add (b, s)", "p = Conv (s, pw) t = Add (b, p)").replace(
    "float[3,4,1,1] yw", "float[4,4,1,1] pw, float[3,4,1,1] yw"
)
FEED_FORWARD = """
net (float[N,S,6] x, float[6,6] sw, float[6,10] aw, float[10] ab, float[10,6] bw, float[6] bb, float[6,3] yw)
  => (float[N,S,3] y) {
  s = MatMul (x, sw)
  am = MatMul (s, aw)
  a = Add (am, ab)
  g = Tanh (a)
  bm = MatMul (g, bw)
  b = Add (bb, bm)
  t = Add (b, s)
  y = MatMul (t, yw)
}
"""
ATTENTION = """
net (float[N,5,8] x, float[8,8] qw, float[8,8] kw, float[8,8] vw, float[8,8] ow) => (float[N,5,8] y) {
  shape = Constant <value = int64[4] {0, 0, 4, 2}> ()
  flat = Constant <value = int64[3] {0, 0, 8}> ()
  qm = MatMul (x, qw)
  qr = Reshape (qm, shape)
  q = Transpose <perm = [0, 2, 1, 3]> (qr)
  km = MatMul (x, kw)
  kr = Reshape (km, shape)
  k = Transpose <perm = [0, 2, 3, 1]> (kr)
  vm = MatMul (x, vw)
  vr = Reshape (vm, shape)
  v = Transpose <perm = [0, 2, 1, 3]> (vr)
  scores = MatMul (q, k)
  share = Softmax <axis = -1> (scores)
  mixed = MatMul (share, v)
  back = Transpose <perm = [0, 2, 1, 3]> (mixed)
  joined = Reshape (back, flat)
  o = MatMul (joined, ow)
  y = Add (x, o)
}
"""
MAY_GO = {"residual": RESIDUAL, "bottleneck": BOTTLENECK, "projected": PROJECTED, "feed-forward": FEED_FORWARD}
MUST_STAY = {
    "not added": RESIDUAL.replace("t = Add", "t = Mul"),
    "read by something else, too": RESIDUAL.replace("q = Relu (t)", "z = ReduceMean (r) q = Add (t, z)"),
    "its result is read twice": RESIDUAL.replace("q = Relu (t)", "q = Mul (t, b)"),
    "spread over a larger shortcut": RESIDUAL.replace("r = Sigmoid (a)", "r = GlobalAveragePool (a)"),
    "two branches and no shortcut": RESIDUAL.replace(
        "t = Add (b, s)", "i = Conv (s, pw) j = Relu (i) k = Conv (j, lw) t = Add (b, k)"
    ).replace("float[3,4,1,1] yw", "float[5,4,1,1] pw, float[4,5,1,1] lw, float[3,4,1,1] yw"),
}


def inner(model: ir.Model) -> list[Group]:
    return [group for group in analyze(model).prunable if branches.gone(group)]


def without(model: ir.Model, group: Group) -> ir.Model:
    return surgery.without(model, {group: np.zeros(group.size, np.bool_)})


@pytest.mark.parametrize("name", MAY_GO)
def test_a_branch_without_channels_is_a_constant(build: Build, name: str) -> None:
    model = build(MAY_GO[name])
    (group,) = inner(model)
    bare = without(model, group)
    masked = surgery.masked(model, {group: np.zeros(group.size, np.bool_)})
    error = proof.prove(bare, masked, None)
    assert error is not None and error < 1e-6
    branch = branches.gone(group)
    assert len(bare.graph) == len(model.graph) - len(branch)
    assert not {"aw", "bw", "cw"} & bare.graph.initializers.keys()
    assert allocation.Scale(model, [group], macs.total).ratio({group: 0}) == pytest.approx(
        macs.total(bare) / macs.total(model)
    )
    assert allocation.Scale(model, [group], parameters.count).ratio({group: 0}) == pytest.approx(
        sum(value.const_value.size for key, value in bare.graph.initializers.items() if not key.endswith("_constant"))
        / parameters.count(model),
        abs=10 / parameters.count(model),  # the constant that is left
    )


def test_attention_without_heads(build: Build) -> None:
    model = build(ATTENTION)
    (group,) = inner(model)
    assert group.size == 4
    bare = without(model, group)
    assert [node.op_type for node in bare.graph] == ["Add"]
    assert proof.prove(bare, surgery.masked(model, {group: np.zeros(4, np.bool_)}), None) == 0


@pytest.mark.parametrize("name", MUST_STAY)
def test_what_else_leans_on_a_branch_keeps_it(build: Build, name: str) -> None:
    model = build(MUST_STAY[name])
    assert not inner(model)
    options = PruneOptions(amount=0.5, round_to=1, allocation="sensitivity")
    assert all(0 not in widths(group, options) for group in analyze(model).prunable)


def test_the_constant_loses_the_channels_that_its_shortcut_loses(build: Build) -> None:
    model = build(RESIDUAL)
    stream, branch = analyze(model).prunable
    assert branches.gone(branch) and not branches.gone(stream)
    keep = np.array([True, False, True, True])
    choice = {branch: np.zeros(branch.size, np.bool_), stream: keep}
    masked, bias = surgery.masked(model, choice), graph.constant(model.graph.initializers["bb"])
    assert bias is not None
    surgery.cut(model, choice)
    error = proof.prove(model, masked, None)
    assert error is not None and error < 1e-6
    constant = graph.constant(model.graph.initializers["b_constant"])
    assert constant is not None and constant.ravel().tolist() == bias[keep].tolist()


def data(count: int = 32) -> Dataset:
    values = np.random.default_rng(1).standard_normal((count, 4, 6, 6)).astype(np.float32)
    return Dataset(origin="test", read=lambda: [{"x": values}])


def quiet(build: Build, text: str = RESIDUAL) -> ir.Model:
    """A model whose branch gives hardly more than a constant."""
    model = build(text)
    weight = model.graph.initializers["bw"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(0.01), name="bw")
    return model


def test_what_gives_hardly_more_than_a_constant_goes_whole(build: Build) -> None:
    model = quiet(build)
    options = PruneOptions(target={"macs": 0.2}, round_to=2, allocation="sensitivity")
    edit = prune(model, options, data())
    assert edit.facts["branches_removed"] == 1 and "aw" not in edit.model.graph.initializers
    kept = prune(model, options.model_copy(update={"keep_depth": True}), data())
    assert kept.facts["branches_removed"] == 0 and "aw" in kept.model.graph.initializers


@pytest.mark.parametrize("chosen", [{"allocation": "global"}, {"allocation": "uniform"}])
def test_only_what_was_measured_goes_whole(build: Build, chosen: dict[str, str]) -> None:
    options = PruneOptions.model_validate({"amount": 0.9, "round_to": 1, **chosen})
    assert prune(quiet(build), options, data()).facts["branches_removed"] == 0


def test_repair_gives_the_constant_the_mean_of_the_branch(build: Build) -> None:
    model = quiet(
        build, RESIDUAL.replace("float[4] bb, ", "").replace(", bb", "").replace("q = Relu (t)", "q = Tanh (t)")
    )
    options = PruneOptions(target={"macs": 0.3}, round_to=8, allocation="sensitivity", repair=True)
    edit = prune(model, options, data())
    assert edit.facts["branches_removed"] == 1
    exposed = model.clone()
    exposed.graph.outputs.append(next(value for node in exposed.graph for value in node.outputs if value.name == "b"))
    feeds = {"x": next(iter(data().read()))["x"]}
    branch = session.run(session.open_session(exposed), feeds)["b"]
    constant = graph.constant(edit.model.graph.initializers["b_constant"])
    assert constant is not None and constant.ravel() == pytest.approx(branch.mean(axis=(0, 2, 3)), abs=1e-5)


def test_to_lose_all_is_one_step_where_it_is_cheaper_than_what_comes_before(build: Build) -> None:
    model = build(BOTTLENECK)
    (group,) = inner(model)  # between the second and the third layer; with it goes the first layer, too
    scale = allocation.Scale(model, [group], macs.total)
    options = PruneOptions(target={"macs": 0.5}, round_to=1, allocation="sensitivity")
    (only,) = allocation._steps(group, np.ones(5), scale, options)
    assert (only.before, only.after, only.lost) == (5, 0, 5)
    assert only.saved == pytest.approx(1 - scale.ratio({group: 0}))
    steps = allocation._steps(group, np.array([1, 2, 3, 4, 1000.0]), scale, options)
    assert [(step.before, step.after) for step in steps] == [(5, 4), (4, 3), (3, 2), (2, 1), (1, 0)]
    assert sum(step.saved for step in steps) == pytest.approx(only.saved)
    narrow = options.model_copy(update={"keep_depth": True})
    assert allocation._steps(group, np.ones(5), scale, narrow)[-1].after == 1
