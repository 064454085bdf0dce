"""Models that are quantized already: what is cut, what is put back, what is repaired, what is left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxpress import graph
from onnxpress.errors import UsageError
from onnxpress.pruning import PruneOptions, prune, stored, surgery
from onnxpress.pruning.allocation import weight_bytes
from onnxpress.pruning.groups import analyze
from onnxpress_calibration.dataset import Dataset

Build = Callable[..., ir.Model]
NET = """
net (float[N,3,6,6] x, int8[8,3,3,3] aq, float[8] as, int32[8] abq, float[8] abs, int8[4,8,3,3] bq, float[4] bs,
     float ins, float ms) => (float[N,4,6,6] y) {
  zero = Constant <value = uint8 {128}> ()
  mzero = Constant <value = uint8 {0}> ()
  xq = QuantizeLinear (x, ins, zero)
  xd = DequantizeLinear (xq, ins, zero)
  a = DequantizeLinear <axis = 0> (aq, as)
  ab = DequantizeLinear <axis = 0> (abq, abs)
  c = Conv <pads = [1,1,1,1]> (xd, a, ab)
  r = Relu (c)
  rq = QuantizeLinear (r, ms, mzero)
  rd = DequantizeLinear (rq, ms, mzero)
  b = DequantizeLinear <axis = 0> (bq, bs)
  y = Conv <pads = [1,1,1,1]> (rd, b)
}
"""


def quantized(build: Build) -> ir.Model:
    """Build the net with scales that are powers of two: all its sums are exact, in whatever order."""
    model, random = build(NET, opset=21), np.random.default_rng(1)
    for value in model.graph.initializers.values():
        shape = [int(size) for size in value.shape or ()]
        if value.dtype == ir.DataType.FLOAT:
            array = np.exp2(random.integers(-9, -6, shape)).astype(np.float32)
        else:
            array = random.integers(-127, 128, shape).astype(value.dtype.numpy())
        value.const_value = ir.tensor(np.asarray(array), name=value.name)
    for name in ("ins", "ms"):
        model.graph.initializers[name].const_value = ir.tensor(np.float32(2**-5), name=name)
    return model


def images(count: int) -> Dataset:
    x = np.random.default_rng(2).standard_normal((count, 3, 6, 6)).astype(np.float32)
    return Dataset(origin="noise", read=lambda: [{"x": x}])


def evaluated(model: ir.Model, count: int = 4) -> np.ndarray:
    (feeds,) = images(count).read()
    return ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from([np.int8, np.uint8, np.int16, np.uint16, np.int32]),
    per_channel=st.booleans(),
    axis=st.integers(-2, 1),
    with_zero=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_packing_gives_back_what_was_unpacked(
    dtype: type, per_channel: bool, axis: int, with_zero: bool, seed: int
) -> None:
    random, limits = np.random.default_rng(seed), np.iinfo(dtype)
    reach = (max(limits.min, -(2**22)), min(limits.max, 2**22))  # float32 holds no more
    count = [(4, 5)[axis]] if per_channel else []
    arrays = [
        random.integers(*reach, (4, 5), endpoint=True).astype(dtype),
        np.asarray(np.exp(random.uniform(-9, 3, count)), np.float32),
        np.asarray(random.integers(max(reach[0], 0), 9, count), dtype),
    ][: 3 if with_zero or dtype in (np.uint8, np.uint16) else 2]
    main = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="net")
    given_names = ["integers", "scale", "zero"]
    inputs = [graph.add_initializer(main, name, array) for name, array in zip(given_names, arrays, strict=False)]
    node = ir.node("DequantizeLinear", inputs, {"axis": axis}, name="dequantize")
    twice = ir.node("Add", [node.outputs[0], node.outputs[0]])
    main.extend([node, twice])
    node.outputs[0].name, twice.outputs[0].name = "weight", "y"
    main.outputs.append(twice.outputs[0])
    model = ir.Model(main, ir_version=10)
    before = ReferenceEvaluator(ir.to_proto(model)).run(None, {})[0]
    stored.unpack(model)
    assert [each.op_type for each in model.graph] == ["Add"]
    assert list(model.graph.initializers) == ["weight"]
    np.testing.assert_allclose(ReferenceEvaluator(ir.to_proto(model)).run(None, {})[0], before, rtol=1e-6)
    stored.pack(model)
    for name, array in zip(given_names, arrays, strict=False):
        found = graph.constant(model.graph.initializers[name])
        assert found is not None and found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(ReferenceEvaluator(ir.to_proto(model)).run(None, {})[0], before)


def test_pruned_is_masked_to_the_last_bit(build: Build) -> None:
    model = quantized(build)
    work = model.clone()
    stored.unpack(work)
    (group,) = analyze(work).prunable
    assert (group.name, group.size) == ("c", 8)
    choice = {group: np.array([1, 0, 1, 1, 0, 1, 0, 1], np.bool_)}
    masked = stored.packed(surgery.masked(work, choice))
    surgery.cut(work, choice)
    stored.pack(work)
    np.testing.assert_array_equal(evaluated(work), evaluated(masked))
    assert not np.array_equal(evaluated(work), evaluated(model))
    for name, axis in {"aq": 0, "as": 0, "abq": 0, "abs": 0, "bq": 1}.items():
        whole, left = (graph.constant(each.graph.initializers[name]) for each in (model, work))
        np.testing.assert_array_equal(left, np.compress(choice[group], whole, axis=axis))


def test_the_step_scores_cuts_and_counts(build: Build) -> None:
    model = quantized(build)
    edit = prune(model, PruneOptions(target={"bytes": 0.5}, round_to=1))
    norms = np.zeros(8)
    for integers, scale, out in (("aq", "as", 0), ("bq", "bs", 1)):
        array, step = (graph.constant(model.graph.initializers[name]) for name in (integers, scale))
        scores = np.square(array * step.reshape(-1, 1, 1, 1)).sum(axis=tuple({0, 1, 2, 3} - {out}))
        norms += scores / scores.sum()
    kept = np.sort(np.argsort(norms)[-3:])
    found = graph.constant(edit.model.graph.initializers["aq"])
    np.testing.assert_array_equal(found, graph.constant(model.graph.initializers["aq"])[kept])
    assert weight_bytes(edit.model) < 0.55 * weight_bytes(model)  # scales are no weights
    assert [node.op_type for node in edit.model.graph].count("DequantizeLinear") == 5
    assert edit.facts["proof_error"] < 1e-5


def test_single_weights_become_the_zero_point(build: Build) -> None:
    edit = prune(quantized(build), PruneOptions(granularity="weight", amount=0.5))
    integers = [graph.constant(edit.model.graph.initializers[name]) for name in ("aq", "bq")]
    assert sum(np.count_nonzero(array == 0) for array in integers) >= 0.5 * sum(array.size for array in integers)
    assert edit.facts["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert edit.facts["compressed_bytes_after"] < edit.facts["compressed_bytes_before"]


def test_repair_stays_on_integers_and_keeps_the_scale_of_the_bias(build: Build) -> None:
    model, data = quantized(build), images(64)
    wanted = evaluated(model, 64)
    errors = []
    for repaired in (False, True):
        options = PruneOptions(method="l2", allocation="global", amount=0.25, round_to=1, repair=repaired)
        edit = prune(model, options, data)
        errors.append(float(np.mean(np.square(evaluated(edit.model, 64) - wanted))))
    assert errors[1] < 0.8 * errors[0]
    weights = {name: graph.constant(value) for name, value in edit.model.graph.initializers.items()}
    assert weights["bq"].dtype == np.int8 and weights["bs"].shape == (4,)
    assert np.abs(weights["bq"].astype(int)).max(axis=(1, 2, 3)).min() > 30  # no coarser than it must be


def test_a_wider_grid_widens_that_of_the_bias(build: Build) -> None:
    model = quantized(build)
    stored.unpack(model)
    weight = model.graph.initializers["a"]
    array = graph.constant(weight).copy()
    array[3] *= 2.5
    weight.const_value = ir.tensor(array, name="a")
    before = {name: model.graph.initializers[name].meta[stored.GRID].scale for name in ("a", "ab")}
    bias = graph.constant(model.graph.initializers["ab"])
    stored.pack(model)
    after = {name: graph.constant(model.graph.initializers[name]) for name in ("as", "abs", "abq", "aq")}
    growth = after["as"] / before["a"]
    assert growth[3] > 2 and (np.delete(growth, 3) == 1).all()
    np.testing.assert_allclose(after["abs"] / before["ab"], growth, rtol=1e-6)
    np.testing.assert_allclose(after["abq"] * after["abs"], bias, atol=after["abs"].max() / 2)
    np.testing.assert_allclose(after["aq"][3] * after["as"][3], array[3], atol=after["as"][3] / 2 * 1.001)


def test_weights_of_six_bits_stay_so(build: Build) -> None:
    model = quantized(build)
    six = model.graph.initializers["bq"]
    array = np.clip(graph.constant(six), -31, 31).astype(np.int8)
    six.const_value = ir.tensor(array, name="bq")
    stored.unpack(model)
    model.graph.initializers["b"].const_value = ir.tensor(graph.constant(model.graph.initializers["b"]) * 3, name="b")
    stored.pack(model)
    np.testing.assert_array_equal(np.unique(graph.constant(model.graph.initializers["bq"])), np.unique(array))


def test_a_weight_that_is_quantized_at_load_counts_as_stored(build: Build) -> None:
    model = build(
        """
        net (float[N,3] x, float[3,8] w, float ws, float[8,2] v) => (float[N,2] y) {
          z = Constant <value = int8 {0}> ()
          wq = QuantizeLinear (w, ws, z)
          wd = DequantizeLinear (wq, ws, z)
          a = MatMul (x, wd)
          r = Relu (a)
          y = MatMul (r, v)
        }
        """
    )
    model.graph.initializers["ws"].const_value = ir.tensor(np.float32(0.01), name="ws")
    edit = prune(model, PruneOptions(amount=0.5, round_to=4))
    (dequantize,) = (node for node in edit.model.graph if node.op_type == "DequantizeLinear")
    assert edit.facts["channels_after"] == 4
    found = graph.constant(dequantize.inputs[0])
    assert found is not None and found.dtype == np.int8 and found.shape == (3, 4)


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        (
            "(float[N,32] x, int8[32,8] q, float[2,8] s, float[8,2] v) => (float[N,2] y) { "
            "w = DequantizeLinear <axis = 0, block_size = 16> (q, s)  a = MatMul (x, w)  y = MatMul (a, v) }",
            "w",
            "its scales are for blocks of channels",
        ),
        (
            "(float[N,8] x, float[8,8] u, int8[8,8] q, float[8,2] v) => (float[N,2] y) { "
            "b = MatMul (x, u)  c, s, z = DynamicQuantizeLinear (b)  d = MatMulInteger (c, q, z) "
            "a = Cast <to = 1> (d)  y = MatMul (a, v) }",
            "d",
            "this operator is not followed, nor are its weights",
        ),
    ],
)
def test_what_is_left_alone_is_named(build: Build, text: str, where: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"nothing can be removed\. \w+ '{where}': {reason}\.$"):
        prune(build(f"net {text}", opset=21), PruneOptions(amount=0.5, round_to=1))


def test_a_model_of_integer_operators_is_refused_by_name(build: Build) -> None:
    text = """
        net (uint8[N,8] x, float is, uint8 iz, int8[8,4] w, float ws, int8 wz, float ys, uint8 yz) => (uint8[N,4] y) {
          y = QLinearMatMul (x, is, iz, w, ws, wz, ys, yz)
        }
    """
    model = build(text)
    with pytest.raises(UsageError, match=r"nothing can be removed\. QLinearMatMul 'y': this operator is not followed"):
        prune(model, PruneOptions(target={"macs": 0.5}))
