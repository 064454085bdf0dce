"""Sensitivity: what the model's outputs lose when one group alone is cut.

A criterion compares the channels of one group well; how much an error inside one group matters next to an error inside
another one, only the outputs tell. So each group alone is cut to half, the weights that read it are re-solved by least
squares on the moments of their inputs where those are known, and the error of the outputs is measured on a few samples.
The importances of its channels are then scaled such that the half that goes adds up to that error. Where a whole branch
may go with the group, that is measured, too, and the other half adds up to the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.evaluation.fidelity import without_padding
from onnxpress.graph import Array
from onnxpress.progress import Stage, unshown
from onnxpress.pruning import allocation
from onnxpress.pruning.evidence import Evidence
from onnxpress.pruning.groups import Group
from onnxpress.pruning.options import PruneOptions
from onnxpress.pruning.surgery import Mask
from onnxpress.pruning.widths import widths
from onnxpress.session import open_session, run
from onnxpress_calibration.dataset import LABELS, Dataset

SAMPLES = 32
BRANCH = 0.25
"""What repair leaves of the error of a missing branch, over what it leaves of the error of narrower layers, whose
readers are re-solved already when it is measured. On ResNet-56 it leaves 0.12 to 0.34 against 0.44 to 0.68 where one
group alone is cut; of 1, 0.5, 0.25, 0.12 and 0.06 this value brought the outputs closest on images held out."""


def measured(
    model: ir.Model,
    groups: Sequence[Group],
    importances: Mapping[Group, Array],
    options: PruneOptions,
    evidence: Evidence,
    data: Dataset,
    stage: Stage = unshown,
) -> dict[Group, Array]:
    """Return importances in units of the outputs' error: its mean square over the variance, summed over the outputs.

    Args:
        model: The model that the groups are of; it is not changed.
        groups: Those that may become smaller.
        importances: What a criterion says that each group loses with each of its channels, [size].
        options: What the channels are rounded to, and whether branches may go.
        evidence: Moments of the inputs of the model's layers; may be empty.
        data: `SAMPLES` of it are used.
        stage: Shows how many groups are done.
    """
    batches = _few(data, model)
    session = open_session(model)
    expected = [without_padding(run(session, feeds), feeds) for feeds in batches]
    scaled = {}
    with stage("cut each group alone", len(groups)) as advance:
        for group in groups:
            narrower = widths(group, options)[:-1]
            half = min(narrower, key=lambda width: abs(width - group.size / 2))
            errors = {}
            for count in [count for count in narrower if count in (0, half)]:
                keep = allocation.best(importances[group], count)
                session = open_session(_without(model, group, keep, evidence))
                error = _error([without_padding(run(session, feeds), feeds) for feeds in batches], expected)
                errors[count] = error * BRANCH if count == 0 and options.repair else error
            scaled[group] = _scaled(importances[group], errors)
            advance(1)
    return scaled


def _scaled(importances: Array, errors: Mapping[int, float]) -> Array:
    """Return importances, [size], whose sums over the channels that go are the errors, by the number that is kept.

    Channels keep their order. So where the last ones cost less than the first, each part of an error is spread over
    all: whoever takes the first will take the last, too.
    """
    least, most = min(errors), max(errors)
    first = ~allocation.best(importances, most)
    scaled = importances * _factor(errors[most], importances[first])
    rest = errors[least] - errors[most]
    if least == most:
        return scaled
    if rest / most < errors[most] / np.count_nonzero(first):
        return importances * _factor(errors[least], importances)
    others = importances * _factor(rest, importances[~first])
    return np.where(first, scaled, np.maximum(others, scaled[first].max()))


def _factor(error: float, importances: Array) -> float:
    total = float(importances.sum())
    return error / total if total else 1.0


def outputs_error(model: ir.Model, edited: ir.Model, data: Dataset) -> float:
    """Return the mean square error over the variance on a few samples, summed over the outputs."""
    sessions = open_session(edited), open_session(model)
    batches = _few(data, model)
    found, wanted = ([without_padding(run(session, feeds), feeds) for feeds in batches] for session in sessions)
    return _error(found, wanted)


def _few(data: Dataset, model: ir.Model) -> list[dict[str, Array]]:
    """Return samples from all of the data, which may be sorted: by class, by length."""
    specs = graph.input_specs(model)
    batches = data.drawn(specs, SAMPLES).batches(specs)
    return [{name: value for name, value in batch.items() if name != LABELS} for batch in batches]


def _without(model: ir.Model, group: Group, keep: Mask, evidence: Evidence) -> ir.Model:
    """Return a copy whose weights do not read some channels of a group, and make good for them what they can."""
    copy = model.clone()
    for weight in group.readers:
        channel = group.channel(weight.value, weight.in_axis)
        array = evidence.refitted(weight, (channel < 0) | keep[channel])
        copy.graph.initializers[str(weight.value.name)].const_value = ir.tensor(array)
    return copy


def _error(found: Sequence[Mapping[str, Array]], wanted: Sequence[Mapping[str, Array]]) -> float:
    """Return the mean square error over the variance, summed over the outputs that are real numbers."""
    total = 0.0
    common = set.intersection(*(set(outputs) for outputs in (*found, *wanted)))  # sequences may differ in length
    for name, first in wanted[0].items():
        if name not in common:
            continue
        pairs = [(mine[name], right[name]) for mine, right in zip(found, wanted, strict=True)]
        if first.dtype.kind == "f" and all(mine.shape == right.shape for mine, right in pairs):
            errors = np.concatenate([np.square(mine - right).ravel() for mine, right in pairs])
            variance = np.var(np.concatenate([right.ravel() for _, right in pairs]), dtype=np.float64)
            total += float(np.mean(errors, dtype=np.float64) / max(variance, 1e-30))
    return total
