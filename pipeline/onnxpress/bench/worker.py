"""The process that runs one variant's model: ``python -m onnxpress.bench.worker``, spoken to on its pipes.

Two sessions in one process disturb each other (the spinning threads of one take the other's cores), denormal handling
follows the first session of a process, and peak memory never goes down: so each variant has a process of its own,
started afresh (never forked), and only one of them runs at a time. The others wait for a line to read; when the
benchmark dies, that line never comes, the pipe ends, and so does the worker.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from onnxpress import watch
from onnxpress.bench.messages import Dissect, Failed, Load, Measure, Message, Serve, WarmUp, decode, encode
from onnxpress.errors import ModelError, OnnxpressError

if TYPE_CHECKING:
    from onnxpress.bench.runner import Runner


def main() -> None:
    """Answer requests until the pipe ends."""
    watch.die_with(os.getppid())  # in native code it would not see that the pipe ends
    # Whatever libraries print must not land between the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    runner: Runner | None = None
    for line in sys.stdin:
        request = decode(line)
        reply: Message
        try:
            if isinstance(request, Load):
                runner, reply = _load(request)
            elif isinstance(request, WarmUp) and runner is not None:
                reply = runner.warm_up(request)
            elif isinstance(request, Measure) and runner is not None:
                reply = runner.measure(request)
            elif isinstance(request, Serve) and runner is not None:
                reply = runner.serve(request)
            elif isinstance(request, Dissect) and runner is not None:
                reply = runner.dissect(request)
            else:
                raise TypeError(f"unexpected request {type(request).__name__}")
        except OnnxpressError as error:
            reply = Failed(kind=type(error).__name__, message=str(error))
        except MemoryError:
            reply = Failed(kind=ModelError.__name__, message="not enough memory to run the model.")
        try:
            replies.write(encode(reply))
            replies.flush()
        except BrokenPipeError:
            return


def _load(request: Load) -> tuple[Runner, Message]:
    start = time.perf_counter()
    from onnxpress import session
    from onnxpress.bench.runner import Runner

    session.onnxruntime()
    runner = Runner(request, import_ms=1e3 * (time.perf_counter() - start))
    return runner, runner.loaded


if __name__ == "__main__":
    main()
