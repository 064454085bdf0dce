"""Keep what a library prints, warns and logs off the terminal; it goes to the log, where ``-v`` shows it."""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

_log = logging.getLogger(__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """Capture standard output, standard error, warnings, and log handlers that write to standard error."""
    buffer, stderr = io.StringIO(), sys.stderr
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(buffer), redirect_stderr(buffer):
        warnings.simplefilter("always")
        _retarget(stderr, buffer)
        try:
            yield
        finally:
            _retarget(buffer, stderr)
            for line in (*buffer.getvalue().splitlines(), *(str(warning.message) for warning in caught)):
                _log.info("%s", line)


@contextmanager
def hushed(*, shown: bool) -> Iterator[None]:
    """Keep what libraries warn and log outside of `quiet` off the terminal; ``shown`` where ``-v`` asks for it.

    Warnings are only not printed: who turns them into errors still gets those.
    """
    handler, before = logging.NullHandler(), (warnings.showwarning, sys.unraisablehook, threading.excepthook)
    if not shown:
        logging.root.addHandler(handler)  # else records that nobody handles are printed
        warnings.showwarning = lambda *_: None
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
        warnings.showwarning, sys.unraisablehook, threading.excepthook = before


def _retarget(old: TextIO, new: TextIO) -> None:
    """Let stream handlers that write to one stream write to the other; torch has one for each of its parts."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)
