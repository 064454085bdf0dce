"""Native code that never ends, takes all memory or crashes: the command runs in a child, and its parent watches.

Python handles a signal when native code returns, so a Loop of 2⁶² trips in onnxruntime cannot be interrupted, and a
crash takes everything with it. The command line therefore divides itself before anything is imported: the child does
the work, and says before each native call what it calls and how long that may take. The parent ends a child that is
overdue or takes the machine's last memory, or that was interrupted and does not react, says so in one line, and removes
its scratch folders. It does nothing else: a command takes no measurable time more.

Time is that which the child computed, so that a busy machine ends little; the clock tells of one that waits for ever.
"""

from __future__ import annotations

import math
import mmap
import os
import select
import shlex
import signal
import struct
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from onnxpress import signals
from onnxpress.printing import one_line
from onnxpress.scratch import remove_abandoned

VARIABLE = "ONNXPRESS_RUN_SECONDS"
BASE_S, BYTES_PER_S = 5.0, 2.5e5
"""What a native call may take: so long, and a second for so many bytes of the model and its inputs."""
BASE_BYTES, GROWTH = 1.4e9, 400
"""The memory that a run may add: so much, and so many times the bytes of the model and its inputs."""
IDLE = 1.5
"""A call that waits instead of computing, or that others keep from computing, may take so many times longer."""
REACTION_S, TIDYING_S = 0.8, 10.0
"""How long an interrupted child may stay in a native call, and how long it may take to tidy up."""
TICK_S = 0.1
SHARE = 0.9
"""Of the memory that is free at the start."""
SLOTS, SLOT_BYTES, HEAD = 64, 512, struct.Struct("ddd")
INTERRUPTED = "interrupted; finished steps are kept"
CRASHES = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"})
PR_SET_PDEATHSIG = 1


class Board:
    """What native calls the child is in, in memory that both processes see; a line for each thread."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOTS * SLOT_BYTES)
        self._free = deque(range(SLOTS))

    def enter(self, what: str, seconds: float, most_bytes: float) -> int | None:
        """Write down a call; return its line, None when there are more threads than lines."""
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        text = what.encode(errors="replace")[: SLOT_BYTES - HEAD.size - 1] + b"\0"
        start = slot * SLOT_BYTES + HEAD.size
        self._memory[start : start + len(text)] = text
        HEAD.pack_into(self._memory, slot * SLOT_BYTES, time.monotonic(), seconds, most_bytes)
        return slot

    def leave(self, slot: int | None) -> None:
        """Take a call off the board."""
        if slot is not None:
            HEAD.pack_into(self._memory, slot * SLOT_BYTES, 0.0, 0.0, 0.0)
            self._free.append(slot)

    def calls(self) -> list[tuple[float, float, float, str]]:
        """Return when each call began and what it may take, in seconds and bytes, and what it is; the oldest first."""
        found = []
        for slot in range(SLOTS):
            began, seconds, most_bytes = HEAD.unpack_from(self._memory, slot * SLOT_BYTES)
            if began:
                text = self._memory[slot * SLOT_BYTES + HEAD.size : (slot + 1) * SLOT_BYTES].partition(b"\0")[0]
                found.append((began, seconds, most_bytes, text.decode(errors="replace")))
        return sorted(found)


_board: Board | None = None
"""Of the child that does the work; None in every other process."""


@contextmanager
def native(what: str, nbytes: float, most_bytes: float = math.inf) -> Iterator[None]:
    """Say that the block is a native call, which cannot be interrupted, and on how many bytes it works.

    Args:
        what: What it does, for messages.
        nbytes: The size of what it works on.
        most_bytes: The memory that it may add.
    """
    board = _board
    slot = None if board is None else board.enter(what, allowed_s(nbytes), most_bytes)
    try:
        yield
    finally:
        if board is not None:
            board.leave(slot)


def own_bytes() -> int:
    """Return the memory that this process has for itself; 0 where nobody watches it."""
    return 0 if _board is None else _anonymous_bytes(os.getpid())


def allowed_s(nbytes: float) -> float:
    """Return how long a native call on so many bytes may take."""
    try:
        base = float(os.environ.get(VARIABLE, BASE_S))
    except ValueError:
        base = BASE_S
    return base + nbytes / BYTES_PER_S


def allowed_bytes(nbytes: float) -> float:
    """Return the memory that a run on so many bytes may add; one that was given time is trusted with it."""
    return math.inf if VARIABLE in os.environ else BASE_BYTES + GROWTH * nbytes


def divide(arguments: Sequence[str]) -> None:
    """Go on in a child process, and end this one as the child does.

    What native code says on standard error goes to memory: only the last line of a crash is shown. With ``-v`` all is.
    Nothing is divided where there is no ``fork``, and with ``ONNXPRESS_RUN_SECONDS=0``.
    """
    global _board
    if not hasattr(os, "fork") or os.environ.get(VARIABLE) == "0":
        return
    board, parent = Board(), os.getpid()
    readable, writable = os.pipe()
    verbose = any(argument in ("-v", "--verbose") for argument in arguments)
    shown = verbose or sys.stderr is None or not hasattr(os, "memfd_create")
    said = None if shown else os.memfd_create("said")
    for stream in filter(None, (sys.stdout, sys.stderr)):  # one that is closed is None
        stream.flush()
    child = os.fork()
    if child:
        os.close(writable)
        sys.exit(Watch(child, board, readable, said, shlex.join(["compress", *arguments])).code())
    os.close(readable)
    _board = board
    if said is not None:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
        os.dup2(said, 2)
    die_with(parent)
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def die_with(parent: int) -> None:
    """Let the system end this process when its parent is killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


class Limit:
    """How long a process may take, and the memory that it may add, from now on."""

    def __init__(self, process: int, seconds: float, most_bytes: float = math.inf, idle: float = IDLE) -> None:
        """Begin now; a process that does not compute may take ``idle`` times longer."""
        self._process, self._seconds, self._most_bytes, self._idle = process, seconds, most_bytes, idle
        self._held_bytes, self._greedy = _anonymous_bytes(process), False
        self._began, self._computed_s = time.monotonic(), _computed_s(process)

    def passed(self) -> bool:
        """Tell whether the process is overdue, or takes too much."""
        self._greedy = _anonymous_bytes(self._process) - self._held_bytes > self._most_bytes
        elapsed = time.monotonic() - self._began
        computed = _computed_s(self._process) - self._computed_s
        overdue = min(elapsed, computed) > self._seconds or elapsed > self._idle * self._seconds
        return self._greedy or overdue

    def __str__(self) -> str:
        """Say so, ready to follow what it does."""
        if self._greedy:
            return (
                f"takes more than {self._most_bytes / 1e9:.1f} GB, for a model and inputs of this size. Look for a "
                f"tensor that grows without end; where the model needs it, let it: {VARIABLE}=600"
            )
        elapsed = time.monotonic() - self._began
        return (
            f"does not end (stopped after {elapsed:.0f} s). Look for a Loop that goes on for ever; where it takes "
            f"long, allow more: {VARIABLE}=600"
        )


class Watch:
    """The parent: waits for the child."""

    def __init__(self, child: int, board: Board, ends: int, said: int | None, command: str) -> None:
        """Watch a child.

        Args:
            child: Its process.
            board: Where it writes down its native calls.
            ends: A pipe that ends when the child does.
            said: A file with what its native code said; None where that was shown.
            command: What the user wrote, for messages.
        """
        self._child, self._board, self._ends, self._said, self._command = child, board, ends, said, command
        self._limits: dict[float, Limit] = {}
        self._memory_bytes = SHARE * _free_bytes()
        self._signals: list[tuple[float, int]] = []

    def code(self) -> int:
        """Wait, and return the exit code."""
        for number in signals.ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._forward)
        waiting = [self._ends]
        while True:
            if select.select(waiting, [], [], TICK_S if waiting else TICK_S / 100)[0]:
                waiting = []
            done, status = os.waitpid(self._child, os.WNOHANG)
            if done:
                return self._ended(os.waitstatus_to_exitcode(status))
            problem = self._problem()
            if problem is not None:
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
                remove_abandoned(Path(tempfile.gettempdir()))
                return self._say(*problem)

    def _forward(self, number: int, _: FrameType | None) -> None:
        self._signals.append((time.monotonic(), number))
        with suppress(ProcessLookupError):
            os.kill(self._child, number)

    def _problem(self) -> tuple[int, str] | None:
        """Return the exit code and what to say of a child that must end now; None for one that may go on."""
        now, calls = time.monotonic(), self._board.calls()
        if self._signals:
            since, number = self._signals[0]
            stuck = any(began < since for began, *_ in calls)
            if now - since > (REACTION_S if stuck else TIDYING_S):
                return 128 + number, INTERRUPTED
            return None
        if _anonymous_bytes(self._child) > self._memory_bytes:
            what = calls[0][-1] if calls else "it"
            return (
                3,
                f"error: {self._command}: {what} takes more than the {self._memory_bytes / 1e9:.1f} GB that are free",
            )
        self._limits = {
            began: self._limits.get(began) or Limit(self._child, seconds, most_bytes)
            for began, seconds, most_bytes, _ in calls
        }
        for began, *_, what in calls:
            if self._limits[began].passed():
                return 3, f"error: {self._command}: {what} {self._limits[began]}"
        return None

    def _ended(self, code: int) -> int:
        if code >= 0:
            return code
        remove_abandoned(Path(tempfile.gettempdir()))
        if self._signals:  # a library that is being imported may crash when it is interrupted
            return self._say(128 + self._signals[0][1], INTERRUPTED)
        name, calls = signal.Signals(-code).name, self._board.calls()
        if name in CRASHES:
            what = calls[0][-1] if calls else "a library"
            return self._say(3 if calls else 5, f"error: {self._command}: {what} crashed ({name}){self._last_words()}")
        if name == "SIGKILL":
            return self._say(3 if calls else 128 - code, f"error: {self._command}: was killed. Is there enough memory?")
        return 128 - code

    def _last_words(self) -> str:
        """Return the last line that native code said, ready to follow what happened."""
        if self._said is None:
            return ""
        length = os.lseek(self._said, 0, os.SEEK_END)
        lines = os.pread(self._said, 2000, max(length - 2000, 0)).decode(errors="replace").splitlines()
        return next((f": {line.strip()[-300:]}" for line in reversed(lines) if line.strip()), "")

    def _say(self, code: int, text: str) -> int:
        if sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K\x1b[?25h")  # a progress bar may stand there, without the cursor
        print(one_line(text), file=sys.stderr)
        return code


def _free_bytes() -> float:
    """Return the memory that is free; without limit where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * float(line.split()[1])
    return float("inf")


def _anonymous_bytes(process: int) -> int:
    """Return the memory that is a process's own; mapped files are not."""
    with suppress(OSError, ValueError):
        resident, shared = Path(f"/proc/{process}/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * mmap.PAGESIZE
    return 0


def _computed_s(process: int) -> float:
    """Return the processor time of a process; that of the clock where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return time.monotonic()
