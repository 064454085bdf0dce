"""How many channels each group loses, and which ones.

Channel counts go down in *steps*, from one width that ``round_to`` allows to the next; in each step a group loses the
least important channels that it has left. All steps of a model are put in one order, and a prefix of it is taken: as
long as the amount asks, or until the target is met.

``uniform`` orders steps by the share of the group that is gone halfway through the step, so that all groups shrink
alike and each ends at the width nearest to its share. ``global`` orders them by price: the share of its scores that
every weight loses, summed over the weights that make or read the group, per share of the model's MACs (or of the
target's quantity) that is saved. A residual stream that ten layers write to and read is dear; a wide layer between two
others, whose channels are alike, is cheap.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import UsageError
from onnxpress.graph import Array
from onnxpress.pruning import criteria
from onnxpress.pruning.groups import Group
from onnxpress.pruning.options import PruneOptions, Quantity
from onnxpress.pruning.surgery import Choice
from onnxpress.pruning.weights import Weight

Counts = dict[Group, int]
"""Channels kept of each group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One group loses channels, down to the next width."""

    group: Group
    before: int
    after: int
    """Channels kept before and after it."""
    removed_share: float
    """Share of the group's channels gone halfway through the step."""
    lost: float
    """Share of its scores that each weight of the group loses, summed over the weights."""
    price: float
    """What is lost per share of the quantity saved, see the module."""


def choose(model: ir.Model, groups: Sequence[Group], options: PruneOptions) -> Choice:
    """Decide which channels of each group are kept.

    Raises:
        UsageError: the target cannot be reached; the message says how far the model can go.

    """
    quantity, share = next(iter((options.target or {"macs": 0.0}).items()))
    scale = Scale(model, groups, quantity)
    scores = {group: importance(group, options.method) for group in groups}
    steps = [step for group in groups for step in _steps(group, scores[group], scale, options.round_to)]
    if options.allocation == "uniform":
        steps.sort(key=lambda step: (step.removed_share, step.price))
    else:
        steps.sort(key=lambda step: step.price)
    if options.target is None:
        taken = steps[: _enough(steps, options, sum(group.size for group in groups))]
        counts = {step.group: step.after for step in taken}
    else:
        counts = _reaching(steps, scale, share, quantity)
    return {group: _best(scores[group], counts.get(group, group.size)) for group in groups}


def importance(group: Group, method: str) -> Array:
    """Return one score per channel, [size], mean 1.

    It is the mean over all weights that make or read the channel, after giving each weight's scores the mean 1: what a
    reader multiplies a channel with says as much about it as what makes it, and a layer's scale says nothing.
    G. Fang et al., "DepGraph: Towards any structural pruning", 2023 (arXiv:2301.12900), section 3.3.
    """
    scores = []
    for weight, axis, place in _sides(group):
        each = criteria.score(method, weight.rows())
        rows = each.sum(axis=tuple(i for i in range(each.ndim) if i != place))
        channel = group.channel(weight.value, axis)
        sums = np.bincount(channel[channel >= 0], weights=rows[channel >= 0], minlength=group.size)
        scores.append(sums / (sums.mean() or 1))
    mean: Array = np.mean(scores, axis=0)
    return mean


def _sides(group: Group) -> list[tuple[Weight, int, int]]:
    """Return the weights a group's channels lie on, with the axis in the tensor and its place in [out, in, …]."""
    made = [(weight, weight.out_axis, 0) for weight in group.makers]
    return made + [(weight, weight.in_axis, 1) for weight in group.readers]


def widths(group: Group, round_to: int) -> list[int]:
    """Return the numbers of channels that may be kept, ascending: multiples of the rounding, and all of them."""
    step = round_to // math.gcd(round_to, group.width)
    return [*range(step, group.size, step), group.size]


class Scale:
    """Weighs a model at given widths, without touching its weights."""

    def __init__(self, model: ir.Model, groups: Sequence[Group], quantity: Quantity) -> None:
        self._model = model
        self._measure = {"macs": graph.total_macs, "params": parameters, "bytes": weight_bytes}[quantity]
        self._shapes = {member.value: member.value.shape for group in groups for member in group.members}
        self._full = self._measure(model)

    def ratio(self, counts: Mapping[Group, int]) -> float:
        """Return the quantity at these widths (groups not named are whole) as a share of the whole model's."""
        sizes = {value: list(shape or ()) for value, shape in self._shapes.items()}
        for group, count in counts.items():
            for member in group.members:
                removed = (group.size - count) * int(np.count_nonzero(member.channel == 0))
                sizes[member.value][member.axis] -= removed
        for value, size in sizes.items():
            value.shape = ir.Shape(size)
        try:
            return self._measure(self._model) / self._full if self._full else 1.0
        finally:
            for value, shape in self._shapes.items():
                value.shape = shape


def parameters(model: ir.Model) -> int:
    """Return the number of weights in the main graph, by their shapes."""
    return sum(_elements(value) for value in model.graph.initializers.values())


def weight_bytes(model: ir.Model) -> int:
    """Return the bytes of the weights in the main graph, by their shapes."""
    values = model.graph.initializers.values()
    return sum(math.ceil(_elements(value) * value.dtype.bitwidth / 8) for value in values if value.dtype is not None)


def _elements(value: ir.Value) -> int:
    return math.prod(size or 0 for size in graph.shape(value) or ())


def _steps(group: Group, scores: Array, scale: Scale, round_to: int) -> list[Step]:
    ascending = np.sort(scores)
    down = widths(group, round_to)[::-1]
    if len(down) == 1:
        return []
    saved = (1 - scale.ratio({group: down[-1]})) / (group.size - down[-1])  # per channel, all others whole
    steps = []
    for before, after in itertools.pairwise(down):
        lost = float(ascending[group.size - before : group.size - after].sum()) / group.size * len(_sides(group))
        steps.append(
            Step(
                group=group,
                before=before,
                after=after,
                removed_share=1 - (before + after) / 2 / group.size,
                lost=lost,
                price=lost / (before - after) / max(saved, 1e-12),
            )
        )
    return steps


def _enough(steps: Sequence[Step], options: PruneOptions, channels: int) -> int:
    """Return how many steps an amount takes: to the nearest width of each group, or of the model."""
    amount = options.amount or 0.0
    if options.allocation == "uniform":
        return bisect.bisect_right(steps, amount, key=lambda step: step.removed_share)
    removed = np.cumsum([0, *(step.before - step.after for step in steps)])
    return int(np.argmin(np.abs(removed - amount * channels)))


def _reaching(steps: Sequence[Step], scale: Scale, share: float, quantity: Quantity) -> Counts:
    """Return counts that meet a target: the first steps in order, as far as it asks.

    The step that crosses the target may overshoot by far. Then its group is passed over and the following steps are
    tried, until one ends within one percent; of all ends, the one that loses least is taken. Whatever an end overshoots
    is given back first, the last steps first.

    Raises:
        UsageError: all steps together do not meet it.

    """

    def counts_after(taken: int) -> Counts:
        return {step.group: step.after for step in steps[:taken]}

    least = scale.ratio(counts_after(len(steps)))
    if least > share:
        raise UsageError(
            f"target {quantity}={share:g}: cannot be reached, all that can be removed leaves {least:.3g} of the "
            f"baseline's {quantity}. Ask for at least that much, or allow more with round_to and exclude."
        )
    above = bisect.bisect_left(range(len(steps)), True, key=lambda taken: scale.ratio(counts_after(taken + 1)) <= share)
    counts, passed = counts_after(above), set()
    if scale.ratio(counts) <= share:
        return counts
    ends = []
    for step in steps[above:]:
        if step.group in passed:
            continue
        narrower = {**counts, step.group: step.after}
        reached = scale.ratio(narrower)
        if reached > share:
            counts = narrower
            continue
        passed.add(step.group)
        ends.append(_given_back(narrower, steps, scale, share))
        if reached >= 0.99 * share:
            break
    return min(ends, key=lambda end: sum(step.lost for step in steps if end.get(step.group, step.before) <= step.after))


def _given_back(counts: Counts, steps: Sequence[Step], scale: Scale, share: float) -> Counts:
    kept: set[Group] = set()
    for step in reversed(steps):
        if step.group not in kept and counts.get(step.group) == step.after:
            wider = {**counts, step.group: step.before}
            if scale.ratio(wider) <= share:
                counts = wider
            else:
                kept.add(step.group)
    return counts


def _best(scores: Array, count: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    keep = np.zeros(len(scores), np.bool_)
    keep[np.argsort(-scores, kind="stable")[:count]] = True
    return keep
