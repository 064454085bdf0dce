"""The signals that end a command, all like Ctrl-C: it is left through its ``finally`` blocks, so nothing stays."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """One of `ENDING` arrived."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        """As a shell reports a process that a signal ended."""


@contextmanager
def interrupting() -> Iterator[None]:
    """Raise `Interrupted` in the main thread when a signal asks to end; what tidies up then is not interrupted again.

    A signal that is ignored already, as ``nohup`` has it, stays so.
    """
    before = {number: signal.getsignal(number) for number in ENDING}

    def interrupt(number: int, _: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)
