"""The search: start from what is fastest as a whole, improve it group by group, then pay back what accuracy needs.

1. *Starts*: everything static; the same with MatMul, Gemm and LSTM dynamic; on a GPU all layers float16. The fastest is
   the current choice.
2. *Sweeps*: each group of equal layers tries its other choices against the current model; a change stays when the whole
   95 % interval of the paired ratio is below 1. Sweeps repeat until one changes nothing. Only whole models are timed: a
   layer's own time says nothing about the conversions around it, which decide (a float first convolution makes one
   network twice as slow and another a third faster).
3. *Repair*: where the bound is broken, layers go to their more accurate choice, those first that lose most for the time
   they save; the least number that keeps the bound is found by bisection.
4. *Confirmation* of the fastest that keeps the bound: time by the benchmark itself, loss on all samples, or where loss
   had a part in the choice on those that the search never saw. What is not confirmed gives way to the next; after the
   last, the answer is float.

Every measurement goes through the journal, so a search that was stopped repeats its path up to there in no time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxpress import artifact
from onnxpress.bench.statistics import Interval
from onnxpress.errors import ModelError
from onnxpress.quantization.auto.candidates import Assignment, Candidates, Choice
from onnxpress.quantization.auto.journal import Journal
from onnxpress.quantization.auto.judge import HELD_OUT, SEARCH, Bound, Judge, Quality
from onnxpress.quantization.auto.race import Race, Runner

Errors = Mapping[str, Mapping[Choice, float]]
"""Node name to choice to the error that it alone adds; float adds none."""
FINALISTS = 3
"""How many are offered for confirmation."""
REPAIR_SHARE = 0.6
"""Of the time, after which the sweeps leave the rest to repair."""


@dataclass(slots=True, kw_only=True)
class Search:
    """One search; `run` does it."""

    candidates: Candidates
    reference: Path
    """The float model's file."""
    race: Race
    judge: Judge
    bound: Bound
    errors: Callable[[], Errors]
    """Ranks the layers; called only when the bound is broken."""
    journal: Journal
    clock: Callable[[], float]
    deadline: float
    folder: Path
    """For the candidates' files."""
    advance: Callable[[int], object]
    tried: list[Assignment] = field(default_factory=list)
    """Whole models that were timed against float and judged, the fastest first."""
    repaired: set[str] = field(default_factory=set)
    """Keys of the choices in which loss on the samples of `SEARCH` had a part."""
    _runners: dict[str, Runner] = field(default_factory=dict)
    _cost: dict[str, float] = field(default_factory=dict)
    """Share of the model's time that a group in float costs more than as it was, by name."""

    def run(self) -> list[Assignment]:
        """Return the best choices that keep the bound, the fastest first; empty when there is none."""
        start = self.clock()
        starts = self._starts()
        if not starts:
            return []
        timed: list[Assignment] = []
        for each in starts:
            if timed and self.clock() > self.deadline:
                break
            self.ratio({}, each)
            timed.append(each)
        current = min(timed, key=lambda each: self.ratio({}, each).value)
        current = self._sweeps(current, start + REPAIR_SHARE * (self.deadline - start))
        swept = current
        if not self.quality(current).keeps(self.bound):
            current = self._repaired(current)
            self.repaired.add(_key(current))
        weighted = {name for group in self.candidates.groups if group.weighted for name in group.nodes}
        for each in _unlike([current, swept, *timed]):
            if self.tried and self.clock() > self.deadline:
                break
            if any(choice != "float" and name in weighted for name, choice in each.items()):
                self.ratio({}, each), self.quality(each)
                self.tried.append(each)
        self.tried.sort(key=lambda each: self.ratio({}, each).value)
        return [each for each in self.tried if self.quality(each).keeps(self.bound)][:FINALISTS]

    def ratio(self, reference: Assignment, candidate: Assignment) -> Interval:
        """Return the candidate's time as a multiple of the reference's; ``{}`` is the float model."""
        key = f"ratio {_key(reference)} {_key(candidate)}"
        known = self.journal.get(key, Interval)
        if known is None:
            one = self._runner(reference)
            two = self._runner(candidate, keep=_key(reference))
            known = self.race.ratio(one, two)
            self.journal.put(key, known)
        return known

    def final_quality(self, candidate: Assignment) -> Quality:
        """Return what a candidate loses: on all samples, or on those that had no part in choosing it."""
        return self.quality(candidate, HELD_OUT if _key(candidate) in self.repaired else None)

    def quality(self, candidate: Assignment, half: int | None = SEARCH) -> Quality:
        """Return what a candidate loses on one half of the samples, or on all (None)."""
        key = f"quality {_key(candidate)} {half}"
        known = self.journal.get(key, Quality)
        if known is None:
            known = self.judge.quality(self.path(candidate), half)
            self.journal.put(key, known)
        return known

    def path(self, candidate: Assignment) -> Path:
        """Return the candidate's file; it is written when it is first asked for."""
        if _key(candidate) == _key({}):
            return self.reference
        path = self.folder / f"{_key(candidate)}.onnx"
        if not path.exists():
            artifact.save(self.candidates.build(candidate).model, path)
        return path

    def _starts(self) -> list[Assignment]:
        groups = self.candidates.groups
        wanted: tuple[Choice, ...] = ("static", "dynamic", "fp16")
        starts = [
            {name: each if each in group.choices else group.choices[0] for group in groups for name in group.nodes}
            for each in wanted
        ]
        return [each for each in _unlike(starts) if each]

    def _sweeps(self, current: Assignment, until: float) -> Assignment:
        changed = True
        while changed:
            changed = False
            for group in self.candidates.groups:
                for choice in group.choices:
                    if self.clock() > until:
                        return current
                    if choice == current[group.nodes[0]]:
                        continue
                    other = {**current, **dict.fromkeys(group.nodes, choice)}
                    try:
                        ratio = self.ratio(current, other)
                    except ModelError:  # a mix that onnxruntime cannot run is no candidate
                        continue
                    if choice == "float":
                        self._cost[group.name] = ratio.value - 1
                    if ratio.high < 1:
                        current, changed = other, True
                    self.advance(1)
        return current

    def _repaired(self, broken: Assignment) -> Assignment:
        """Move as few layers as needed to a more accurate choice; everything float keeps any bound."""
        steps = self._steps(broken)
        low, high = 0, len(steps)  # `low` steps are too few; `high` are enough

        def after(count: int) -> Assignment:
            return {**broken, **dict(steps[:count])}

        trial = 1
        while trial < high and self.clock() < self.deadline:
            if self.quality(after(trial)).keeps(self.bound):
                high = trial
                break
            low, trial = trial, 2 * trial
            self.advance(1)
        while high - low > 1 and self.clock() < self.deadline:
            middle = (low + high) // 2
            low, high = (low, middle) if self.quality(after(middle)).keeps(self.bound) else (middle, high)
            self.advance(1)
        current = after(high)
        for name, _ in reversed(steps[:high]):  # what came last may not be needed any more
            if self.clock() > self.deadline:
                break
            other = {**current, name: broken[name]}
            if other != current and self.quality(other).keeps(self.bound):
                current = other
            self.advance(1)
        return current

    def _steps(self, broken: Assignment) -> list[tuple[str, Choice]]:
        """Return (node, more accurate choice), those first that lose most for the time they save."""
        errors = self.errors()
        steps: list[tuple[float, str, Choice]] = []
        for group in self.candidates.groups:
            if not group.weighted:
                continue
            cost = max(self._cost.get(group.name, 0.0), 1e-3) / len(group.nodes)
            for name in group.nodes:
                given = broken[name]
                if given == "float" or name not in errors:
                    continue
                lost = errors[name].get(given, math.inf)
                for choice in group.choices[group.choices.index(given) + 1 :]:
                    left = 0.0 if choice == "float" else errors[name].get(choice, math.inf)
                    if left < lost / 2 or choice == "float":
                        steps.append(((lost - left) / cost, name, choice))
                        lost = left
        steps.sort(key=lambda step: -step[0])
        return [(name, choice) for _, name, choice in steps]

    def _runner(self, candidate: Assignment, keep: str = "") -> Runner:
        """Return a warm process; besides float and what is asked for, only ``keep`` goes on running."""
        key = _key(candidate)
        if key not in self._runners:
            for old in self._runners.keys() - {_key({}), keep}:
                self.race.stop(self._runners.pop(old))
            self._runners[key] = self.race.start(self.path(candidate))
        return self._runners[key]


def _key(assignment: Assignment) -> str:
    """Return a name for a choice: equal choices, equal names; all float is ``{}``."""
    chosen = {name: choice for name, choice in assignment.items() if choice != "float"}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def _unlike(assignments: Iterable[Assignment]) -> list[Assignment]:
    """Return each choice once."""
    return list({_key(each): each for each in assignments}.values())
