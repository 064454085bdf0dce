"""How many channels each group loses, and which ones.

Channel counts go down in *steps*, from one width that ``round_to`` allows to the next; in each step a group loses the
least important channels that it has left. All steps of a model are put in one order, and a prefix of it is taken: as
long as the amount asks, or until the target is met.

``uniform`` orders steps by the share of the group that is gone halfway through the step, so that all groups shrink
alike and each ends at the width nearest to its share. ``global`` and ``sensitivity`` order them by price: what the
criterion says is lost (see `criteria.importance`) per share of the model's MACs (or of the target's quantity) that is
saved. A residual stream that ten layers write to and read is dear; a wide layer between two others, whose channels are
alike, is cheap. ``global`` takes the criterion's word for what a loss in one group means next to one in another;
``sensitivity`` has measured it (see `sensitivity`).
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress import graph, macs, parameters
from onnxpress.graph import Array
from onnxpress.pruning import branches, stored
from onnxpress.pruning.groups import Group
from onnxpress.pruning.options import PruneOptions
from onnxpress.pruning.surgery import Choice, Mask
from onnxpress.pruning.widths import widths

Counts = dict[Group, int]
"""Channels kept of each group."""
Measure = Callable[[ir.Model], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One group loses channels, down to the next width."""

    group: Group
    before: int
    after: int
    """Channels kept before and after it."""
    lost: float
    """Sum of the importances of the channels that go."""
    saved: float
    """Share of the quantity that goes."""

    @property
    def removed_share(self) -> float:
        """Share of the group's channels gone halfway through the step."""
        return 1 - (self.before + self.after) / 2 / self.group.size

    @property
    def price(self) -> float:
        """What is lost per share of the quantity saved, see the module."""
        return self.lost / max(self.saved, 1e-12)


def choose(groups: Sequence[Group], options: PruneOptions, importances: Mapping[Group, Array], scale: Scale) -> Choice:
    """Decide which channels of each group are kept.

    Args:
        groups: Those that may become smaller.
        options: Allocation, rounding, and the amount or target.
        importances: What each group loses with each of its channels, [size].
        scale: Weighs the model in what the target limits.

    """
    steps = [step for group in groups for step in _steps(group, importances[group], scale, options)]
    if options.allocation == "uniform":
        steps.sort(key=lambda step: (step.removed_share, step.price))
    else:
        steps.sort(key=lambda step: step.price)
    if options.target is None:
        taken = steps[: _enough(steps, options, sum(group.size for group in groups))]
        counts = {step.group: step.after for step in taken}
    else:
        counts = _reaching(steps, scale, next(iter(options.target.values())))
    return {group: best(importances[group], counts.get(group, group.size)) for group in groups}


def narrowest(groups: Sequence[Group], options: PruneOptions) -> Counts:
    """Return the fewest channels that may be kept of each group."""
    return {group: widths(group, options)[0] for group in groups}


class Scale:
    """Weighs a model at given widths, without touching its weights."""

    def __init__(self, model: ir.Model, groups: Sequence[Group], measure: Measure, whole: float | None = None) -> None:
        """Take a model and its groups, what to measure, and the amount that is the whole (None: this model's)."""
        self._model = model
        self._measure = measure
        self._taken = {group: _taken(group) for group in groups}
        touched = {member.value for group in groups for member in group.members}.union(*self._taken.values())
        self._shapes = {value: value.shape for value in touched}
        self._whole = measure(model) if whole is None else whole

    def ratio(self, counts: Mapping[Group, int]) -> float:
        """Return the quantity at these widths (groups not named are whole) as a share of the whole model's."""
        sizes = {value: list(shape or ()) for value, shape in self._shapes.items()}
        for group, count in counts.items():
            for member in group.members:
                removed = (group.size - count) * int(np.count_nonzero(member.channel == 0))
                sizes[member.value][member.axis] -= removed
        sizes |= {
            value: [0] * len(sizes[value]) for group in counts if counts[group] == 0 for value in self._taken[group]
        }
        for value, size in sizes.items():
            value.shape = ir.Shape(size)
        try:
            return self._measure(self._model) / self._whole if self._whole else 1.0
        finally:
            for value, shape in self._shapes.items():
                value.shape = shape


def weight_bytes(model: ir.Model) -> int:
    """Return the bytes of the weights in the main graph, by their shapes."""
    values = [(value, stored.dtype(value)) for value in model.graph.initializers.values()]
    return sum(math.ceil(_elements(value) * dtype.bitwidth / 8) for value, dtype in values if dtype is not None)


MEASURES: Mapping[str, Measure] = {"macs": macs.total, "params": parameters.count, "bytes": weight_bytes}
"""What a target limits and a model's shapes tell; its latency is measured, see `latency`."""


def _elements(value: ir.Value) -> int:
    return math.prod(size or 0 for size in graph.shape(value) or ())


def _taken(group: Group) -> set[ir.Value]:
    """Return what goes with a group that loses all its channels: results and weights of the nodes that go."""
    nodes = branches.gone(group)
    weights = {value for node in nodes for value in node.inputs if value is not None and value.is_initializer()}
    return {value for node in nodes for value in node.outputs} | {
        value for value in weights if all(reader in nodes for reader in graph.consumers(value))
    }


def _steps(group: Group, scores: Array, scale: Scale, options: PruneOptions) -> list[Step]:
    """Return the steps of a group; if to lose all is cheaper than what comes before it, these are one step."""
    ascending = np.sort(scores)
    allowed = widths(group, options)
    knots = [count for count in allowed if count in (allowed[0], min(filter(None, allowed)), group.size)]
    left = np.interp(allowed, knots, [scale.ratio({group: count}) for count in knots])
    steps: list[Step] = []
    for (after, less), (before, more) in reversed(list(itertools.pairwise(zip(allowed, left, strict=True)))):
        lost = float(ascending[group.size - before : group.size - after].sum())
        step = Step(group=group, before=before, after=after, lost=lost, saved=float(more - less))
        while after == 0 and steps and step.price < steps[-1].price:
            last = steps.pop()
            step = replace(step, before=last.before, lost=last.lost + step.lost, saved=last.saved + step.saved)
        steps.append(step)
    return steps


def _enough(steps: Sequence[Step], options: PruneOptions, channels: int) -> int:
    """Return how many steps an amount takes: to the nearest width of each group, or of the model."""
    amount = options.amount or 0.0
    if options.allocation == "uniform":
        return bisect.bisect_right(steps, amount, key=lambda step: step.removed_share)
    removed = np.cumsum([0, *(step.before - step.after for step in steps)])
    return int(np.argmin(np.abs(removed - amount * channels)))


def _reaching(steps: Sequence[Step], scale: Scale, share: float) -> Counts:
    """Return counts that meet a target: the first steps in order, as far as it asks.

    The step that crosses the target may overshoot by far. Then its group is passed over and the following steps are
    tried, until one ends within one percent; of all ends, the one that loses least is taken. Whatever an end overshoots
    is given back first, the last steps first.
    """

    def counts_after(taken: int) -> Counts:
        return {step.group: step.after for step in steps[:taken]}

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
    if not ends:  # the caller has seen to it that this is a matter of rounding
        return counts
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


def best(scores: Array, count: int) -> Mask:
    """Return a mask that keeps so many of the highest scores; ties by position."""
    keep = np.zeros(len(scores), np.bool_)
    keep[np.argsort(-scores, kind="stable")[:count]] = True
    return keep
