"""Time models against each other, in turns, each in a process of its own.

The benchmark's workers and statistics with fewer pairs: enough to choose by, not to report. What the search ends with
is measured again, by the benchmark itself.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType

from onnxpress.bench.inputs import Inputs
from onnxpress.bench.messages import Load
from onnxpress.bench.process import WorkerProcess
from onnxpress.bench.statistics import Interval, center
from onnxpress.session import SessionOptions

PAIRS = 12
BLOCK_MS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """A model that is loaded and warm."""

    worker: WorkerProcess
    run_ms: float


class Race:
    """Starts runners and compares them; ends all of them when its block ends.

    Args:
        inputs: What every runner is fed.
        session: Provider, threads and spinning.
        folder: For the samples and the workers' logs.
    """

    def __init__(self, inputs: Inputs, session: SessionOptions, folder: Path) -> None:
        self._inputs, self._session, self._folder = inputs, session, folder
        self._random = random.Random(0)  # noqa: S311 - an order, not a secret
        self._running: list[WorkerProcess] = []
        inputs.save(folder / "samples.npz")

    def __enter__(self) -> Race:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._running:
            worker.close()

    def start(self, model: Path) -> Runner:
        """Load a model in a fresh process and warm it up.

        Raises:
            ModelError: onnxruntime cannot load or run it.
        """
        request = Load(
            model=str(model),
            size_bytes=sum(file.stat().st_size for file in model.parent.glob(f"{model.stem}*")),  # its weights, too
            provider=self._session.provider,
            threads=self._session.threads,
            spin=self._session.spin,
            samples=str(self._folder / "samples.npz"),
            names=tuple(self._inputs.samples[0]),
        )
        worker = WorkerProcess(model.stem, request, self._folder / "worker.log")
        self._running.append(worker)
        worker.load()
        return Runner(worker=worker, run_ms=worker.warm_up(self._inputs.batch).run_ms)

    def stop(self, runner: Runner) -> None:
        """End a runner's process."""
        runner.worker.close()
        self._running.remove(runner.worker)

    def ratio(self, reference: Runner, candidate: Runner, *, pairs: int = PAIRS, least: int = 3) -> Interval:
        """Return how long the candidate takes, as a multiple of the reference's time.

        Args:
            reference: A runner.
            candidate: Another one.
            pairs: Blocks of each; 6 at least.
            least: Runs of a block, which takes about `BLOCK_MS`.
        """
        logs = []
        for _ in range(pairs):
            times = {}
            for runner in self._random.sample((reference, candidate), 2):
                block = runner.worker.measure(self._inputs.batch, max(least, math.ceil(BLOCK_MS / runner.run_ms)))
                times[runner is candidate] = median(block.durations_ns)
            logs.append(math.log(times[True] / times[False]))
        return center([logs]).exp()
