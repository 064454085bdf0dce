from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import graph, macs
from onnxpress.errors import ModelError, UsageError
from onnxpress.pruning import PruneOptions, prune, surgery
from onnxpress_calibration.dataset import Dataset

Build = Callable[..., ir.Model]
NET = """
net (float[N,3,8,8] x, float[16,3,3,3] aw, float[16] ab, float[32,16,3,3] bw, float[16,32,1,1] cw, float[16,10] dw)
  => (float[N,10] y) {
  a = Conv <pads = [1,1,1,1]> (x, aw, ab)
  ar = Relu (a)
  b = Conv <pads = [1,1,1,1]> (ar, bw)
  br = Relu (b)
  c = Conv (br, cw)
  s = Add (c, ar)
  g = GlobalAveragePool (s)
  f = Flatten (g)
  y = Gemm (f, dw)
}
"""


def test_facts_and_changes(build: Build) -> None:
    model = build(NET)
    edit = prune(model, PruneOptions(target={"macs": 0.5}, round_to=8))
    facts = edit.facts
    assert facts["macs_before"] == macs.total(model) == 64 * (16 * 27 + 32 * 144 + 16 * 32) + 160
    assert facts["macs_after"] == macs.total(edit.model)
    assert facts["macs_ratio"] == facts["macs_after"] / facts["macs_before"] <= 0.5
    assert facts["params_after"] < facts["params_before"] == 16 * 27 + 16 + 32 * 144 + 16 * 32 + 160
    assert (facts["groups"], facts["groups_skipped"], facts["channels_before"]) == (2, 1, 48)
    assert facts["prunable_macs_pct"] == 100
    assert facts["proof_error"] < 1e-5
    assert set(edit.changed) <= {"a", "b", "c", "y"} and edit.changed
    assert [(skip.where, skip.op) for skip in edit.skipped] == [("y", "output")]


def test_the_given_model_is_not_changed(build: Build) -> None:
    model = build(NET)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    prune(model, PruneOptions(amount=0.5))
    prune(model, PruneOptions(amount=0.5, granularity="weight"))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_the_same_options_give_the_same_bytes(build: Build) -> None:
    edits = [prune(build(NET), PruneOptions(target={"params": 0.6}, method="random")) for _ in range(2)]
    one, other = (ir.to_proto(edit.model).SerializeToString(deterministic=True) for edit in edits)
    assert one == other


def test_inputs_and_outputs_stay(build: Build) -> None:
    model = build(NET)
    edit = prune(model, PruneOptions(amount="100%", round_to=8))
    assert [str(value) for value in edit.model.graph.inputs] == [str(value) for value in model.graph.inputs]
    assert [(v.name, str(v.shape)) for v in edit.model.graph.outputs] == [("y", "[N,10]")]
    assert graph.shape(edit.model.graph.initializers["aw"]) == (8, 3, 3, 3)


def test_excluded_nodes_keep_their_channels(build: Build) -> None:
    edit = prune(build(NET), PruneOptions(amount=0.5, exclude="^c$", allocation="uniform", round_to=8))
    assert graph.shape(edit.model.graph.initializers["aw"]) == (16, 3, 3, 3)
    assert graph.shape(edit.model.graph.initializers["bw"]) == (16, 16, 3, 3)
    assert ("a", "Conv", "c is left out by include or exclude") in [(s.where, s.op, s.reason) for s in edit.skipped]
    assert edit.facts["prunable_macs_pct"] < 100


def test_a_group_too_small_for_the_rounding_is_named(build: Build) -> None:
    edit = prune(build(NET), PruneOptions(amount=0.5, round_to=16))
    assert ("a", "Conv", "16 channels of width 1: none can go at round_to 16") in [
        (skip.where, skip.op, skip.reason) for skip in edit.skipped
    ]


def test_equal_biases_do_not_tie_layers(build: Build) -> None:
    """Preparation stores equal constants once: two layers may share a bias of zeros."""
    text = """
    net (float[N,3,8,8] x, float[16,3,1,1] aw, float[16] b, float[16,16,1,1] cw, float[5,16,1,1] dw)
      => (float[N,5,8,8] y) {
      a = Conv (x, aw, b)
      c = Conv (a, cw, b)
      y = Conv (c, dw)
    }
    """
    edit = prune(build(text), PruneOptions(amount=0.5, exclude="^a$", allocation="uniform", round_to=8))
    sizes = {name: graph.shape(value) for name, value in edit.model.graph.initializers.items()}
    assert (sizes["aw"], sizes["cw"], sizes["dw"]) == ((16, 3, 1, 1), (8, 16, 1, 1), (5, 8, 1, 1))


def test_weights_in_constant_nodes_are_lifted(build: Build) -> None:
    model = build(NET)
    node = next(node for node in model.graph if node.op_type == "Add")
    ones = ir.node("Constant", [], {"value": ir.tensor(np.ones((16, 1, 1), np.float32))})
    model.graph.insert_before(node, ones)
    ones.outputs[0].name = "ones"
    node.replace_input_with(0, ones.outputs[0])
    edit = prune(model, PruneOptions(amount=0.5, allocation="uniform", round_to=8))
    assert graph.shape(edit.model.graph.initializers["ones"]) == (8, 1, 1)


def test_nothing_selected(build: Build) -> None:
    with pytest.raises(UsageError, match="include 'nope', exclude None: no node is left"):
        prune(build(NET), PruneOptions(amount=0.5, include="nope"))


def test_target_out_of_reach(build: Build) -> None:
    least = (64 * (8 * 27 + 8 * 72 + 8 * 8) + 80) / (64 * (16 * 27 + 32 * 144 + 16 * 32) + 160)
    with pytest.raises(UsageError, match=rf"target macs=0\.1: cannot be reached, .* leaves {least:.3g} of"):
        prune(build(NET), PruneOptions(target={"macs": 0.1}, round_to=8))


def test_model_without_anything_to_prune(build: Build) -> None:
    model = build("net (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul (x, w) }")
    with pytest.raises(UsageError, match=r"amount 50%: nothing can be removed\. output 'y'"):
        prune(model, PruneOptions(amount=0.5))
    with pytest.raises(UsageError, match=r"nothing can be removed\. output 'y'"):
        prune(model, PruneOptions(target={"macs": 0.5}, round_to=8))


def test_an_amount_below_one_step_is_refused(build: Build) -> None:
    """Better than the same network again, and exit code 0."""
    model = build(
        "net (float[N,3,8,8] x, float[16,3,1,1] w, float[5,16,1,1] v) => (float[N,5,8,8] y) {"
        " a = Conv (x, w) \n r = Relu (a) \n y = Conv (r, v) }"
    )
    with pytest.raises(UsageError, match=r"amount 10%: removes nothing, .* multiples of 8: one such step is 50 %"):
        prune(model, PruneOptions(amount=0.1, round_to=8))
    with pytest.raises(UsageError, match=r"amount 0\.1%: removes nothing"):
        prune(model, PruneOptions(granularity="weight", amount=0.001))
    assert prune(model, PruneOptions(amount=0.5, round_to=8)).facts["channels_after"] == 8


def test_a_free_axis_counts_as_given(build: Build) -> None:
    model = build(
        "net (float[N,8,T] x, float[16,8,5] w, float[4,16,5] v) => (float[N,4,T] y) {"
        " a = Conv <pads=[2,2]> (x, w) \n r = Relu (a) \n y = Conv <pads=[2,2]> (r, v) }"
    )
    for shape, steps in (({}, 1), ({"T": 20}, 20)):
        facts = prune(model, PruneOptions(target={"macs": 0.7}, round_to=4, shape=shape)).facts
        assert facts["macs_before"] == steps * (8 + 4) * 16 * 5 and facts["macs_after"] == 0.5 * facts["macs_before"]
    assert facts["free_axes"] == "T = 20, N = 1"


def test_weights_that_are_graph_inputs_are_refused_by_name(build: Build) -> None:
    model = build(
        "net (float[N,3,8,8] x, float[16,3,1,1] x_w, float[5,16,1,1] x_v) => (float[N,5,8,8] y) {"
        " a = Conv (x, x_w) \n y = Conv (a, x_v) }"
    )
    for options in (PruneOptions(amount=0.3), PruneOptions(target={"macs": 0.7})):
        with pytest.raises(ModelError, match=r"^node 'a': its weight 'x_w' is a graph input, [^\n]*initializers\.$"):
            prune(model, options)


def test_without_rounding_no_layer_is_cut_to_the_bone(build: Build) -> None:
    with pytest.raises(UsageError, match=r"target macs=0\.01: cannot be reached, all that can be removed leaves 0\."):
        prune(build(NET), PruneOptions(target={"macs": 0.01}))


def test_proof_uses_the_data(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset(origin="test", read=lambda: [{"x": np.full((2, 3, 8, 8), 0.5, np.float32)}])
    seen = []
    monkeypatch.setattr("onnxpress.pruning.proof.prove", lambda *given: seen.append(given))
    prune(build(NET), PruneOptions(amount=0.5), data)
    assert [given[2] for given in seen] == [data]


def test_a_defect_of_the_analysis_ends_in_an_error_not_in_a_model(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = surgery.cut

    def shuffled(model: ir.Model, choice: surgery.Choice) -> list[str]:
        changed = honest(model, choice)
        weight = model.graph.initializers["cw"]
        weight.const_value = ir.tensor(np.roll(weight.const_value.numpy(), 1, axis=1), name="cw")
        return changed

    monkeypatch.setattr(surgery, "cut", shuffled)
    with pytest.raises(Exception, match="differs from the masked model"):
        prune(build(NET), PruneOptions(amount=0.5))


def test_without_repair_auto_is_l2_and_global(build: Build) -> None:
    facts = prune(build(NET), PruneOptions(amount=0.5)).facts
    assert (facts["method"], facts["allocation"]) == ("l2", "global")


def test_zero_states_of_any_batch_size_do_not_tie_hidden_units(build: Build) -> None:
    text = """
    net (float[5,N,3] x, float[1,18,3] w, float[1,18,6] r, float[6,4] bw) => (float[1,N,4] y) {
      zero = Constant <value = float[1,1,1] {0.0}> ()
      shape = Shape <start = 1, end = 2> (x)
      one = Constant <value = int64[1] {1}> ()
      width = Constant <value = int64[1] {6}> ()
      sizes = Concat <axis = 0> (one, shape, width)
      state = Expand (zero, sizes)
      h, last = GRU <hidden_size = 6> (x, w, r, , , state)
      y = MatMul (last, bw)
    }
    """
    edit = prune(build(text), PruneOptions(amount=0.5, round_to=1))
    assert (edit.facts["groups"], edit.facts["channels_after"], edit.facts["proof_error"] < 1e-6) == (1, 3, True)
    assert {node.op_type for node in edit.model.graph} == {"GRU", "MatMul"}


def test_what_takes_long_is_shown_and_done_to_the_end(build: Build) -> None:
    totals: dict[str, int | None] = {}
    done: dict[str, int] = {}

    @contextmanager
    def stage(text: str, total: int | None) -> Iterator[Callable[[int], object]]:
        totals[text], done[text] = total, 0

        def advance(amount: int) -> None:
            done[text] += amount

        yield advance

    x = np.random.default_rng(0).standard_normal((12, 3, 8, 8)).astype(np.float32)
    data = Dataset(origin="noise", read=lambda: [{"x": x}])
    options = PruneOptions(amount=0.5, round_to=8, repair=True, allocation="sensitivity")
    edit = prune(build(NET), options, data, stage)
    assert totals == {
        "find groups": None,
        "see how far it can go": None,
        "see what enters the layers": 12,
        "score 48 channels": 2,
        "cut each group alone": 2,
        "compare with the masked model": None,
        "re-solve layers": edit.facts["layers_repaired"],
    }
    assert done == {text: total or 0 for text, total in totals.items()}
