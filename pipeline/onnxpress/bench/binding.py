"""Inside a worker: samples read, joined to batches and bound to a session, so that a timed run copies nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from onnxpress import session
from onnxpress.bench.messages import Load
from onnxpress.errors import UsageError
from onnxpress.session import Arrays

GRAPH_OPTIONS = ("enable_cuda_graph", "trt_cuda_graph_enable", "enable_graph_capture")
"""Options of providers that record a run and replay it, at the addresses it was recorded with."""
UNRECORDED = -1
"""Graph number of runs that are neither recorded nor replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One set of inputs, bound to where the session reads them."""

    binding: Any
    """onnxruntime's; the inputs by name where it can bind none (`is_bindable`)."""
    inputs: tuple[tuple[Any, np.ndarray[Any, np.dtype[Any]]], ...]
    """The value on the device, and the array it holds."""

    def copy_in(self) -> None:
        """Copy the inputs to the device again."""
        for value, array in self.inputs:
            value.update_inplace(array)

    def copy_out(self) -> None:
        """Copy the outputs from the device; where nothing is bound, the run has done so."""
        if not isinstance(self.binding, dict):
            self.binding.copy_outputs_to_cpu()


class Feeder:
    """The samples of a benchmark, bound to one session.

    Inputs and outputs lie on the provider's device. With recorded graphs there is a single binding for each batch
    size, whose contents change from run to run; without, each sample has its own.

    Args:
        opened: The session.
        request: What was loaded: provider, samples.
        first: Inputs and outputs of a first run: they tell the dtypes of the outputs.

    """

    def __init__(self, opened: Any, request: Load, first: tuple[Arrays, Arrays]) -> None:  # noqa: ANN401
        self._session, self._request, self._first = opened, request, first
        self._device, self._device_id = session.provider_file(request.provider).DEVICE, device_id(request)
        self._recorded = recorded(request)
        self._bound: dict[int, Iterator[Bound]] = {}
        self._bindable = is_bindable(opened)
        self._outputs = [output.name for output in opened.get_outputs()]
        self.call: Callable[[Any, Any], object] = opened.run_with_iobinding if self._bindable else self._run_unbound
        """Runs what `Bound.binding` holds, with options."""

    def bindings(self, batch: int) -> Iterator[Bound]:
        """Return an endless cycle of inputs bound for one batch size; each shape has run once.

        Raises:
            ModelError: the model cannot take a batch of this size.
            UsageError: a graph is to be recorded, and samples differ in shape.

        """
        if batch not in self._bound:
            feeds = list(self._batches(batch))
            shapes = {tuple(value.shape for value in each.values()): each for each in feeds}
            if self._recorded:
                if len(shapes) > 1:
                    raise UsageError(
                        f"recorded graphs ({', '.join(GRAPH_OPTIONS)}): all inputs must have one shape, and these have "
                        f"{len(shapes)}. Leave the option out, or give samples of one shape."
                    )
                bound = self._bind(feeds[0])
                self.run(bound, batch)
                self._bound[batch] = _rewritten(bound, feeds)
            else:
                for each in shapes.values():  # some providers look for their best kernels at the first run of a shape
                    session.run(self._session, each, run_options(self._request, UNRECORDED))
                self._bound[batch] = cycle([self._bind(each) for each in feeds])
        return self._bound[batch]

    def run(self, bound: Bound, batch: int) -> None:
        """Run the session on bound inputs."""
        self.call(bound.binding, run_options(self._request, batch))

    def _run_unbound(self, feeds: Arrays, options: Any) -> None:  # noqa: ANN401 - no stubs
        self._session.run(self._outputs, feeds, options)

    def _bind(self, feeds: Arrays) -> Bound:
        """Bind inputs, and outputs where their shape is known beforehand, so that a run allocates neither."""
        if not self._bindable:
            return Bound(binding=dict(feeds), inputs=())
        value = session.onnxruntime().OrtValue
        binding = self._session.io_binding()
        inputs = []
        for name, array in feeds.items():
            inputs.append((value.ortvalue_from_numpy(array, self._device, self._device_id), array))
            binding.bind_ortvalue_input(name, inputs[-1][0])
        for output in self._session.get_outputs():
            shape = self._output_shape(output, feeds)
            if shape is None:
                binding.bind_output(output.name, self._device, self._device_id)
            else:
                empty = np.empty(shape, self._first[1][output.name].dtype)
                place = value.ortvalue_from_numpy(empty, self._device, self._device_id)
                binding.bind_ortvalue_output(output.name, place)
        return Bound(binding=binding, inputs=tuple(inputs))

    def _output_shape(self, output: Any, feeds: Arrays) -> tuple[int, ...] | None:  # noqa: ANN401 - no stubs
        """Return the shape that an output will have; None when it depends on the data."""
        inputs, outputs = self._first
        first: np.ndarray[Any, np.dtype[Any]] = outputs[output.name]
        expected = _resolve(output.shape, self._sizes(inputs))
        return _resolve(output.shape, self._sizes(feeds)) if expected == first.shape else None

    def _sizes(self, feeds: Arrays) -> dict[str, int]:
        """Return the size that each named axis takes with these inputs."""
        return {
            axis: size
            for declared in self._session.get_inputs()
            if declared.name in feeds
            for axis, size in zip(declared.shape, feeds[declared.name].shape, strict=True)
            if isinstance(axis, str)
        }

    def _batches(self, batch: int) -> Iterator[Arrays]:
        """Yield the samples as they are, or joined (and repeated) to a larger batch."""
        samples = list(read(self._request))
        if batch == next((len(value) for value in samples[0].values() if value.ndim), 1):
            yield from samples
            return
        for start in range(0, max(1, len(samples) // batch) * batch, batch):
            chosen = [samples[i % len(samples)] for i in range(start, start + batch)]
            yield {
                name: np.concatenate([sample[name] for sample in chosen]) if value.ndim else value
                for name, value in chosen[0].items()
            }


def is_bindable(opened: Any) -> bool:  # noqa: ANN401 - no stubs
    """Tell whether all inputs and outputs of a session are tensors of numbers: it binds no others, or crashes."""
    types = {value.type for value in (*opened.get_inputs(), *opened.get_outputs())}
    return all(each.startswith("tensor(") for each in types) and "tensor(string)" not in types


def device_id(request: Load) -> int:
    """Return the number of the device."""
    return int(session.effective_options(request.provider, request.provider_options).get("device_id", "0"))


def recorded(request: Load) -> bool:
    """Tell whether runs are recorded as graphs of the device, and replayed."""
    options = session.effective_options(request.provider, request.provider_options)
    return any(options.get(name) in ("1", "True", "true") for name in GRAPH_OPTIONS)


def run_options(request: Load, graph: int) -> Any:  # noqa: ANN401 - no stubs
    """Return what a run is called with: the number of its graph (each batch size has its own), where there are any."""
    if not recorded(request):
        return None
    options = session.onnxruntime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def read(request: Load) -> Iterator[Arrays]:
    """Yield the samples, one after the other."""
    with np.load(request.samples) as file:
        for i in range(len(file.files) // len(request.names)):
            yield {name: file[f"{i}.{j}"] for j, name in enumerate(request.names)}


def _rewritten(bound: Bound, feeds: Sequence[Arrays]) -> Iterator[Bound]:
    """Yield the same binding again and again, each time with other contents."""
    for each in cycle(feeds):
        current = Bound(
            binding=bound.binding,
            inputs=tuple((value, array) for (value, _), array in zip(bound.inputs, each.values(), strict=True)),
        )
        current.copy_in()
        yield current


def _resolve(shape: Sequence[int | str | None], sizes: dict[str, int]) -> tuple[int, ...] | None:
    known = [axis if isinstance(axis, int) else sizes.get(axis or "") for axis in shape]
    return None if None in known else tuple(size for size in known if size is not None)
