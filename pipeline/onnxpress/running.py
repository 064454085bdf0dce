"""Running models over data, several batches at a time.

A second thread gains little in one run of a small model, and nothing while the caller works on what came out. So
several batches run at once, each on its share of the threads, while the caller has the one before; what it gets, and in
which order, is the same as if they ran one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from onnxpress import host
from onnxpress.session import Arrays, SessionOptions, open_session, run

WORKERS = 4
"""Most batches that run at a time; as many results wait in memory."""


def shared(options: SessionOptions | None = None) -> tuple[int, SessionOptions]:
    """Return how many batches run at a time, and the options of a session with the threads that each of them gets."""
    options = options or SessionOptions()
    threads = options.threads or host.usable_threads()
    workers = min(WORKERS, threads) if options.provider == "cpu" else 1  # one batch fills another device
    return workers, replace(options, threads=threads // workers)


def over(
    models: Sequence[Path | ir.Model], batches: Iterable[Arrays], options: SessionOptions | None = None
) -> Iterator[tuple[Arrays, list[Arrays]]]:
    """Yield each batch with the outputs of each model, in order.

    Args:
        models: Those that get the same inputs.
        batches: Their inputs; what a model does not take (labels) is not given to it.
        options: Of the sessions; ``threads`` is how many all runs take together.

    Raises:
        ModelError: onnxruntime refuses a model, or one fails on a batch.
    """
    workers, each = shared(options)
    sessions = [open_session(model, each) for model in models]
    taken = [{value.name for value in session.get_inputs()} for session in sessions]

    def outputs(batch: Arrays) -> list[Arrays]:
        return [
            run(session, {name: value for name, value in batch.items() if name in names})
            for session, names in zip(sessions, taken, strict=True)
        ]

    pending: deque[tuple[Arrays, Future[list[Arrays]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for batch in batches:
            pending.append((batch, pool.submit(outputs, batch)))
            if len(pending) > workers:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
