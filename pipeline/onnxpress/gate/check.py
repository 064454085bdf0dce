"""What the gate found for one rule and one variant, and the exit code that follows from all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Level = Literal["off", "warn", "error"]
Verdict = Literal["pass", "fail", "warn", "inconclusive", "missing", "waived", "waiver-expired", "skipped"]
Outcome = Literal["pass", "fail", "inconclusive"]

LEVELS: tuple[Level, ...] = get_args(Level)
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule, judged for one variant."""

    rule: str
    variant: str
    level: Level
    """What a verdict other than ``pass`` weighs: ``error`` stops the release, ``warn`` and ``off`` do not."""
    verdict: Verdict
    measured: str
    """What was measured, with unit and interval; empty when nothing was."""
    limit: str
    """The bounds of the rule, with units."""
    reason: str = ""
    """Why the verdict is not a plain ``pass``, and by how much."""
    advice: str = ""
    """What to do about it: how to mend the model, or how to get the evidence that is missing."""
    note: str = ""
    """What the evidence can and cannot show, whatever the verdict: "500 samples resolve 0.83 pp"."""
    line: int | None = None
    """Line of the rule in the policy file."""

    @property
    def outcome(self) -> Outcome:
        """What this check alone means for the release."""
        if self.level != "error" or self.verdict in ("pass", "warn", "waived", "skipped"):
            return "pass"
        return "inconclusive" if self.verdict in ("inconclusive", "missing") else "fail"

    @property
    def is_warning(self) -> bool:
        """Whether it is worth a warning and no more."""
        plain = self.verdict in ("pass", "waived", "skipped")
        return not plain and self.outcome == "pass" and self.level != "off"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Check:
        """Read what `to_json` wrote."""
        return cls(**{field.name: value[field.name] for field in fields(cls) if field.name in value})


def outcome(checks: Iterable[Check]) -> Outcome:
    """Return what all checks together mean: a failure outweighs missing evidence, which outweighs a pass."""
    outcomes = {check.outcome for check in checks}
    return "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"


def exit_code(checks: Iterable[Check]) -> int:
    """Return 0 for passed (warnings allowed), 1 for failed, 4 for evidence that is missing or cannot decide."""
    return EXIT_CODES[outcome(checks)]
