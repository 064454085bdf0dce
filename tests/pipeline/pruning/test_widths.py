from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from onnxpress import graph, host
from onnxpress.pruning import PruneOptions, prune
from onnxpress.pruning.groups import Group, analyze
from onnxpress.pruning.widths import preferred, widths

Build = Callable[..., ir.Model]
HEADS = """
net (float[N,S,8] x, float[8,48] vw, float[48,8] ow) => (float[N,S,8] y) {
  v = MatMul (x, vw)
  shape = Constant <value = int64[4] {0, 0, 6, 8}> ()
  r = Reshape (v, shape)
  m = ReduceMean <axes = [3], keepdims = 1> (r)
  c = Sub (r, m)
  flat = Constant <value = int64[3] {0, 0, 48}> ()
  f = Reshape (c, flat)
  y = MatMul (f, ow)
}
"""


def rounded(round_to: int) -> PruneOptions:
    return PruneOptions(amount=0.5, round_to=round_to)


def test_width_of_a_channel_counts_in_the_rounding(build: Build) -> None:
    (group,) = analyze(build(HEADS)).prunable
    assert (group.size, group.width) == (6, 8)
    assert widths(group, rounded(8)) == [1, 2, 3, 4, 5, 6]
    assert widths(group, rounded(16)) == [2, 4, 6]
    assert widths(group, rounded(12)) == [3, 6]


def test_widths_of_a_group_that_is_no_multiple(chain: ir.Model) -> None:
    group: Group = analyze(chain).prunable[0]
    assert widths(group, rounded(8)) == [8, 16]
    assert widths(group, rounded(6)) == [6, 12, 16]
    assert widths(group, rounded(16)) == [16]
    assert widths(group, rounded(64)) == [16]


def test_preferred_is_the_block_of_the_kernels() -> None:
    assert preferred("cpu", ("avx2", "avx512f")) == 16
    assert preferred("cpu", ("avx2",)) == preferred("cpu", ()) == 8
    assert preferred("cuda", ("avx2", "avx512f")) == 8


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the CPU has AVX-512."""
    real = host.describe()
    fields = {name: getattr(real, name) for name in host.Host.__slots__}
    monkeypatch.setattr(host, "describe", lambda: host.Host(**fields | {"features": ("avx2", "avx512f")}))


def counts(model: ir.Model, **options: object) -> tuple[int, list[int]]:
    edit = prune(model, PruneOptions(**options))  # type: ignore[arg-type]
    shapes = [graph.shape(edit.model.graph.initializers[name]) or () for name in ("aw", "bw", "cw")]
    return edit.facts["round_to"], [int(shape[0] or 0) for shape in shapes]


@pytest.mark.usefixtures("wide")
def test_the_default_is_what_the_host_prefers(chain: ir.Model) -> None:
    assert counts(chain, amount=0.3, allocation="uniform") == (16, [16, 16, 48])
    assert counts(chain, amount=0.3, allocation="uniform", provider="cuda") == (8, [8, 24, 48])


@pytest.mark.usefixtures("wide")
def test_small_layers_are_cut_finer_when_the_aim_needs_it(chain: ir.Model) -> None:
    assert counts(chain, amount=0.75, allocation="uniform") == (8, [8, 8, 16])  # 16 would leave 48 of 112
    assert counts(chain, target={"macs": 0.05}, allocation="uniform")[0] == 4


@pytest.mark.usefixtures("wide")
def test_the_users_word_wins(chain: ir.Model) -> None:
    assert counts(chain, amount=0.75, allocation="uniform", round_to=16) == (16, [16, 16, 16])
    assert counts(chain, amount=0.3, allocation="uniform", round_to=1) == (1, [11, 22, 45])
