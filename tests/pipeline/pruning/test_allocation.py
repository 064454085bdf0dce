from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import macs, parameters
from onnxpress.pruning import PruneOptions, allocation, criteria, surgery
from onnxpress.pruning.evidence import Evidence
from onnxpress.pruning.groups import Group, analyze

Build = Callable[..., ir.Model]


def choose(model: ir.Model, groups: Sequence[Group], options: PruneOptions) -> surgery.Choice:
    importances = {group: criteria.importance(options.criterion, group, Evidence()) for group in groups}
    how = "global" if options.allocation == "auto" else options.allocation
    options = options.model_copy(update={"round_to": options.round_to or 8, "allocation": how})
    return allocation.choose(groups, options, importances, scale(model, groups, next(iter(options.target or ["macs"]))))


def scale(model: ir.Model, groups: Sequence[Group], quantity: str) -> allocation.Scale:
    return allocation.Scale(model, groups, allocation.MEASURES[quantity])


def counts(model: ir.Model, **options: object) -> dict[str, int]:
    groups = analyze(model).prunable
    choice = choose(model, groups, PruneOptions(**options))  # type: ignore[arg-type]
    return {group.name: int(keep.sum()) for group, keep in choice.items()}


def test_uniform_rounds_each_group_to_its_nearest_width(chain: ir.Model) -> None:
    # 30 % of 16, 32 and 64 leaves 11.2, 22.4 and 44.8; the nearest multiples of 8 are 8, 24 and 48.
    assert counts(chain, amount=0.3, allocation="uniform") == {"a": 8, "b": 24, "c": 48}
    assert counts(chain, amount=0.3, allocation="uniform", round_to=1) == {"a": 11, "b": 22, "c": 45}
    assert counts(chain, amount=0.3, allocation="uniform", round_to=16) == {"a": 16, "b": 16, "c": 48}


@pytest.mark.parametrize("how", ["uniform", "global"])
def test_everything_leaves_one_width_of_each_group(chain: ir.Model, how: str) -> None:
    assert counts(chain, amount=1.0, allocation=how) == {"a": 8, "b": 8, "c": 8}
    assert counts(chain, amount=1.0, allocation=how, round_to=1) == {"a": 1, "b": 1, "c": 1}
    assert counts(chain, amount=0.0, allocation=how) == {"a": 16, "b": 32, "c": 64}


def test_global_amount_is_the_share_of_all_channels(chain: ir.Model) -> None:
    kept = counts(chain, amount=0.5, round_to=1)
    assert sum(kept.values()) == 56


def test_least_important_channels_go_first(chain: ir.Model) -> None:
    weight = chain.graph.initializers["aw"]
    array = np.ones((16, 3, 1, 1), np.float32)
    array[[1, 5, 11]] = 0.01
    weight.const_value = ir.tensor(array, name="aw")
    chain.graph.initializers["bw"].const_value = ir.tensor(np.ones((32, 16, 1, 1), np.float32), name="bw")
    groups = analyze(chain).prunable
    choice = choose(chain, groups, PruneOptions(amount=3 / 16, allocation="uniform", round_to=1))
    keep = next(keep for group, keep in choice.items() if group.name == "a")
    assert np.flatnonzero(~keep).tolist() == [1, 5, 11]


def test_a_channel_that_is_hardly_read_is_as_unimportant_as_one_hardly_made(chain: ir.Model) -> None:
    ones = {"aw": np.ones((16, 3, 1, 1)), "bw": np.ones((32, 16, 1, 1))}
    ones["bw"][:, 4] = 0.01
    for name, array in ones.items():
        chain.graph.initializers[name].const_value = ir.tensor(array.astype(np.float32), name=name)
    group = analyze(chain).prunable[0]
    scores = criteria.importance("l1", group, Evidence())
    assert scores.sum() == pytest.approx(2)
    assert int(np.argmin(scores)) == 4


def test_scores_do_not_depend_on_a_layers_scale(chain: ir.Model) -> None:
    group = analyze(chain).prunable[1]
    before = criteria.importance("l2", group, Evidence())
    weight = chain.graph.initializers["bw"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1024), name="bw")
    assert np.allclose(before, criteria.importance("l2", group, Evidence()))


@pytest.mark.parametrize("how", ["uniform", "global"])
@pytest.mark.parametrize("quantity", ["macs", "params", "bytes"])
@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.3])
def test_target_is_met_and_no_single_step_can_be_given_back(
    chain: ir.Model, how: str, quantity: str, share: float
) -> None:
    groups = analyze(chain).prunable
    choice = choose(chain, groups, PruneOptions(target={quantity: share}, allocation=how))
    kept = {group: int(keep.sum()) for group, keep in choice.items()}
    weigh = scale(chain, groups, quantity)
    assert share - 0.1 < weigh.ratio(kept) <= share
    for group, count in kept.items():
        if count < group.size:
            assert weigh.ratio({**kept, group: count + 8}) > share


def test_scale_foretells_what_the_cut_gives(chain: ir.Model) -> None:
    groups = analyze(chain).prunable
    full = macs.total(chain), parameters.count(chain), allocation.weight_bytes(chain)
    choice = {group: np.arange(group.size) % 3 > 0 for group in groups}
    kept = {group: int(keep.sum()) for group, keep in choice.items()}
    foretold = [scale(chain, groups, quantity).ratio(kept) for quantity in ("macs", "params", "bytes")]
    assert macs.total(chain) == full[0], "measuring changed the model"
    surgery.cut(chain, choice)
    found = macs.total(chain), parameters.count(chain), allocation.weight_bytes(chain)
    assert foretold == [after / before for after, before in zip(found, full, strict=True)]
