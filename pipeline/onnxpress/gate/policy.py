"""The policy: which numbers a release must keep, how seriously, and what is waived until when.

::

    schema: onnxpress.policy/1
    preset: balanced                         # strict | balanced | edge; rules below replace those of the preset
    baseline: {model: float.onnx, metrics: compress-baseline.json}
    rules:                                   # level (off | warn | error), then bounds; every bound carries its unit
      size.total_bytes: [error, {max: 25 MiB, max_ratio: 0.35}]
      accuracy.top1:    [error, {max_drop: 0.5pp, min_samples: 2000}]
      latency.p50:      [error, {max: 8 ms, max_regression: 5%, inconclusive: error}]
      provenance.lineage_complete: error
    matrix:                                  # the first entry that matches a variant replaces rules for it
      - {when: {arch: arm64}, rules: {latency.p50: [error, {max: 15 ms}]}}
    waivers:
      - {rule: latency.p50, reason: "…", owner: platform, expires: 2027-01-31, max: 9 ms}
    settings: {missing: error, inconclusive: warn, unfit_host: warn}

A policy is read with the line of each rule, because that is what somebody whose release was stopped looks for. What is
not understood is refused: a rule that silently does nothing is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase

from onnxpress.gate.baseline import Baseline
from onnxpress.gate.check import Level
from onnxpress.gate.rules import BOUNDS, RULES, Need

SCHEMA = "onnxpress.policy/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One bound of a rule."""

    name: str
    """``max``, ``min``, ``max_ratio``…"""
    value: float
    """In the unit in which the rule is judged."""
    text: str
    """As the policy has it."""

    def __str__(self) -> str:
        return f"{self.name} {self.text}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a condition (``when``) can ask about: one variant, on what it was measured."""

    model: str
    """Name of the recipe, or of the baseline's file."""
    variant: str
    ep: str
    """Execution provider; empty when nothing was timed."""
    arch: str
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Shell patterns by field of a `Target`; all must match, and none is always true."""

    patterns: Mapping[str, str]

    def holds(self, target: Target) -> bool:
        """Tell whether a target matches."""
        return all(fnmatchcase(str(getattr(target, field)), pattern) for field, pattern in self.patterns.items())


ALWAYS = Condition(patterns={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A number that must be kept."""

    name: str
    level: Level
    limits: tuple[Limit, ...]
    """All must hold."""
    when: Condition = ALWAYS
    instance: str | None = None
    """The instance type that a cost rule is judged on; None for the cheapest."""
    patterns: tuple[str, ...] = ()
    """The names that a rule with a list looks for."""
    min_samples: int = 0
    """With fewer samples an accuracy does not pass."""
    inconclusive: Level | None = None
    """In place of the setting."""
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """An entry of the matrix: rules for some targets."""

    when: Condition
    rules: Mapping[str, Rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A violation that somebody answers for until a day."""

    rule: str
    when: Condition
    reason: str
    owner: str
    issue: str
    """Where it is worked on; may be empty."""
    expires: date
    """The last day on which it holds."""
    limits: tuple[Limit, ...]
    """Looser bounds that must still hold; empty only for a rule that has no bounds."""
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much it weighs when a rule cannot be decided; a rule's own level is never exceeded."""

    missing: Level = "error"
    """The number was not measured."""
    inconclusive: Level = "warn"
    """The limit lies inside the interval."""
    unfit_host: Level = "warn"
    """The benchmark found its host too noisy: ``off`` judges its timings all the same."""
    expired_waiver: Level = "error"
    """A waiver has expired and its rule is still violated."""
    max_waiver_days: int = 0
    """A waiver that expires later than this from today is not accepted; 0 for any day."""
    min_pairs: int = 0
    """With fewer pairs of blocks a change of latency or throughput does not pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a release must keep."""

    path: str
    sha256: str
    rules: Mapping[str, Rule]
    """By name."""
    matrix: tuple[Override, ...]
    waivers: tuple[Waiver, ...]
    settings: Settings
    baseline_model: str | None
    """Path of the model that all others are compared with."""
    baseline_metrics: str | None
    """Path of the stored baseline."""
    stored: Baseline | None
    """What that file holds; None while there is no such file."""

    def rules_for(self, target: Target) -> dict[str, Rule]:
        """Return the rules that hold for a target, by name, in the order in which they are judged."""
        override = next((entry.rules for entry in self.matrix if entry.when.holds(target)), {})
        found = {**self.rules, **override}
        return {
            name: found[name]
            for name in RULES
            if name in found and found[name].level != "off" and found[name].when.holds(target)
        }

    def every_rule(self) -> list[Rule]:
        """Return all rules that are not off, whatever they hold for."""
        rules = [*self.rules.values(), *(rule for entry in self.matrix for rule in entry.rules.values())]
        return [rule for rule in rules if rule.level != "off"]

    def needs(self) -> set[Need]:
        """Return what its rules rest on."""
        return {RULES[rule.name].needs for rule in self.every_rule()}

    def regressions(self) -> tuple[float, ...]:
        """Return the bounds on the change of latency, as regressions: a benchmark may end when it is certain of them.

        Empty when a rule judges timings in another way, too, which may need all that was planned.
        """
        timed = [rule for rule in self.every_rule() if rule.name.startswith(("latency.", "throughput", "cost."))]
        limits = [(rule.name, limit) for rule in timed for limit in rule.limits]
        if any(name != "latency.p50" or BOUNDS[limit.name].against != "baseline" for name, limit in limits):
            return ()
        return tuple(limit.value - 1 for _, limit in limits)

    def strict(self) -> Policy:
        """Return the same policy with every warning an error."""

        def raised(rules: Mapping[str, Rule]) -> dict[str, Rule]:
            return {
                name: replace(rule, level="error") if rule.level == "warn" else rule for name, rule in rules.items()
            }

        settings = {name: getattr(self.settings, name) for name in Settings.__dataclass_fields__}
        louder = {name: "error" for name, value in settings.items() if value == "warn"}
        return replace(
            self,
            rules=raised(self.rules),
            matrix=tuple(replace(entry, rules=raised(entry.rules)) for entry in self.matrix),
            settings=Settings(**(settings | louder)),
        )
