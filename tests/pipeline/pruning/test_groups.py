"""One topology each: which channels are found, and that cutting them gives what masking them gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.export.passes import shapes
from onnxpress.pruning import proof, surgery
from onnxpress.pruning.groups import Analysis, analyze

Build = Callable[..., ir.Model]

CHAIN = """
net (float[N,3,8,8] x, float[4,3,3,3] aw, float[4] ab, float[64,10] bw, float[10] bb) => (float[N,10] y) {
  a = Conv <pads = [1,1,1,1]> (x, aw, ab)
  r = Sigmoid (a)
  p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r)
  f = Flatten <axis = 1> (p)
  y = Gemm (f, bw, bb)
}
"""
BATCH_NORM = """
net (float[N,3,8,8] x, float[6,3,1,1] aw, float[6] s, float[6] t, float[6] m, float[6] var, float[6,1,1] slope,
     float[5,6,1,1] bw) => (float[N,5,8,8] y) {
  a = Conv (x, aw)
  n = BatchNormalization (a, s, t, m, var)
  r = PRelu (n, slope)
  y = Conv (r, bw)
}
"""
RESIDUAL = """
net (float[N,3,8,8] x, float[6,3,3,3] aw, float[8,6,3,3] bw, float[6,8,3,3] cw, float[6] s, float[6] t,
     float[5,6] fw) => (float[N,5] y) {
  a = Conv <pads = [1,1,1,1]> (x, aw)
  b = Conv <pads = [1,1,1,1]> (a, bw)
  br = Tanh (b)
  c = Conv <pads = [1,1,1,1]> (br, cw)
  sum = Add (c, a)
  n = InstanceNormalization (sum, s, t)
  g = GlobalAveragePool (n)
  f = Flatten (g)
  y = Gemm <transB = 1> (f, fw)
}
"""
CONCAT = """
net (float[N,3,8,8] x, float[4,3,1,1] aw, float[6,3,1,1] bw, float[5,10,1,1] cw) => (float[N,5,8,8] y) {
  a = Conv (x, aw)
  b = Conv (x, bw)
  j = Concat <axis = 1> (a, b)
  y = Conv (j, cw)
}
"""
SPLIT = """
net (float[N,3,8,8] x, float[10,3,1,1] aw, float[4,4,1,1] bw, float[4,6,1,1] cw) => (float[N,4,8,8] y) {
  a = Conv (x, aw)
  sizes = Constant <value = int64[2] {4, 6}> ()
  p, q = Split <axis = 1> (a, sizes)
  b = Conv (p, bw)
  c = Conv (q, cw)
  y = Add (b, c)
}
"""
SLICE = """
net (float[N,3,8,8] x, float[10,3,1,1] aw, float[4,5,1,1] bw) => (float[N,4,4,8] y) {
  a = Conv (x, aw)
  starts = Constant <value = int64[2] {2, 0}> ()
  ends = Constant <value = int64[2] {-3, 9223372036854775807}> ()
  axes = Constant <value = int64[2] {1, 2}> ()
  steps = Constant <value = int64[2] {1, 2}> ()
  p = Slice (a, starts, ends, axes, steps)
  y = Conv (p, bw)
}
"""
OPTION_A = """
net (float[N,3,8,8] x, float[4,3,1,1] aw, float[8,4,1,1] bw, float[5,8,1,1] cw) => (float[N,5,4,4] y) {
  a = Conv (x, aw)
  b = Conv <strides = [2,2]> (a, bw)
  starts = Constant <value = int64[2] {0, 0}> ()
  ends = Constant <value = int64[2] {100, 100}> ()
  axes = Constant <value = int64[2] {2, 3}> ()
  steps = Constant <value = int64[2] {2, 2}> ()
  half = Slice (a, starts, ends, axes, steps)
  pads = Constant <value = int64[8] {0, 2, 0, 0, 0, 2, 0, 0}> ()
  wide = Pad (half, pads)
  s = Add (b, wide)
  r = Relu (s)
  y = Conv (r, cw)
}
"""
DEPTHWISE = """
net (float[N,3,8,8] x, float[6,3,1,1] aw, float[12,1,3,3] bw, float[12] bb, float[5,12,1,1] cw) => (float[N,5,6,6] y) {
  a = Conv (x, aw)
  b = Conv <group = 6> (a, bw, bb)
  y = Conv (b, cw)
}
"""
GROUPED_BY_GROUP = """
net (float[N,3,8,8] x, float[8,3,1,1] aw, float[12,2,3,3] bw, float[5,12,1,1] cw) => (float[N,5,6,6] y) {
  a = Conv (x, aw)
  b = Conv <group = 4> (a, bw)
  y = Conv (b, cw)
}
"""
GROUPED_BY_PLACE = """
net (float[N,3,8,8] x, float[8,3,1,1] aw, float[6,4,3,3] bw, float[5,6,1,1] cw) => (float[N,5,6,6] y) {
  a = Conv (x, aw)
  b = Conv <group = 2> (a, bw)
  y = Conv (b, cw)
}
"""
TRANSPOSED = """
net (float[N,3,8,8] x, float[6,3,1,1] aw, float[6,4,2,2] bw, float[4] bb, float[5,4,1,1] cw) => (float[N,5,16,16] y) {
  a = Conv (x, aw)
  b = ConvTranspose <strides = [2,2]> (a, bw, bb)
  y = Conv (b, cw)
}
"""
TRANSPOSED_DEPTHWISE = """
net (float[N,3,8,8] x, float[6,3,1,1] aw, float[6,2,2,2] bw, float[12] bb, float[5,12,1,1] cw)
  => (float[N,5,16,16] y) {
  a = Conv (x, aw)
  b = ConvTranspose <strides = [2,2], group = 6> (a, bw, bb)
  y = Conv (b, cw)
}
"""
TRANSPOSED_BY_PLACE = """
net (float[N,3,8,8] x, float[8,3,1,1] aw, float[8,3,2,2] bw, float[6] bb, float[5,6,1,1] cw)
  => (float[N,5,16,16] y) {
  a = Conv (x, aw)
  b = ConvTranspose <strides = [2,2], group = 2> (a, bw, bb)
  y = Conv (b, cw)
}
"""
SQUEEZE_EXCITE = """
net (float[N,3,8,8] x, float[6,3,1,1] aw, float[4,6,1,1] dw, float[6,4,1,1] uw, float[6] ub, float[5,6,1,1] cw)
  => (float[N,5,8,8] y) {
  a = Conv (x, aw)
  g = GlobalAveragePool (a)
  d = Conv (g, dw)
  r = Relu (d)
  u = Conv (r, uw, ub)
  gate = HardSigmoid (u)
  m = Mul (a, gate)
  y = Conv (m, cw)
}
"""
SHUFFLE = """
net (float[N,3,8,8] x, float[4,3,1,1] aw, float[4,3,1,1] bw, float[5,8,1,1] cw) => (float[N,5,8,8] y) {
  a = Conv (x, aw)
  b = Conv (x, bw)
  j = Concat <axis = 1> (a, b)
  split = Constant <value = int64[5] {0, 2, 4, 8, 8}> ()
  rows = Reshape (j, split)
  turned = Transpose <perm = [0,2,1,3,4]> (rows)
  back = Constant <value = int64[4] {-1, 8, 8, 8}> ()
  k = Reshape (turned, back)
  y = Conv (k, cw)
}
"""
SHUFFLE_AND_PICK = """
net (float[1,3,8,8] x, float[6,3,1,1] aw, float[6,3,1,1] bw, float[4,6,1,1] cw, float[4,6,1,1] dw)
  => (float[1,4,8,8] y) {
  a = Conv (x, aw)
  b = Conv (x, bw)
  j = Concat <axis = 1> (a, b)
  pairs = Constant <value = int64[3] {6, 2, 64}> ()
  rows = Reshape (j, pairs)
  turned = Transpose <perm = [1,0,2]> (rows)
  back = Constant <value = int64[5] {2, -1, 6, 8, 8}> ()
  k = Reshape (turned, back)
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  even = Gather <axis = 0> (k, zero)
  odd = Gather <axis = 0> (k, one)
  c = Conv (even, cw)
  d = Conv (odd, dw)
  y = Add (c, d)
}
"""
PICK = """
net (float[N,3,8,8] x, float[6,3,1,1] aw, float[4,4,1,1] bw) => (float[N,4,8,8] y) {
  a = Conv (x, aw)
  order = Constant <value = int64[4] {5, 0, -2, 0}> ()
  p = Gather <axis = 1> (a, order)
  y = Conv (p, bw)
}
"""
ATTENTION = """
net (float[N,S,8] x, float[8,12] qw, float[12] qb, float[8,12] kw, float[8,12] vw, float[12] vb, float[12,8] ow)
  => (float[N,S,8] y) {
  q0 = MatMul (x, qw)
  q = Add (qb, q0)
  k = MatMul (x, kw)
  v0 = MatMul (x, vw)
  v = Add (v0, vb)
  heads = Constant <value = int64[4] {0, 0, 3, 4}> ()
  q4 = Reshape (q, heads)
  k4 = Reshape (k, heads)
  v4 = Reshape (v, heads)
  qt = Transpose <perm = [0,2,1,3]> (q4)
  kt = Transpose <perm = [0,2,3,1]> (k4)
  vt = Transpose <perm = [0,2,1,3]> (v4)
  scores = MatMul (qt, kt)
  scale = Constant <value = float {2.0}> ()
  scaled = Div (scores, scale)
  probabilities = Softmax <axis = -1> (scaled)
  mixed = MatMul (probabilities, vt)
  back = Transpose <perm = [0,2,1,3]> (mixed)
  flat = Constant <value = int64[3] {0, 0, 12}> ()
  merged = Reshape (back, flat)
  o = MatMul (merged, ow)
  y = Add (o, x)
}
"""
FUSED_ATTENTION = """
net (float[N,S,8] x, float[8,36] w, float[36] b, float[12,8] ow) => (float[N,S,8] y) {
  m = MatMul (x, w)
  a = Add (m, b)
  heads = Constant <value = int64[5] {0, 0, 3, 3, 4}> ()
  r = Reshape (a, heads)
  t = Transpose <perm = [2,0,3,1,4]> (r)
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  two = Constant <value = int64 {2}> ()
  q = Gather <axis = 0> (t, zero)
  k = Gather <axis = 0> (t, one)
  v = Gather <axis = 0> (t, two)
  kt = Transpose <perm = [0,1,3,2]> (k)
  scores = MatMul (q, kt)
  probabilities = Softmax <axis = -1> (scores)
  mixed = MatMul (probabilities, v)
  back = Transpose <perm = [0,2,1,3]> (mixed)
  flat = Constant <value = int64[3] {0, 0, 12}> ()
  merged = Reshape (back, flat)
  o = MatMul (merged, ow)
  y = Add (o, x)
}
"""
SPLIT_ATTENTION = """
net (float[N,S,8] x, float[8,36] w, float[36] b, float[12,8] ow) => (float[N,S,8] y) {
  m = MatMul (x, w)
  a = Add (m, b)
  thirds = Constant <value = int64[3] {12, 12, 12}> ()
  q0, k0, v0 = Split <axis = -1> (a, thirds)
  n = Shape <start = 0, end = 1> (a)
  s = Shape <start = 1, end = 2> (a)
  three = Constant <value = int64[1] {3}> ()
  four = Constant <value = int64[1] {4}> ()
  heads = Concat <axis = 0> (n, s, three, four)
  q1 = Reshape <allowzero = 1> (q0, heads)
  k1 = Reshape (k0, heads)
  v1 = Reshape (v0, heads)
  q = Transpose <perm = [0,2,1,3]> (q1)
  k = Transpose <perm = [0,2,3,1]> (k1)
  v = Transpose <perm = [0,2,1,3]> (v1)
  scores = MatMul (q, k)
  probabilities = Softmax <axis = -1> (scores)
  mixed = MatMul (probabilities, v)
  back = Transpose <perm = [0,2,1,3]> (mixed)
  twelve = Constant <value = int64[1] {12}> ()
  flat = Concat <axis = 0> (n, s, twelve)
  merged = Reshape (back, flat)
  o = MatMul (merged, ow)
  y = Add (o, x)
}
"""
FEED_FORWARD = """
net (float[N,S,8] x, float[8,16] uw, float[16] ub, float[16,8] dw, float[8] s, float[8] t) => (float[N,S,8] y) {
  n = LayerNormalization (x, s, t)
  u0 = MatMul (n, uw)
  u = Add (u0, ub)
  root = Constant <value = float {1.4142135}> ()
  d = Div (u, root)
  e = Erf (d)
  one = Constant <value = float {1.0}> ()
  e1 = Add (e, one)
  g = Mul (u, e1)
  w = MatMul (g, dw)
  y = Add (w, x)
}
"""
TIED = """
net (float[N,6,8,8] x, float[6,6,1,1] aw, float[5,6,1,1] bw) => (float[N,5,8,8] y) {
  a = Conv (x, aw)
  r = Relu (a)
  b = Conv (r, aw)
  y = Conv (b, bw)
}
"""
EMBEDDING = """
net (int64[N,9] x, float[20,6] table, float[8,6,3] aw, float[8] ab, float[8,5] bw) => (float[N,5] y) {
  e = Gather (table, x)
  t = Transpose <perm = [0,2,1]> (e)
  a = Conv (t, aw, ab)
  r = Relu (a)
  m = GlobalMaxPool (r)
  axes = Constant <value = int64[1] {2}> ()
  s = Squeeze (m, axes)
  y = MatMul (s, bw)
}
"""
RECURRENT = """
net (float[S,N,3] x, float[3,8] aw, float[1,16,8] w, float[1,16,4] r, float[4,5] bw) => (float[1,N,5] y) {
  a = MatMul (x, aw)
  t = Tanh (a)
  h, last = LSTM <hidden_size = 4> (t, w, r)
  y = MatMul (last, bw)
}
"""
LSTM = """
net (float[S,2,3] x, float[1,24,3] w, float[1,24,6] r, float[1,48] b, float[1,2,6] h0, float[1,2,6] c0,
     float[1,18,6] v, float[1,18,6] u, float[6,5] bw) => (float[1,2,5] y) {
  h, last, cell = LSTM <hidden_size = 6> (x, w, r, b, , h0, c0)
  axes = Constant <value = int64[1] {1}> ()
  s = Squeeze (h, axes)
  t = Tanh (s)
  g, end = GRU <hidden_size = 6> (t, v, u)
  both = Add (end, last)
  y = MatMul (both, bw)
}
"""
BOTH_DIRECTIONS = """
net (float[S,N,3] x, float[2,6,3] w, float[2,6,6] r, float[2,12] b, float[12,5] bw) => (float[S,N,5] y) {
  h = RNN <hidden_size = 6, direction = "bidirectional"> (x, w, r, b)
  t = Transpose <perm = [0,2,1,3]> (h)
  shape = Constant <value = int64[3] {0, 0, 12}> ()
  f = Reshape (t, shape)
  y = MatMul (f, bw)
}
"""
DEPTH_TO_SPACE = """
net (float[N,3,8,8] x, float[12,3,1,1] aw, float[5,3,1,1] bw) => (float[N,5,16,16] y) {
  a = Conv (x, aw)
  d = DepthToSpace <blocksize = 2, mode = "CRD"> (a)
  y = Conv (d, bw)
}
"""
RESIZE = """
net (float[1,3,8,8] x, float[6,3,1,1] aw, float[5,6,1,1] bw) => (float[1,5,16,16] y) {
  a = Conv (x, aw)
  sizes = Constant <value = int64[4] {1, 6, 16, 16}> ()
  u = Resize <mode = "linear"> (a, , , sizes)
  y = Conv (u, bw)
}
"""
EXPAND = """
net (float[N,3,8,8] x, float[6,3,8,8] aw, float[5,6,1,1] bw) => (float[N,5,4,4] y) {
  a = Conv (x, aw)
  shape = Constant <value = int64[4] {1, 6, 4, 4}> ()
  e = Expand (a, shape)
  y = Conv (e, bw)
}
"""
GROUP_NORM = """
net (float[N,3,8,8] x, float[8,3,1,1] aw, float[4] s, float[4] t, float[5,8,1,1] bw) => (float[N,5,8,8] y) {
  a = Conv (x, aw)
  rows = Constant <value = int64[3] {0, 4, -1}> ()
  g = Reshape (a, rows)
  n = InstanceNormalization (g, s, t)
  back = Constant <value = int64[4] {0, 8, 8, 8}> ()
  b = Reshape (n, back)
  y = Conv (b, bw)
}
"""
GROUP_NORM_NATIVE = """
net (float[N,3,8,8] x, float[8,3,1,1] aw, float[P] s, float[P] t, float[5,8,1,1] bw) => (float[N,5,8,8] y) {
  a = Conv (x, aw)
  n = GroupNormalization <num_groups = 4> (a, s, t)
  y = Conv (n, bw)
}
"""
FOUND = {
    "chain": (CHAIN, {"a": (4, 1)}),
    "batch norm": (BATCH_NORM, {"a": (6, 1)}),
    "residual": (RESIDUAL, {"a": (6, 1), "b": (8, 1)}),
    "concat": (CONCAT, {"a": (4, 1), "b": (6, 1)}),
    "split": (SPLIT, {"a": (4, 1), "a ": (6, 1)}),
    "slice": (SLICE, {"a": (5, 1), "a ": (5, 1)}),
    "option A": (OPTION_A, {"a": (4, 1), "b": (4, 1)}),
    "depthwise": (DEPTHWISE, {"a": (6, 1)}),
    "grouped, whole groups": (GROUPED_BY_GROUP, {"a": (4, 2)}),
    "grouped, same place": (GROUPED_BY_PLACE, {"a": (4, 2), "b": (3, 2)}),
    "transposed": (TRANSPOSED, {"a": (6, 1), "b": (4, 1)}),
    "transposed depthwise": (TRANSPOSED_DEPTHWISE, {"a": (6, 1)}),
    "transposed, same place": (TRANSPOSED_BY_PLACE, {"a": (4, 2), "b": (3, 1)}),
    "squeeze-excite": (SQUEEZE_EXCITE, {"a": (6, 1), "d": (4, 1)}),
    "shuffle": (SHUFFLE, {"a": (4, 1)}),
    "shuffle and pick": (SHUFFLE_AND_PICK, {"a": (3, 2), "b": (3, 2)}),
    "pick": (PICK, {"a": (1, 1), "a ": (2, 1), "a  ": (3, 1)}),
    "attention": (ATTENTION, {"q0": (3, 4)}),
    "fused attention": (FUSED_ATTENTION, {"m": (3, 12)}),
    "split attention": (SPLIT_ATTENTION, {"m": (3, 12)}),
    "feed-forward": (FEED_FORWARD, {"u0": (16, 1)}),
    "embedding": (EMBEDDING, {"e": (6, 1), "a": (8, 1)}),
    "recurrent": (RECURRENT, {"a": (8, 1), "h": (4, 4)}),
    "hidden units": (LSTM, {"h": (6, 4)}),
    "both directions": (BOTH_DIRECTIONS, {"h": (6, 1)}),
    "depth to space": (DEPTH_TO_SPACE, {"a": (3, 4)}),
    "resize": (RESIZE, {"a": (6, 1)}),
    "expand": (EXPAND, {"a": (6, 1)}),
    "group norm": (GROUP_NORM, {"a": (4, 2)}),
}


def random_choice(analysis: Analysis, seed: int) -> surgery.Choice:
    """Keep some channels of every group, at least one, and remove at least one where there are two."""
    generator = np.random.default_rng(seed)
    choice = {}
    for group in analysis.prunable:
        kept = generator.permutation(group.size)[: generator.integers(1, max(2, group.size))]
        choice[group] = np.isin(np.arange(group.size), kept)
    return choice


@pytest.mark.parametrize("name", FOUND)
def test_groups_are_found(build: Build, name: str) -> None:
    text, expected = FOUND[name]
    found = sorted((group.name, group.size, group.width) for group in analyze(build(text)).prunable)
    assert found == sorted((key.strip(), *value) for key, value in expected.items())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FOUND)
def test_cut_equals_masked(build: Build, name: str, seed: int) -> None:
    model = build(FOUND[name][0], seed=seed)
    analysis = analyze(model)
    choice = random_choice(analysis, seed)
    masked = surgery.masked(model, choice)
    surgery.cut(model, choice)
    for group, keep in choice.items():
        maker = group.makers[0].value
        assert keep.sum() < group.size or group.size == 1
        assert maker.shape == maker.const_value.shape
    error = proof.prove(model, masked, None)
    assert error is not None and error < 1e-5


def test_worked_example_of_the_docstring(build: Build) -> None:
    analysis = analyze(build(CHAIN))
    (group,) = analysis.prunable
    places = {(member.value.name, member.axis): member.channel.tolist() for member in group.members}
    alone, flat = [0, 1, 2, 3], [channel for channel in range(4) for _ in range(16)]
    assert places == {
        ("aw", 0): alone,
        ("ab", 0): alone,
        ("a", 1): alone,
        ("r", 1): alone,
        ("p", 1): alone,
        ("f", 1): flat,
        ("bw", 0): flat,
    }
    assert [weight.value.name for weight in group.makers] == ["aw"]
    assert [weight.value.name for weight in group.readers] == ["bw"]


STOPPED = {
    "output": (CHAIN, "y", "output", "y: is the model's output"),
    "softmax over channels": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[5,4,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) s = Softmax <axis = 1> (a) y = Conv (s, bw) }",
        "a",
        "Softmax",
        "s: normalizes over these channels",
    ),
    "layer norm": (
        "net (float[N,3] x, float[3,4] aw, float[4] g, float[4] b, float[4,5] bw) => (float[N,5] y) {"
        " a = MatMul (x, aw) n = LayerNormalization (a, g, b) y = MatMul (n, bw) }",
        "a",
        "LayerNormalization",
        "n: normalizes over these channels",
    ),
    "mean over channels": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[5,4,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) m = ReduceMean <axes = [1]> (a) d = Sub (a, m) y = Conv (d, bw) }",
        "a",
        "ReduceMean",
        "m: reduces over these channels",
    ),
    "unknown operator": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[5,4,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) l = LRN <size = 3> (a) y = Conv (l, bw) }",
        "a",
        "LRN",
        "l: this operator is not followed",
    ),
    "foreign domain": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[5,4,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) l = custom.Relu (a) y = Conv (l, bw) }",
        "a",
        "Relu",
        "l: this operator is not followed",
    ),
    "sum with an input": (
        "net (float[N,4,8,8] x, float[4,4,1,1] aw, float[5,4,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) s = Add (a, x) y = Conv (s, bw) }",
        "a",
        "input",
        "x: is the model's input",
    ),
    "number of channels read": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[5,4,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) s = Shape <start = 1, end = 2> (a) n = Cast <to = 1> (s) d = Div (a, n) y = Conv (d, bw) }",
        "a",
        "Shape",
        "s: reads their number at run time",
    ),
    "one gate for all": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[2,4,1,1] gw, float[5,4,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) two = Conv (a, gw) sizes = Constant <value = int64[2] {1, 1}> ()"
        " g, h = Split <axis = 1> (two, sizes) p = Mul (a, g) q = Add (p, h) y = Conv (q, bw) }",
        "two",
        "Mul",
        "p: one channel is used for many",
    ),
    "mixed with the batch": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[8,5] bw) => (float[M,5] y) {"
        " a = Conv (x, aw) s = Constant <value = int64[2] {-1, 8}> () r = Reshape (a, s) y = MatMul (r, bw) }",
        "a",
        "Reshape",
        "r: mixes channels with axes that cannot be followed",
    ),
    "an axis of size zero": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[64,5] bw) => (float[K,M,5] y) {"
        " a = Conv (x, aw) s = Constant <value = int64[3] {0, 4, 64}> () r = Reshape <allowzero = 1> (a, s)"
        " y = MatMul (r, bw) }",
        "a",
        "Reshape",
        "r: reshapes to sizes known only at run time",
    ),
    "tiled": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[5,8,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) n = Constant <value = int64[4] {1, 2, 1, 1}> () t = Tile (a, n) y = Conv (t, bw) }",
        "a",
        "Tile",
        "t: this operator is not followed",
    ),
    "every second channel": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[5,2,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) b = Constant <value = int64[1] {0}> () e = Constant <value = int64[1] {4}> ()"
        " i = Constant <value = int64[1] {1}> () t = Constant <value = int64[1] {2}> ()"
        " s = Slice (a, b, e, i, t) y = Conv (s, bw) }",
        "a",
        "Slice",
        "s: takes a part of this axis that cannot be followed",
    ),
    "reflected channels": (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[5,6,1,1] bw) => (float[N,5,8,8] y) {"
        " a = Conv (x, aw) p = Constant <value = int64[8] {0, 1, 0, 0, 0, 1, 0, 0}> ()"
        ' r = Pad <mode = "reflect"> (a, p) y = Conv (r, bw) }',
        "a",
        "Pad",
        "r: pads this axis with other than a constant",
    ),
    "channels as indices": (
        "net (float[N,3] x, float[3,4] aw, float[20,6] table, float[6,5] bw) => (float[N,4,5] y) {"
        " a = MatMul (x, aw) i = Cast <to = 7> (a) m = Clip (i, , ) e = Gather (table, m) y = MatMul (e, bw) }",
        "a",
        "Gather",
        "e: is used as an index",
    ),
}


@pytest.mark.parametrize("name", STOPPED)
def test_what_cannot_be_proven_is_skipped_with_operator_and_reason(build: Build, name: str) -> None:
    text, where, op, reason = STOPPED[name]
    analysis = analyze(build(text))
    assert where not in [group.name for group in analysis.prunable]
    found = [(skip.where, skip.op, skip.reason) for skip in analysis.skipped]
    assert (where, op, reason) in found


def test_weight_that_is_a_graph_input_is_skipped(build: Build) -> None:
    model = build(CHAIN)
    weight = model.graph.initializers["aw"]
    model.graph.inputs.append(weight)
    analysis = analyze(model)
    assert not analysis.prunable
    reasons = [(skip.where, skip.op, skip.reason) for skip in analysis.skipped]
    assert ("a", "Conv", "its weight 'aw' is a graph input, which the caller may replace") in reasons


def test_equal_biases_share_channels_only_if_shared(build: Build) -> None:
    """A bias that two layers read ties them: the analysis must see it, `prune` unties such parameters first."""
    shared = (
        "net (float[N,3,8,8] x, float[4,3,1,1] aw, float[4] b, float[4,4,1,1] cw, float[5,4,1,1] dw)"
        " => (float[N,5,8,8] y) { a = Conv (x, aw, b) c = Conv (a, cw, b) y = Conv (c, dw) }"
    )
    assert [(group.name, group.size) for group in analyze(build(shared)).prunable] == [("a", 4)]


def test_tied_weights_are_one_group(build: Build) -> None:
    """The input of the first use is the model's, so the tied layer's channels cannot go; the reason names it."""
    analysis = analyze(build(TIED))
    assert not analysis.prunable
    assert ("a", "input") in [(skip.where, skip.op) for skip in analysis.skipped]


def test_tied_weights_are_cut_once(build: Build) -> None:
    text = """
    net (float[N,3,8,8] x, float[6,3,1,1] sw, float[6,6,1,1] aw, float[5,6,1,1] bw) => (float[N,5,8,8] y) {
      s = Conv (x, sw)
      a = Conv (s, aw)
      r = Sigmoid (a)
      b = Conv (r, aw)
      y = Conv (b, bw)
    }
    """
    model = build(text)
    analysis = analyze(model)
    (group,) = analysis.prunable
    assert group.size == 6
    choice = {group: np.array([True, False, True, True, False, True])}
    masked = surgery.masked(model, choice)
    surgery.cut(model, choice)
    assert model.graph.initializers["aw"].shape == ir.Shape([4, 4, 1, 1])
    assert proof.prove(model, masked, None) < 1e-5


def test_value_read_in_a_subgraph_stays(build: Build) -> None:
    text = """
    net (float[N,3,8,8] x, bool xc, float[4,3,1,1] aw, float[5,4,1,1] bw) => (float[N,5,8,8] y, float[N,4,8,8] z) {
      a = Conv (x, aw)
      y = Conv (a, bw)
      z = If (xc) <
        then_branch = yes () => (float[N,4,8,8] t) { t = Relu (a) },
        else_branch = no () => (float[N,4,8,8] e) { e = Identity (a) }
      >
    }
    """
    analysis = analyze(build(text))
    assert not analysis.prunable
    assert ("a", "subgraph") in [(skip.where, skip.op) for skip in analysis.skipped]


def test_weights_inside_subgraphs_are_reported(build: Build) -> None:
    text = """
    net (float[2,3] x, bool xc, float[3,4] w) => (float[2,4] y) {
      y = If (xc) <
        then_branch = yes () => (float[2,4] t) { t = MatMul (x, w) },
        else_branch = no () => (float[2,4] e) { m = MatMul (x, w) e = Neg (m) }
      >
    }
    """
    (skip,) = analyze(build(text)).skipped
    assert (skip.where, skip.op, skip.reason) == ("y", "If", "2 weighted operators inside its subgraphs are left alone")


@pytest.mark.parametrize(("opset", "parameters"), [(18, 4), (21, 8)])
def test_group_normalization_loses_whole_groups(build: Build, opset: int, parameters: int) -> None:
    model = build(GROUP_NORM_NATIVE.replace("[P]", f"[{parameters}]"), opset=opset)
    shapes.infer(model)
    (group,) = analyze(model).prunable
    assert (group.size, group.width) == (4, 2)
    choice = {group: np.array([True, False, True, True])}
    masked = surgery.masked(model, choice)
    surgery.cut(model, choice)
    assert model.graph.initializers["s"].shape == (parameters * 3 // 4,)
    assert proof.prove(model, masked, None) is not None
