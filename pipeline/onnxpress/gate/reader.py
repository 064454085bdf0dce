"""Reads a policy file: YAML nodes instead of values, because they know their lines, and ``off`` is still a word."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import NoReturn

import yaml

from onnxpress.errors import UsageError, did_you_mean
from onnxpress.gate.baseline import Baseline
from onnxpress.gate.check import LEVELS, Level
from onnxpress.gate.policy import ALWAYS, SCHEMA, Condition, Limit, Override, Policy, Rule, Settings, Target, Waiver
from onnxpress.gate.rules import BOUNDS, RULES, Kind
from onnxpress.units import UnitError, parse
from onnxpress.validation import read_yaml

PRESETS = Path(__file__).parent / "presets"
HOLDS = Limit(name="must hold", value=1, text="")
CONDITIONS = tuple(Target.__dataclass_fields__)
RULE_OPTIONS = ("when", "inconclusive")


def read(path: Path) -> Policy:
    """Read and check a policy file.

    Raises:
        UsageError: there is no such file, it is not YAML, or something in it is unknown, missing or without unit.
    """
    found = read_yaml(path, "policy", advice="Name one with --policy, or write a first one with `compress gate init`.")
    return Reader(path).policy(found.root, found.sha256)


def presets() -> list[str]:
    """Return the names of the presets: the files of their folder."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


class Reader:
    """Reads one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def policy(self, root: yaml.Node | None, sha256: str) -> Policy:
        """Read the whole file."""
        if root is None:
            raise UsageError(f"policy {self.path}: is empty. Write `schema: {SCHEMA}` and `rules:`.")
        known = ("schema", "preset", "baseline", "rules", "matrix", "waivers", "settings")
        parts = self.mapping(root, "policy", known=known, needed=("schema",))
        schema = self.text(parts["schema"], "schema")
        if schema != SCHEMA:
            self.refuse(parts["schema"], f"schema {schema!r}: this version of onnxpress reads {SCHEMA!r}.")
        preset = self.preset(parts["preset"]) if "preset" in parts else None
        if preset is None and "rules" not in parts:
            self.refuse(root, "policy: 'rules' is missing.")
        rules = {**preset.rules} if preset else {}
        if "rules" in parts:
            rules |= self.rules(parts["rules"])
        if not rules:
            self.refuse(parts["rules"], "rules: there is none. A gate without rules passes everything.")
        matrix = self.matrix(parts["matrix"]) if "matrix" in parts else ()
        all_rules = [rules, *(entry.rules for entry in matrix)]
        usual = preset.settings if preset else Settings()
        baseline = self.baseline(parts["baseline"]) if "baseline" in parts else {}
        metrics = baseline.get("metrics")
        return Policy(
            path=str(self.path),
            sha256=sha256,
            rules=rules,
            matrix=matrix,
            waivers=self.waivers(parts["waivers"], all_rules) if "waivers" in parts else (),
            settings=self.settings(parts["settings"], usual) if "settings" in parts else usual,
            baseline_model=baseline.get("model"),
            baseline_metrics=metrics,
            # The first release has none yet: its bounds lack evidence then, which the rules' checks say.
            stored=Baseline.load(Path(metrics)) if metrics and os.path.lexists(metrics) else None,
        )

    def preset(self, node: yaml.Node) -> Policy | None:
        """Read the policy that a name stands for; its rules are at the line of the name."""
        name = self.text(node, "preset")
        if name == "off":
            return None
        if name not in presets():
            self.refuse(node, f"preset {name!r}: there is none.{did_you_mean(name, [*presets(), 'off'])}")
        found = read(PRESETS / f"{name}.yaml")
        line = self.line(node)
        rules = {rule: dataclasses.replace(one, line=line) for rule, one in found.rules.items()}
        return dataclasses.replace(found, rules=rules)

    def baseline(self, node: yaml.Node) -> dict[str, str]:
        """Read the paths of the baseline; they start at the policy's folder."""
        given = self.mapping(node, "baseline", known=("model", "metrics"))
        return {name: str(self.path.parent / self.text(value, f"baseline, {name}")) for name, value in given.items()}

    def rules(self, node: yaml.Node) -> dict[str, Rule]:
        """Read rules by name."""
        named = self.mapping(node, "rules", known=RULES)
        return {name: self.rule(name, value) for name, value in named.items()}

    def rule(self, name: str, node: yaml.Node) -> Rule:
        """Read one rule: a level and its bounds, or a level alone where there are none."""
        where, kind, line = f"rule {name!r}", RULES[name], self.line(node)
        if isinstance(node, yaml.ScalarNode) and node.value == "off":
            return Rule(name=name, level="off", limits=(), line=line)
        if isinstance(node, yaml.ScalarNode) and not kind.bounds:
            return Rule(name=name, level=self.level(node, where), limits=(HOLDS,), line=line)
        example = f"Write for example `{name}: {example_of(kind)}`."
        if not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
            self.refuse(node, f"{where}: is not a level and its bounds. {example}")
        level, content = node.value
        options = (*kind.options, *RULE_OPTIONS)
        given = self.mapping(content, where, known=(*kind.bounds, *options))
        chosen = {option: given.pop(option) for option in options if option in given}
        if not given and kind.bounds:
            self.refuse(content, f"{where}: has no bound. {example}")
        patterns = self.names(given["any"], f"{where}, any") if kind.listed else ()
        return Rule(
            name=name,
            level=self.level(level, where),
            limits=(Limit(name="any", value=0, text=", ".join(patterns)),)
            if kind.listed
            else self.limits(name, given, where) or (HOLDS,),
            when=self.condition(chosen["when"], where) if "when" in chosen else ALWAYS,
            instance=self.text(chosen["instance"], f"{where}, instance") if "instance" in chosen else None,
            patterns=patterns,
            min_samples=self.count(chosen["min_samples"], f"{where}, min_samples") if "min_samples" in chosen else 0,
            inconclusive=self.level(chosen["inconclusive"], f"{where}, inconclusive")
            if "inconclusive" in chosen
            else None,
            line=line,
        )

    def limits(self, rule: str, given: Mapping[str, yaml.Node], where: str) -> tuple[Limit, ...]:
        """Read the bounds of a rule, in its unit."""
        limits = []
        for name, node in given.items():
            text = self.text(node, f"{where}, {name}")
            try:
                limits.append(Limit(name=name, value=RULES[rule].parse(name, text), text=text))
            except UnitError as error:
                self.refuse(node, f"{where}, {name} {error}")
        return tuple(limits)

    def matrix(self, node: yaml.Node) -> tuple[Override, ...]:
        """Read the rules for some targets."""
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(node, "matrix: is not a list.")
        entries = []
        for item in node.value:
            given = self.mapping(item, "matrix", known=("when", "rules"), needed=("when", "rules"))
            entries.append(Override(when=self.condition(given["when"], "matrix"), rules=self.rules(given["rules"])))
        return tuple(entries)

    def condition(self, node: yaml.Node, where: str) -> Condition:
        """Read a ``when``."""
        given = self.mapping(node, f"{where}, when", known=CONDITIONS)
        if not given:
            self.refuse(node, f"{where}, when: is empty. Write for example `when: {{ep: cuda}}`.")
        return Condition(patterns={name: self.text(value, f"{where}, when {name}") for name, value in given.items()})

    def waivers(self, node: yaml.Node, rules: list[Mapping[str, Rule]]) -> tuple[Waiver, ...]:
        """Read the waivers; two of one rule need different conditions."""
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(node, "waivers: is not a list.")
        waivers: list[Waiver] = []
        for item in node.value:
            waiver = self.waiver(item, rules)
            if any((other.rule, other.when) == (waiver.rule, waiver.when) for other in waivers):
                self.refuse(item, f"waiver of {waiver.rule!r}: there are two. Keep one.")
            waivers.append(waiver)
        return tuple(waivers)

    def waiver(self, node: yaml.Node, rules: list[Mapping[str, Rule]]) -> Waiver:
        """Read one waiver, which must loosen a rule that is there."""
        needed = ("rule", "reason", "owner", "expires")
        given = self.mapping(node, "waiver", known=(*needed, "when", "issue", *BOUNDS), needed=needed)
        rule, reason, owner, expires = (self.text(given.pop(name), f"waiver, {name}") for name in needed)
        where = f"waiver of {rule!r}"
        same = [group[rule] for group in rules if rule in group]
        if not same:
            self.refuse(node, f"{where}: this policy has no such rule.{did_you_mean(rule, set().union(*rules))}")
        try:
            day = date.fromisoformat(expires)
        except ValueError:
            self.refuse(node, f"{where}, expires {expires!r}: is no date. Write for example 2027-01-31.")
        when = self.condition(given.pop("when"), where) if "when" in given else ALWAYS
        issue = self.text(given.pop("issue"), f"{where}, issue") if "issue" in given else ""
        limits = self.limits(rule, given, where)
        bounded = [limit.name for limit in same[0].limits if limit.name in BOUNDS]
        if bounded and not limits:
            self.refuse(node, f"{where}: gives no looser bound, so anything would pass. Add for example {bounded[0]}.")
        for limit in limits:
            self.looser(limit, same, node, where)
        return Waiver(
            rule=rule,
            when=when,
            reason=reason,
            owner=owner,
            issue=issue,
            expires=day,
            limits=limits,
            line=self.line(node),
        )

    def looser(self, limit: Limit, rules: list[Rule], node: yaml.Node, where: str) -> None:
        """Refuse a waiver's bound that loosens nothing."""
        strict = [own for rule in rules for own in rule.limits if own.name == limit.name]
        if not strict:
            self.refuse(node, f"{where}: the rule has no bound {limit.name!r} to loosen.")
        upper = BOUNDS[limit.name].upper
        if all((limit.value - own.value if upper else own.value - limit.value) <= 0 for own in strict):
            self.refuse(node, f"{where}: {limit} is not looser than the rule's {strict[0]}.")

    def settings(self, node: yaml.Node, usual: Settings) -> Settings:
        """Read the settings; those that are not given stay as they are."""
        given = self.mapping(node, "settings", known=Settings.__dataclass_fields__)

        def level(name: str) -> Level:
            return self.level(given[name], f"settings, {name}") if name in given else getattr(usual, name)

        def count(name: str) -> int:
            return self.count(given[name], f"settings, {name}") if name in given else getattr(usual, name)

        return Settings(
            missing=level("missing"),
            inconclusive=level("inconclusive"),
            unfit_host=level("unfit_host"),
            expired_waiver=level("expired_waiver"),
            max_waiver_days=count("max_waiver_days"),
            min_pairs=count("min_pairs"),
        )

    def mapping(
        self, node: yaml.Node, where: str, *, known: Collection[str], needed: Collection[str] = ()
    ) -> dict[str, yaml.Node]:
        """Return the values of a mapping by their names, which must be known."""
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

    def names(self, node: yaml.Node, where: str) -> tuple[str, ...]:
        """Return a list of names."""
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.refuse(node, f"{where}: is no list of names. Write for example [If, Loop].")
        return tuple(self.text(item, where) for item in node.value)

    def level(self, node: yaml.Node, where: str) -> Level:
        """Return a level."""
        text = self.text(node, where)
        level = next((level for level in LEVELS if level == text), None)
        if level is None:
            self.refuse(node, f"{where}: {text!r} is no level.{did_you_mean(text, LEVELS)}")
        return level

    def count(self, node: yaml.Node, where: str) -> int:
        """Return a whole number."""
        try:
            return int(parse(self.text(node, where), "count"))
        except UnitError as error:
            self.refuse(node, f"{where} {error}")

    def text(self, node: yaml.Node, where: str) -> str:
        """Return the text of a scalar."""
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self.refuse(node, f"{where}: has no value.")
        return str(node.value).strip()

    def refuse(self, node: yaml.Node, problem: str) -> NoReturn:
        """End with the place and the problem."""
        raise UsageError(f"policy {self.path}, line {self.line(node)}: {problem}")

    def line(self, node: yaml.Node) -> int:
        """Return the line of a node."""
        return int(node.start_mark.line) + 1


def example_of(kind: Kind) -> str:
    """Return what a rule of this kind looks like in a policy."""
    if not kind.bounds:
        return "error"
    return f"[error, {{{kind.bounds[0]}: {'[If, Loop]' if kind.listed else '…'}}}]"
