"""What a search has taken of its budget, phase by phase; what may be left out is left out when too much is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
PREPARATION = 0.4
"""Share of the budget after which nothing is prepared any more that the search can do without."""


class OutOfTime(Exception):  # noqa: N818 - no error: it ends what can be left out
    """The share of the budget for something is gone."""


@dataclass(slots=True)
class Stopwatch:
    """Starts when it is made.

    Args:
        budget_s: About how long everything may take.
        clock: Seconds.
    """

    budget_s: float
    clock: Callable[[], float] = time.monotonic
    left_out: list[str] = field(default_factory=list)
    """What there was no time for."""
    _begin: float = field(init=False)
    _phases: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begin = self.clock()

    def at(self, share: float) -> float:
        """Return the time on the clock when this share of the budget is gone."""
        return self._begin + share * self.budget_s

    def left_s(self) -> float:
        """Return the seconds that are left; below 0 when more than the budget is gone."""
        return self.at(1) - self.clock()

    def end(self, phase: str) -> None:
        """Say that a phase ends now, and that the next one begins."""
        self._phases[phase] = round(self.clock() - self._begin - sum(self._phases.values()), 1)

    def spent(self) -> dict[str, float]:
        """Return the seconds of each phase, of all together, and those that were given."""
        total = round(sum(self._phases.values()), 1)
        return {**self._phases, "total": total, "budget": round(self.budget_s, 1)}

    def attempt(
        self, what: str, work: Callable[[Callable[[int], object]], T], otherwise: T, advance: Callable[[int], object]
    ) -> T:
        """Do something that can be left out, within the share of `PREPARATION`.

        Args:
            what: Its name, for `left_out`.
            work: Does it, given what to call after each batch of samples.
            otherwise: What to return where there is no time for it.
            advance: Called after each batch, too.
        """

        def checked(samples: int) -> None:
            if self.clock() > self.at(PREPARATION):
                raise OutOfTime
            advance(samples)

        try:
            checked(0)
            return work(checked)
        except OutOfTime:
            self.left_out.append(what)
            return otherwise
