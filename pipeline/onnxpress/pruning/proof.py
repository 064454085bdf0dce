"""The proof that a rewritten graph is right: it must compute what the masked original computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from onnxpress import graph, session
from onnxpress.errors import ModelError, OnnxpressError
from onnxpress.evaluation.outputs import tensors
from onnxpress.export.passes.rewiring import bypass
from onnxpress.graph import Array
from onnxpress_calibration.dataset import LABELS, Dataset

TOLERANCE = {"float16": 3e-2, "bfloat16": 2e-1}
DEFECT = "The channel analysis has a defect: please report the model; nothing was written."
DEFAULT_TOLERANCE = 2e-3
"""Largest difference allowed, as a share of the largest output: the order of floating-point sums differs."""


def prove(pruned: ir.Model, masked: ir.Model, data: Dataset | None) -> float | None:
    """Run both models on the same input and return their largest difference, as a share of the largest output.

    The input is the first samples of ``data``, else noise of the right shapes. None when there is no data and the
    masked model (which has the original's operators) accepts no noise: sizes or codes may mean something to it.

    Quantized models are compared without their rounding, which makes a whole step of an error that tips a value over.

    Raises:
        OnnxpressError: they differ by more than floating-point sums can. This is a defect of the analysis, not of the
            model, and nothing is returned.

    """
    reference = session.open_session(_smooth(masked))
    candidate = session.open_session(_smooth(pruned))
    for feeds in samples(masked, data, 4):
        try:
            expected = session.run(reference, feeds)
        except ModelError:
            if data is not None:
                raise
            continue
        worst = 0.0
        right = tensors(expected)
        if not any(map(_tells, right.values())):
            if data is not None:
                raise ModelError(
                    "pruning: the model's outputs are not finite on this data. Check the data and the model."
                )
            continue
        found = tensors(session.run(candidate, feeds))
        if right.keys() != found.keys():
            raise OnnxpressError(f"pruning: the outputs are {sorted(found)} instead of {sorted(right)}. {DEFECT}")
        for name, computed in found.items():
            error, limit = _difference(computed, right[name]), _limit(computed)
            if not error <= limit:
                raise OnnxpressError(
                    f"pruning: output {name!r} differs from the masked model by {error:.2g} of its largest value "
                    f"(allowed {limit:g}). {DEFECT}"
                )
            worst = max(worst, error)
        return worst
    return None


def _smooth(model: ir.Model) -> ir.Model:
    """Return a model without any QuantizeLinear that only DequantizeLinear reads, and without those."""
    copy = model.clone()
    for node in list(copy.graph):
        source, readers = node.inputs[0] if node.inputs else None, graph.consumers(node.outputs[0])
        alone = not node.outputs[0].is_graph_output() and {each.op_type for each in readers} == {"DequantizeLinear"}
        if source is not None and node.op_type == "QuantizeLinear" and alone:
            for each in readers:
                bypass(each, node.outputs[0])
            bypass(node, source)
    return copy


def _tells(output: Array) -> bool:
    """Tell whether an output can be compared: floats that are all NaN or infinite say nothing."""
    return output.dtype.kind != "f" or output.size == 0 or bool(np.isfinite(output).any())


def _limit(computed: Array) -> float:
    return TOLERANCE.get(str(computed.dtype), DEFAULT_TOLERANCE)


def _difference(computed: Array, expected: Array) -> float:
    if computed.shape != expected.shape:
        return float("inf")
    if computed.size == 0 or np.array_equal(computed, expected):
        return 0.0
    if expected.dtype.kind not in "fV" and expected.dtype.name != "bfloat16":
        return float(np.mean(computed != expected))
    one, other = computed.astype(np.float64), expected.astype(np.float64)
    alike = np.isnan(other) | (one == other)  # a channel that is masked, not gone, makes NaN of an infinity: 0 * inf
    gap = np.max(np.abs(one - other), where=~alike, initial=0.0)
    return float(gap / max(np.max(np.abs(other), where=np.isfinite(other), initial=0.0), 1e-30))


def samples(model: ir.Model, data: Dataset | None, count: int) -> Iterator[Mapping[str, Array]]:
    """Yield inputs of so many samples: the first of the data, else noise of several sizes, to be tried in order."""
    specs = graph.input_specs(model)
    if data is not None:
        batch = next(data.batches(specs, size=count))
        yield {name: value for name, value in batch.items() if name != LABELS or name in specs}
        return
    for size in (8, 32, 224):  # small first; image models with free height and width need more
        generator = np.random.default_rng(0)
        feeds = {}
        for value in graph.inputs(model):
            spec = specs[str(value.name)]
            shape = [min(count, 2) if axis == 0 else size for axis in range(len(spec.shape))]
            shape = [known or free for known, free in zip(spec.shape, shape, strict=True)]
            if spec.dtype == object:
                noise: Array = generator.choice(np.array(graph.words(value)), shape)
            else:
                noise = generator.standard_normal(shape) if spec.dtype.kind == "f" else generator.integers(0, 2, shape)
            feeds[str(value.name)] = noise.astype(spec.dtype)
        yield feeds
