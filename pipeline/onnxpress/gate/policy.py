"""The policy: which numbers a release must keep, how seriously, and what is waived until when.

::

    schema: onnxpress.policy/1
    rules:                                   # level (off | warn | error), then bounds; every bound carries its unit
      size.total_bytes: [error, {max: 25 MiB, max_ratio: 0.35}]
      accuracy.top1:    [error, {max_drop: 0.5pp}]
      latency.p50:      [error, {max: 8 ms, max_regression: 5%}]
    waivers:
      - {rule: latency.p50, reason: "…", owner: platform, expires: 2027-01-31, max: 9 ms}
    settings: {missing: error, inconclusive: warn, unfit_host: warn}

A policy is read with the line of each rule, because that is what somebody whose release was stopped looks for. What is
not understood is refused: a rule that silently does nothing is worse than none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NoReturn

import yaml

from onnxpress.errors import UsageError, did_you_mean
from onnxpress.gate.check import LEVELS, Level
from onnxpress.gate.rules import BOUNDS, RULES
from onnxpress.units import UnitError

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
        return f"{self.name} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A number that must be kept."""

    name: str
    level: Level
    limits: tuple[Limit, ...]
    """All must hold."""
    instance: str | None
    """The instance type that a cost rule is judged on; None for the cheapest."""
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A violation that somebody answers for until a day."""

    rule: str
    reason: str
    owner: str
    expires: date
    """The last day on which it holds."""
    limits: tuple[Limit, ...]
    """Looser bounds that must still hold; empty when any value is accepted."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a release must keep."""

    path: str
    sha256: str
    rules: tuple[Rule, ...]
    """In the order in which they are judged."""
    waivers: Mapping[str, Waiver]
    """By rule."""
    settings: Settings

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read and check a policy file.

        Raises:
            UsageError: there is no such file, it is not YAML, or something in it is unknown, missing or without unit.

        """
        try:
            content = path.read_bytes()
            root = yaml.compose(content, Loader=yaml.SafeLoader)
        except FileNotFoundError as error:
            raise UsageError(f"policy {path}: no such file. Name one with --policy.") from error
        except OSError as error:
            raise UsageError(f"policy {path}: cannot be read ({error.strerror}).") from error
        except yaml.YAMLError as error:
            raise UsageError(f"policy {path}: not YAML ({' '.join(str(error).split())}).") from error
        return _Reader(path).policy(root, hashlib.sha256(content).hexdigest())


class _Reader:
    """Reads YAML nodes instead of values: they know their lines, and ``off`` is still a word there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def policy(self, root: yaml.Node | None, sha256: str) -> Policy:
        if root is None:
            raise UsageError(f"policy {self.path}: is empty. Write `schema: {SCHEMA}` and `rules:`.")
        parts = self.mapping(
            root, "policy", known=("schema", "rules", "waivers", "settings"), needed=("schema", "rules")
        )
        schema = self.text(parts["schema"], "schema")
        if schema != SCHEMA:
            self.refuse(parts["schema"], f"schema {schema!r}: this version of onnxpress reads {SCHEMA!r}.")
        named = self.mapping(parts["rules"], "rules", known=RULES)
        if not named:
            self.refuse(parts["rules"], "rules: there is none. A gate without rules passes everything.")
        rules = {name: self.rule(name, node) for name, node in named.items()}
        return Policy(
            path=str(self.path),
            sha256=sha256,
            rules=tuple(rules[name] for name in RULES if name in rules),
            waivers=self.waivers(parts["waivers"], rules) if "waivers" in parts else {},
            settings=self.settings(parts["settings"]) if "settings" in parts else Settings(),
        )

    def rule(self, name: str, node: yaml.Node) -> Rule:
        where = f"rule {name!r}"
        kind = RULES[name]
        example = f"Write for example `{name}: [error, {{{kind.bounds[0]}: …}}]`."
        if isinstance(node, yaml.ScalarNode) and node.value == "off":
            return Rule(name=name, level="off", limits=(), instance=None, line=self.line(node))
        if not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
            self.refuse(node, f"{where}: is not a level and its bounds. {example}")
        level, bounds = node.value
        options = ("instance",) if kind.priced else ()
        given = self.mapping(bounds, where, known=(*kind.bounds, *options))
        instance = self.text(given.pop("instance"), f"{where}, instance") if "instance" in given else None
        if not given:
            self.refuse(bounds, f"{where}: has no bound. {example}")
        return Rule(
            name=name,
            level=self.level(level, where),
            limits=self.limits(name, given, where),
            instance=instance,
            line=self.line(node),
        )

    def limits(self, rule: str, given: Mapping[str, yaml.Node], where: str) -> tuple[Limit, ...]:
        limits = []
        for name, node in given.items():
            text = self.text(node, f"{where}, {name}")
            try:
                limits.append(Limit(name=name, value=RULES[rule].parse(name, text), text=text))
            except UnitError as error:
                self.refuse(node, f"{where}, {name} {error}")
        return tuple(limits)

    def waivers(self, node: yaml.Node, rules: Mapping[str, Rule]) -> dict[str, Waiver]:
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(node, "waivers: is not a list.")
        waivers: dict[str, Waiver] = {}
        for item in node.value:
            waiver = self.waiver(item, rules)
            if waiver.rule in waivers:
                self.refuse(item, f"waiver of {waiver.rule!r}: there are two. Keep one.")
            waivers[waiver.rule] = waiver
        return waivers

    def waiver(self, node: yaml.Node, rules: Mapping[str, Rule]) -> Waiver:
        needed = ("rule", "reason", "owner", "expires")
        given = self.mapping(node, "waiver", known=(*needed, *BOUNDS), needed=needed)
        rule, reason, owner, expires = (self.text(given.pop(name), f"waiver, {name}") for name in needed)
        where = f"waiver of {rule!r}"
        if rule not in rules:
            self.refuse(node, f"{where}: this policy has no such rule.{did_you_mean(rule, rules)}")
        try:
            day = date.fromisoformat(expires)
        except ValueError:
            self.refuse(node, f"{where}, expires {expires!r}: is no date. Write for example 2027-01-31.")
        limits = self.limits(rule, given, where)
        strict = {limit.name: limit for limit in rules[rule].limits}
        for limit in limits:
            if limit.name not in strict:
                self.refuse(node, f"{where}: the rule has no bound {limit.name!r} to loosen.")
            room = limit.value - strict[limit.name].value
            if (room if BOUNDS[limit.name].upper else -room) <= 0:
                self.refuse(node, f"{where}: {limit} is not looser than the rule's {strict[limit.name]}.")
        return Waiver(rule=rule, reason=reason, owner=owner, expires=day, limits=limits, line=self.line(node))

    def settings(self, node: yaml.Node) -> Settings:
        given = self.mapping(node, "settings", known=Settings.__dataclass_fields__)
        return Settings(**{name: self.level(value, f"settings, {name}") for name, value in given.items()})

    def mapping(
        self, node: yaml.Node, where: str, *, known: Collection[str], needed: Collection[str] = ()
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, f"{where}: is not a mapping (`name: value`).")
        items: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self.text(key, where)
            if name not in known:
                self.refuse(key, f"{where}: unknown name {name!r}.{did_you_mean(name, known)}")
            if name in items:
                self.refuse(key, f"{where}: {name!r} is there twice. Keep one.")
            items[name] = value
        for name in needed:
            if name not in items:
                self.refuse(node, f"{where}: {name!r} is missing.")
        return items

    def level(self, node: yaml.Node, where: str) -> Level:
        text = self.text(node, where)
        level = next((level for level in LEVELS if level == text), None)
        if level is None:
            self.refuse(node, f"{where}: {text!r} is no level.{did_you_mean(text, LEVELS)}")
        return level

    def text(self, node: yaml.Node, where: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self.refuse(node, f"{where}: has no value.")
        return str(node.value).strip()

    def refuse(self, node: yaml.Node, problem: str) -> NoReturn:
        raise UsageError(f"policy {self.path}:{self.line(node)}: {problem}")

    def line(self, node: yaml.Node) -> int:
        return int(node.start_mark.line) + 1
