"""Runs one command in a forked process, watches it, and judges how it ended."""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import resource
import signal
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.mutation import MARK

TIME_LIMIT_S = 10.0
"""Of CPU time, so that a busy machine is no fault; a command that only waits gets `PATIENCE` times as long."""
PATIENCE = 12
MEMORY_LIMIT_BYTES = 2 * 2**30
ROOM_BYTES = 8 * 2**30
"""Address space that a command gets on top of what is mapped already: a wild allocation fails, and harms nobody."""
OUTPUT = "out"
"""What a command may write begins with this word, in its folder."""
STEERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; negative for a signal."""
    seconds: float
    """CPU time, of everything that it started."""
    peak_bytes: int
    out: str
    err: str
    killed: str = ""
    """Why it was stopped; empty when it ended by itself."""


def run(words: Sequence[str], home: Path, *, limit_s: float = TIME_LIMIT_S) -> Ended:
    """Run ``compress`` with these words in ``home/work``; temporary files go to ``home/tmp``."""
    sys.stdout.flush()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _command(words, home)
    killed, peak = "", 0
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        peak = max(peak, _resident(child))
        if not killed and (_spent_s(child) > limit_s or time.monotonic() - begun > PATIENCE * limit_s):
            killed = f"not finished after {limit_s:g} s"
        if not killed and peak > MEMORY_LIMIT_BYTES:
            killed = f"more than {MEMORY_LIMIT_BYTES >> 20} MiB"
        if killed:
            _kill(child)
        time.sleep(0.005)
    _kill(child)  # whatever it started and left running
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=max(peak, usage.ru_maxrss * 1024),
        out=(home / "stdout").read_bytes().decode(errors="replace"),
        err=(home / "stderr").read_bytes().decode(errors="replace"),
        killed=killed,
    )


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _spent_s(process: int) -> float:
    """Return the CPU time of a process and of those that it has waited for."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _command(words: Sequence[str], home: Path) -> None:
    """Be the command; never returns."""
    code = 99
    try:
        os.setsid()
        os.chdir(home / "work")
        for stream, name, mode in (
            (0, os.devnull, os.O_RDONLY),
            (1, "stdout", os.O_WRONLY),
            (2, "stderr", os.O_WRONLY),
        ):
            os.dup2(os.open(home / name if stream else name, mode | os.O_CREAT, 0o600), stream)
        tempfile.tempdir = None
        os.environ |= {"TMPDIR": str(home / "tmp"), "HOME": str(home / "home"), "COLUMNS": "100"}
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, used + ROOM_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from onnxpress import cli

        try:
            cli.main(list(words))
        except SystemExit as end:
            code = int(end.code or 0)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:  # the harness's own report: no exit code of a command
        sys.stderr.write(f"harness: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)


def state(folder: Path) -> dict[str, str]:
    """Return what each file of a folder holds, by its path; links by where they lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsdecode(os.fsencode(path.relative_to(folder)))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found


def faults(ended: Ended, words: Sequence[str], before: dict[str, str], home: Path) -> Iterator[str]:
    """Yield everything that is wrong with how a command ended."""
    shown = ended.out + ended.err
    if ended.killed:
        yield ended.killed
    elif ended.code not in (0, 1, 2, 3, 4):
        yield f"exit code {ended.code}: {_last(ended.err)}"
    elif "Traceback" in shown or "internal error" in shown:
        yield f"traceback at exit code {ended.code}: {_last(ended.err)}"
    if ended.peak_bytes > MEMORY_LIMIT_BYTES and not ended.killed:
        yield f"{ended.peak_bytes >> 20} MiB"
    yield from _texts(ended)
    after = state(home / "work")
    # The verdict goes into the run's report; a second run continues the first one.
    kept = {"gate": "run/report.", "run": "run/"}.get(words[0], "") if "run" in words[1:] else ""
    for name, content in before.items():
        if after.get(name) != content and not (kept and name.startswith(kept)):
            yield f"input {Path(name).name} was {'changed' if name in after else 'removed'}"
    new = sorted(after.keys() - before.keys())
    # Finished steps of `run` stay for the next run, by design.
    allowed = ended.code in (0, 1, 4) or (words[:1] == ["run"] and ended.code == 3)
    left = [name for name in new if not (allowed and name.startswith((OUTPUT, kept or OUTPUT)))]
    left += [f"{part}/{name}" for part in ("tmp", "home") for name in state(home / part)]
    if left and not ended.killed:
        yield f"left at exit code {ended.code}: {re.sub('[0-9]+', '#', left[0])}"


def _texts(ended: Ended) -> Iterator[str]:
    for name, text in (("stdout", ended.out), ("stderr", ended.err)):
        steering = [each for each in text if (unicodedata.category(each) == "Cc" and each != "\n") or each in STEERING]
        if steering:
            yield f"{name} has {steering[0]!r}"
        if re.search(f"^{MARK}", text, re.MULTILINE):
            yield f"{name} has a workflow command"
        long = max(map(len, text.splitlines()), default=0)
        if name == "stderr" and long > 3000:
            yield f"a line of {10 ** (len(str(long)) - 1)} characters or more on stderr"
    lines = [line for line in ended.err.splitlines() if line.strip()]
    noise = [line for line in lines if not re.match(r"[Ee]rror: |Usage: |Try |  ", line)]
    errors = sum(line.startswith(("error: ", "Error: ")) for line in lines)
    if errors != (ended.code in (2, 3)) and ended.code in (0, 1, 2, 3):
        yield f"{errors} errors at exit code {ended.code}"
    if noise and ended.code in (0, 1, 2, 3, 4):
        yield f"noise at exit code {ended.code}: {noise[0][:150]}"


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def signature(fault: str) -> str:
    """Return what faults of one kind have in common: the place in the code, or how the text begins."""
    place = re.search(r"internal error: (\w+): .*\(([^ ()]*\.py>?|<[^>]*>):[0-9]+\)", fault)
    kind = fault.partition(":")[0]
    text = f"{place[1]} in {place[2]}" if place else re.sub(r"'[^']*'", "'…'", fault.partition(": ")[2])[:100]
    return re.sub("[0-9]+", "#", f"{kind}: {text}")
