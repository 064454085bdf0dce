"""The signals that end a command, all like Ctrl-C: it is left through its ``finally`` blocks, so nothing stays."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def interrupting() -> Iterator[list[int]]:
    """Raise `KeyboardInterrupt` in the main thread when a signal asks to end; what tidies up is not interrupted again.

    A signal that is ignored already, as ``nohup`` has it, stays so.

    Yields:
        The signal that arrived, once it has: a library may make any other error of the interrupt.
    """
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in ENDING}

    def interrupt(number: int, _: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        arrived.append(number)
        raise KeyboardInterrupt

    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, interrupt)
    try:
        yield arrived
    finally:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)
