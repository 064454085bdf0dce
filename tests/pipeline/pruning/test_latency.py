from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import session
from onnxpress.errors import UsageError
from onnxpress.export.passes import shapes
from onnxpress.macs import total
from onnxpress.pruning import PruneOptions, latency, prune
from onnxpress_calibration.dataset import Dataset

Build = Callable[..., ir.Model]
NET = """
net (float[N,3,S,S] x, float[64,3,3,3] aw, float[64] ab, float[64,64,3,3] bw, float[64,64,1,1] cw, float[64,10] dw)
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
DATA = Dataset(origin="test", read=lambda: [{"x": np.zeros((2, 3, 12, 12), np.float32)}])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a session take as many milliseconds as its model has thousand MACs, to a power that a test may set."""
    power = [1.0]

    def milliseconds(model: ir.Model, feeds: dict[str, Any], runs: int = 1) -> float:  # noqa: ARG001
        copy = model.clone()
        for value in copy.graph.inputs:
            value.shape = ir.Shape(feeds[str(value.name)].shape)
        shapes.infer(copy)
        return float(total(copy) / 1000) ** (power[0] if len(copy.graph) > 1 else 1)

    monkeypatch.setattr(latency, "open_session", lambda model, options=None: model)  # noqa: ARG005
    monkeypatch.setattr(latency, "run", lambda model, feeds: session.run(session.open_session(model), feeds))
    monkeypatch.setattr(latency, "milliseconds", milliseconds)
    return power


def macs(model: ir.Model) -> int:
    copy = model.clone()
    copy.graph.inputs[0].shape = ir.Shape([1, 3, 12, 12])
    shapes.infer(copy)
    return total(copy)


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("share", [0.8, 0.5])
def test_target_is_met_as_measured(build: Build, clock: list[float], power: float, share: float) -> None:
    clock[0] = power  # with 0.5 the whole model gets faster by less than its layers alone
    model = build(NET)
    edit = prune(model, PruneOptions(target={"latency": share}, round_to=8), DATA)
    measured = (macs(edit.model) / macs(model)) ** power
    assert share - 0.12 < measured <= share
    assert edit.facts["latency_ratio"] == pytest.approx(measured)
    assert edit.facts["latency_before_ms"] == pytest.approx((macs(model) / 1000) ** power)


@pytest.mark.usefixtures("clock")
def test_milliseconds_are_a_share_of_the_whole(build: Build) -> None:
    whole = macs(build(NET)) / 1000
    edits = [
        prune(build(NET), PruneOptions(target=target, round_to=8), DATA).model
        for target in ({"latency_ms": 0.6 * whole}, {"latency": 0.6})
    ]
    one, other = (ir.to_proto(model).SerializeToString(deterministic=True) for model in edits)
    assert one == other
    faster = prune(build(NET), PruneOptions(target={"latency_ms": 2 * whole}, round_to=8), DATA)
    assert (faster.changed, faster.facts["macs_ratio"]) == ((), 1.0)


@pytest.mark.usefixtures("clock")
def test_out_of_reach_says_how_far_it_goes(build: Build) -> None:
    left = (144 * (8 * 27 + 8 * 72 + 8 * 8) + 80) / macs(build(NET))
    with pytest.raises(UsageError, match=rf"target latency=0\.01: cannot be reached, .* leaves {left:.3g} of"):
        prune(build(NET), PruneOptions(target={"latency": 0.01}, round_to=8), DATA)


@pytest.mark.usefixtures("clock")
def test_iterations_reach_the_same_target(build: Build) -> None:
    edit = prune(build(NET), PruneOptions(target={"latency": 0.6}, round_to=8, iterations=2), DATA)
    assert 0.48 < edit.facts["latency_ratio"] <= 0.6


def test_real_clock(build: Build) -> None:
    """The wiring to onnxruntime: a table of layers, and a ratio with its interval."""
    model = build(NET)
    shapes.infer(model)
    table = latency.Latency(model, DATA, session.SessionOptions(threads=1))
    assert table(model) == pytest.approx(table.whole_ms, rel=1e-6)
    found = table.compare(model, model)
    assert found.low <= found.value <= found.high


def test_layer_alone_has_the_shapes_asked_for(build: Build) -> None:
    text = """
    net (float[N,8,6,6] x, float[8,1,3,3] w, float[8] b) => (float[N,8,4,4] y) { y = Conv <group = 8> (x, w, b) }
    """
    node = build(text).graph.node(0)
    model, feeds = latency.alone(node, [(1, 4, 6, 6), (4, 1, 3, 3), (4,)])
    (output,) = session.open_session(model).run(None, feeds)
    assert output.shape == (1, 4, 4, 4)


def test_without_data_noise_will_do(build: Build) -> None:
    edit = prune(build(NET), PruneOptions(target={"latency": 1.0}))
    assert edit.facts["macs_ratio"] == 1.0
