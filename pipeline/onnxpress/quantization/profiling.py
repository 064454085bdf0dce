"""Run a float model over calibration data and collect the statistics of chosen tensors.

Each sample runs alone unless asked otherwise, so that no bit of the result depends on its neighbours: shuffled samples
and merged shards give the same profile. Several samples run at a time, which uses the cores better than several threads
on one sample, and pays for the counting.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxpress import graph
from onnxpress.errors import DataError, UsageError
from onnxpress.evaluation.outputs import tensors
from onnxpress.export.passes.rewiring import remove
from onnxpress.graph import Array
from onnxpress.quantization.options import MEMORY_BUDGET_BYTES
from onnxpress.running import shared
from onnxpress.session import Arrays, open_session, run
from onnxpress_calibration.channels import ChannelStatistics
from onnxpress_calibration.dataset import LABELS, Dataset, samples_in
from onnxpress_calibration.profile import Profile
from onnxpress_calibration.statistics import TensorStatistics

STACKED = 4
"""Most batches that are counted together; more gain nothing."""
STACKED_BYTES = 1 << 24
"""Of their activations."""


def profile(
    model: ir.Model,
    tensors: Iterable[str],
    data: Dataset,
    *,
    channels: Mapping[str, int] | None = None,
    batch: int = 1,
    memory_budget: float = MEMORY_BUDGET_BYTES,
    model_sha256: str = "",
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> Profile:
    """Collect statistics of the named float tensors.

    Memory holds the activations of a few samples and one histogram per tensor, however many samples there are.
    onnxruntime's fusions stay on: a Conv and the Relu behind it still run as one when only the Relu's output is asked
    for.

    Args:
        model: The float model; it is not changed.
        tensors: Names of tensors in its main graph.
        data: Calibration samples.
        channels: Tensors whose channels get statistics of their own, and the axis the channels lie on (Conv 1,
            MatMul and Gemm -1); each must be in ``tensors``, too.
        batch: Samples a run; a model with a fixed batch takes its own.
        memory_budget: Bytes of activations to hold; where all tensors together need more, the data is gone through
            several times, some of the tensors each time.
        model_sha256: Stored in the profile.
        advance: Called with the number of samples after each batch (for a progress bar).

    Raises:
        UsageError: the model has no tensor of that name.
        DataError: the data does not fit, or a tensor becomes NaN or infinite (which tensor, which sample).
    """
    specs = graph.input_specs(model)
    chosen = named(model, tensors)
    collected = {name: TensorStatistics() for name in sorted(chosen)}
    for name, axis in (channels or {}).items():
        collected[name].channels = ChannelStatistics(axis=axis)
    counter = _Counter(collected=collected, whole=_not_by_sample(model, chosen), origin=data.origin)
    workers, each = shared()  # more would only wait: counting goes one at a time
    shares = groups(model, chosen, data, memory_budget / (batch * workers))
    for turn, group in enumerate(shares):
        session = open_session(exposing(model, group), each)
        position, pending, room = 0, deque[Future[int]](), 0
        with ThreadPoolExecutor(workers) as pool:
            waiting: list[Arrays] = []
            for index, checked in enumerate(data.batches(specs, batch)):
                waiting.append({name: value for name, value in checked.items() if name != LABELS})
                samples = samples_in(waiting[-1])
                position += samples
                if index % len(shares) == turn:  # each sample counts once, however often the data is gone through
                    advance(samples)
                if len(waiting) >= room:
                    pending.append(pool.submit(counter.take, session, group, waiting, position))
                    waiting = []
                if index == 0:  # how much one gives says how many can be counted together
                    room = min(STACKED, int(min(STACKED_BYTES, memory_budget / workers)) // max(pending[0].result(), 1))
                if len(pending) > workers:
                    pending.popleft().result()
            if waiting:
                pending.append(pool.submit(counter.take, session, group, waiting, position))
            for future in pending:
                future.result()
    return Profile(model_sha256=model_sha256, data_sha256=data.sha256, samples=position, tensors=collected)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counter:
    """Runs batches on several threads, and counts what they give on one at a time."""

    collected: Mapping[str, TensorStatistics]
    whole: set[str]
    """Tensors of which every value is counted; see `_not_by_sample`."""
    origin: str
    counting: Lock = field(default_factory=Lock)

    def take(self, session: Any, group: Iterable[str], batches: Sequence[Arrays], end: int) -> int:  # noqa: ANN401 - no stubs
        """Run batches, one after the other, and count the tensors of a group.

        Args:
            session: Gives the tensors.
            group: Their names.
            batches: The inputs.
            end: Number of the sample behind the last one.

        Returns: The bytes of the results.
        """
        results = [feeds | run(session, feeds) for feeds in batches]
        samples = [samples_in(feeds) for feeds in batches]
        with self.counting:  # all at once: meanwhile the others run theirs, and do not count in between
            for name in group:
                try:
                    self._count(name, [each[name] for each in results], samples)
                except DataError as error:
                    where = self._where(name, results, samples, end)
                    raise DataError(
                        f"data {self.origin}: tensor {name!r} {error} in {where}. The float model itself overflows "
                        "there: fix the model or leave the sample out."
                    ) from error
        return sum(value.nbytes for each in results for value in tensors(each).values())

    def _count(self, name: str, arrays: Sequence[Array], samples: Sequence[int]) -> None:
        """Count a tensor; together where that can be, because of a small one the calls cost more than the counting."""
        whole, statistics = name in self.whole, self.collected[name]
        if not whole and arrays[0].ndim > 1 and len({each.shape for each in arrays}) == 1:
            arrays, samples = [np.concatenate(arrays)], [sum(samples)]
        for values, count in zip(arrays, samples, strict=True):
            statistics.update(values, samples=1 if whole else count, thin=not whole)

    def _where(self, name: str, results: Sequence[Arrays], samples: Sequence[int], end: int) -> str:
        """Return which sample, or where these cannot be told apart which samples, hold what is not finite."""
        first = end - sum(samples)
        for each, count in zip(results, samples, strict=True):
            rows = 1 if name in self.whole else count
            finite = np.isfinite(each[name].reshape(rows, -1)).all(axis=1)
            if not finite.all():
                alone = f"sample {first + int(np.argmin(finite))}"
                return alone if rows == count else f"samples {first} to {first + count - 1}"
            first += count
        return f"samples {end - sum(samples)} to {end - 1}"


def named(model: ir.Model, names: Iterable[str]) -> dict[str, ir.Value]:
    """Return the named values in the order of the graph."""
    known = {
        value.name: value
        for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs))
        if value.name
    }
    wanted = set(names)
    if not wanted <= known.keys():
        unknown = min(wanted - known.keys())
        raise UsageError(f"profile: the model has no tensor {unknown!r}. Name one of its main graph.")
    return {name: value for name, value in known.items() if name in wanted}


def exposing(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """Return a copy of the model that gives the named tensors and computes nothing else.

    What its nodes give to the outside they still give: Attention with keys of the past must give the present ones.
    """
    copy = model.clone()
    inputs = {value.name for value in copy.graph.inputs}
    own = list(copy.graph.outputs)
    wanted = [value for name, value in named(copy, names).items() if name not in inputs] or own[:1]
    copy.graph.outputs[:] = wanted
    for node in reversed(copy.graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            remove(node)
    producers = set(copy.graph)
    copy.graph.outputs.extend(value for value in own if value.producer() in producers and value not in wanted)
    common.RemoveUnusedNodesPass()(copy)
    return copy


def _not_by_sample(model: ir.Model, values: Mapping[str, ir.Value]) -> set[str]:
    """Return the tensors of which every value must be counted, because their rows are not known to be samples.

    Which values of a large tensor are counted depends on their place in the sample, so that has to be known. It is
    where the first axis is that of the inputs, or where a sample always runs alone.
    """
    firsts = {value.shape[0] for value in graph.inputs(model) if value.shape}
    if firsts == {1}:
        return set()
    batch = {axis.value for axis in firsts if isinstance(axis, ir.SymbolicDim)} - {None}
    return {
        name
        for name, value in values.items()
        if not (value.shape and isinstance(axis := value.shape[0], ir.SymbolicDim) and axis.value in batch)
    }


def groups(model: ir.Model, values: Mapping[str, ir.Value], data: Dataset, budget: float) -> list[list[str]]:
    """Share the tensors out so that the activations of one sample fit into the budget, group by group.

    Sizes follow from the shapes and the largest sample; an axis of unknown size is taken as the largest one known.
    """
    sizes = _axis_sizes(model, data)
    shares: list[list[str]] = [[]]
    held = 0.0
    for name, value in values.items():
        axes = [axis if isinstance(axis, int) else sizes.get(axis.value, sizes[None]) for axis in value.shape or ()]
        size = 2 * 4 * math.prod(axes)  # once in the runtime, once in the result
        if shares[-1] and held + size > budget:
            shares.append([])
            held = 0.0
        shares[-1].append(name)
        held += size
    return shares


def _axis_sizes(model: ir.Model, data: Dataset) -> dict[str | None, int]:
    """Return the size of each named axis of the inputs in the largest sample, and under None the largest of all."""
    sizes: dict[str | None, int] = {None: 1}
    free: list[tuple[str, int, str | None]] = []
    for value in graph.inputs(model):
        for position, axis in enumerate(value.shape or ()):
            if isinstance(axis, ir.SymbolicDim) and position == 0:
                sizes[axis.value] = 1
            elif isinstance(axis, ir.SymbolicDim):
                free.append((value.name or "", position, axis.value))
    for sample in data.samples() if free else ():
        for name, position, named in free:
            array = sample.get(name)
            if array is not None and array.ndim > position:
                for key in (named, None):
                    sizes[key] = max(sizes.get(key, 1), array.shape[position])
    return sizes
