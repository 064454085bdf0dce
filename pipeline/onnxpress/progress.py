"""Progress on standard error: a bar on a terminal, elsewhere one line per finished task."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from onnxpress.printing import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Advance = Callable[[int], object]
Stage = Callable[[str, int | None], AbstractContextManager[Advance]]
"""`Progress.stage`, or `unshown`."""


@contextmanager
def unshown(text: str, total: int | None) -> Iterator[Advance]:  # noqa: ARG001 - a `Stage`
    """Show nothing while the block runs."""
    yield lambda amount: None  # noqa: ARG005


class Progress:
    """Shows tasks; ``quiet`` shows nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty() and not quiet
        self._live: Bar | None = None

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Iterator[Advance]:
        """Show one task while the block runs; call what it gives with the amount done.

        Args:
            text: What is done, in a few words.
            total: Amount to do; None when it is not known.
        """
        start = time.monotonic()
        with self._bar(text, total) if self.terminal else unshown(text, total) as advance:
            yield advance
        self.done(f"{text} ({time.monotonic() - start:.1f} s)")

    @contextmanager
    def stage(self, text: str, total: int | None) -> Iterator[Advance]:
        """Show a part of the task that runs, on a terminal: a second bar below it, gone when the block ends."""
        if self._live is None:
            yield lambda amount: None  # noqa: ARG005
            return
        bar, part = self._live, self._live.add_task(f"  {printable(text)}", total=total)
        yield lambda amount: bar.advance(part, amount)
        bar.remove_task(part)

    def done(self, text: str) -> None:
        """Say that something is finished (or was there already)."""
        if not self.quiet:
            print(f"  {printable(text)}", file=sys.stderr, flush=True)

    @contextmanager
    def _bar(self, text: str, total: int | None) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Bar(*columns, console=Console(file=sys.stderr), transient=True) as bar:
            task, self._live = bar.add_task(printable(text), total=total), bar
            yield lambda amount: bar.advance(task, amount)
        self._live = None
