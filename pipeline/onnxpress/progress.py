"""Progress on standard error: a bar on a terminal, elsewhere one line per finished task."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], object]


class Progress:
    """Shows tasks; ``quiet`` shows nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty() and not quiet

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Iterator[Advance]:
        """Show one task while the block runs; call what it gives with the amount done.

        Args:
            text: What is done, in a few words.
            total: Amount to do; None when it is not known.
        """
        start = time.monotonic()
        if self.terminal:
            with self._bar(text, total) as advance:
                yield advance
        else:
            yield lambda amount: None  # noqa: ARG005
        self.done(f"{text} ({time.monotonic() - start:.1f} s)")

    def done(self, text: str) -> None:
        """Say that something is finished (or was there already)."""
        if not self.quiet:
            print(f"  {text}", file=sys.stderr, flush=True)

    @contextmanager
    def _bar(self, text: str, total: int | None) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(text, total=total)
            yield lambda amount: bar.advance(task, amount)
