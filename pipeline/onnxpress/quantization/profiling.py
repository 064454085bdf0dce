"""Run a float model over calibration data and collect the statistics of chosen tensors, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir

from onnxpress import graph
from onnxpress.errors import DataError
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import LABELS, Dataset
from onnxpress_calibration.profile import Profile
from onnxpress_calibration.statistics import ChannelStatistics, TensorStatistics

BATCH = 4


def profile(
    model: ir.Model,
    tensors: Iterable[str],
    data: Dataset,
    *,
    channels: Mapping[str, int] | None = None,
    model_sha256: str = "",
    advance: Callable[[int], object] = lambda samples: None,  # noqa: ARG005
) -> Profile:
    """Collect statistics of the named float tensors.

    Memory holds one batch of activations and one histogram per tensor, however many samples there are. onnxruntime's
    fusions stay on: a Conv and the Relu behind it still run as one when only the Relu's output is asked for.

    Args:
        model: The float model; it is not changed.
        tensors: Names of tensors in its main graph.
        data: Calibration samples.
        channels: Tensors whose channels get statistics of their own, and the axis the channels lie on (Conv 1,
            MatMul and Gemm -1); each must be in ``tensors``, too.
        model_sha256: Stored in the profile.
        advance: Called with the number of samples after each batch (for a progress bar).

    Raises:
        DataError: the data does not fit, or a tensor becomes NaN or infinite (which tensor, which sample).
    """
    names = sorted(tensors)
    exposed = model.clone()
    values = {value.name: value for node in exposed.graph for value in node.outputs}
    present = {value.name for value in (*exposed.graph.inputs, *exposed.graph.outputs)}
    exposed.graph.outputs.extend(values[name] for name in names if name not in present)
    session = open_session(exposed, SessionOptions())
    statistics = {name: TensorStatistics() for name in names}
    for name, axis in (channels or {}).items():
        statistics[name].channels = ChannelStatistics(axis=axis)
    position = 0
    for batch in data.batches(graph.input_specs(model), BATCH):
        feeds = {name: value for name, value in batch.items() if name != LABELS}
        results = feeds | run(session, feeds)
        for name in names:
            try:
                statistics[name].update(results[name])
            except DataError as error:
                raise DataError(
                    f"data {data.origin}: tensor {name!r} {error} within samples {position} to {position + BATCH - 1}. "
                    "The float model itself overflows there: fix the model or leave those samples out."
                ) from error
        size = len(next(iter(feeds.values())))
        position += size
        advance(size)
    return Profile(model_sha256=model_sha256, data_sha256=data.sha256, samples=position, tensors=statistics)
