"""A worker process, seen from the benchmark: started afresh, spoken to, and never left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TypeVar

from onnxpress import errors
from onnxpress.bench.messages import (
    Block,
    Dissect,
    Dissected,
    Failed,
    Load,
    Loaded,
    Measure,
    Request,
    Serve,
    Served,
    WarmedUp,
    WarmUp,
    decode,
    encode,
)
from onnxpress.errors import ModelError, OnnxpressError
from onnxpress.watch import TICK_S, Limit, allowed_s

START = 6.0
"""It imports its libraries first, which takes long where the disk or others are busy."""

Reply = TypeVar("Reply", Loaded, WarmedUp, Block, Served, Dissected)

FOREIGN_SETTINGS = ("OMP_", "ORT_", "KMP_", "MKL_", "GOMP_")
"""Environment variables that change the threading of libraries behind our back."""


class WorkerProcess:
    """A fresh process for one variant.

    Args:
        variant: Its name, for messages.
        request: What it will load.
        log: A file for what the process prints.

    """

    def __init__(self, variant: str, request: Load, log: Path) -> None:
        self._variant, self._request, self._log = variant, request, log
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                # -P: a file in the current folder that is named like a library must not be imported in its place
                [sys.executable, "-P", "-m", "onnxpress.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                encoding="utf-8",
                env=environment | {"OPENBLAS_NUM_THREADS": "1"},  # numpy only holds arrays there
                process_group=0,  # Ctrl-C reaches the benchmark, which then ends its workers
            )

    def load(self) -> Loaded:
        """Load the model and run it.

        Raises:
            ModelError: it cannot be loaded or run, or the process died.
            UsageError: onnxruntime or the provider cannot be used.

        """
        return self._ask(self._request, Loaded)

    def warm_up(self, batch: int) -> WarmedUp:
        """Run until the durations are steady; raises like `load`."""
        return self._ask(WarmUp(batch=batch), WarmedUp)

    def measure(self, batch: int, runs: int, *, copies: bool = False) -> Block:
        """Time one block of runs; raises like `load`."""
        return self._ask(Measure(batch=batch, runs=runs, copies=copies), Block)

    def serve(self, rate_per_s: float, requests: int, seed: int) -> Served:
        """Serve requests that arrive at random; raises like `load`."""
        return self._ask(Serve(rate_per_s=rate_per_s, requests=requests, seed=seed), Served)

    def dissect(self, runs: int) -> Dissected:
        """Run under onnxruntime's profiler; raises like `load`."""
        return self._ask(Dissect(runs=runs), Dissected)

    def close(self) -> None:
        """End the process at once: it holds nothing worth saving."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101
            try:
                pipe.close()
            except BrokenPipeError:  # a request that was never read
                continue

    def _ask(self, request: Request, answer: type[Reply]) -> Reply:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101
        try:
            stdin.write(encode(request))
            stdin.flush()
            if isinstance(request, Load) and request.provider == "cpu":  # other devices compile for minutes
                self._wait(request, stdout)
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ModelError(self._obituary(request))
        reply = decode(line)
        if isinstance(reply, Failed):
            kind: type[OnnxpressError] = getattr(errors, reply.kind)
            raise kind(f"variant {self._variant!r}: {reply.message}")
        assert isinstance(reply, answer)  # noqa: S101 - for mypy; a worker answers what it is asked
        return reply

    def _wait(self, request: Load, stdout: IO[str]) -> None:
        """Wait for the first answer; a model that has run once will end again.

        Raises:
            ModelError: loading and running take longer than that of a model of this size can.
        """
        limit = Limit(self._process.pid, allowed_s(2 * request.size_bytes), idle=START)
        while sys.platform != "win32" and not select.select([stdout], [], [], TICK_S)[0]:
            if limit.passed():
                raise ModelError(f"variant {self._variant!r}, model {request.model}: running it {limit}")

    def _obituary(self, request: Request) -> str:
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = " Is there enough memory?" if code == -signal.SIGKILL else ""
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        last = f" Its last words: {said[-1].strip()}" if said else ""
        doing = {Load: "loading the model", WarmUp: "warming up"}.get(type(request), "measuring")
        return (
            f"variant {self._variant!r}, model {self._request.model}: the benchmark's process died while {doing} "
            f"({how}).{hint}{last}"
        )
