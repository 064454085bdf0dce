"""Measured latency: a table of layers timed alone at the widths that are asked for, and pairs of whole models.

The table says what narrower groups will save without building each model. A layer alone gets its input in another
memory layout than inside the model, and runs without the cheap operators that are fused with it, so the table is
scaled to the whole model's measured time, and what it foretells is checked on the pruned model, against the original
in alternation, before it counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.bench.statistics import Interval, center
from onnxpress.errors import ModelError, UsageError
from onnxpress.graph import Array
from onnxpress.progress import Stage, unshown
from onnxpress.pruning import allocation, surgery
from onnxpress.pruning.evidence import exposing
from onnxpress.pruning.groups import Group
from onnxpress.pruning.options import PruneOptions
from onnxpress.pruning.proof import samples
from onnxpress.pruning.stored import packed
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import Dataset

IR_VERSION = 10
RUNS = 15
"""Runs of a layer, of which the fastest counts: whatever disturbs a run makes it longer."""
PAIRS, ROUNDS = 4, 10
"""Pairs of sessions of two models, and how often each is measured in alternation: where weights and activations come to
lie in memory differs from session to session, and the time with it."""
TRIES = 10
"""How often the widths are chosen again when the measured latency is not what the table foretold."""
CLOSE = 0.97
"""A measured latency from this share of the target to the target is close enough."""
Shape = tuple[int, ...]


class Latency:
    """Foretells how long a model takes for one sample, at whatever widths the shapes of its values have just now."""

    def __init__(self, model: ir.Model, data: Dataset | None, options: SessionOptions) -> None:
        """Measure a whole model, and note the sizes that its dynamic axes have on a sample.

        Raises:
            UsageError: there is no data, and the model accepts no noise.

        """
        self._options = options
        self._feeds, self._shapes = _sample(model, data)
        self._table: dict[tuple[object, ...], float] = {}
        self.whole_ms = milliseconds(open_session(packed(model), options), self._feeds)
        layers, elements = self._layers_ms(model), self._elements(model)
        self._factor = min(1.0, self.whole_ms / layers) if layers else 1.0
        self._per_element = max(0.0, self.whole_ms - layers) / max(elements, 1)

    def __call__(self, model: ir.Model) -> float:
        """Return the milliseconds that a model should take, by the shapes of its values."""
        return self._factor * self._layers_ms(model) + self._per_element * self._elements(model)

    def cut(
        self,
        model: ir.Model,
        baseline: ir.Model,
        groups: Sequence[Group],
        options: PruneOptions,
        importances: Mapping[Group, Array],
        stage: Stage = unshown,
    ) -> surgery.Choice:
        """Choose channels such that the cut model's measured latency is at most the target's share of the baseline's.

        Of the choices that were tried and fast enough it is the slowest; if there were none, the one that leaves least.
        """
        (share,) = (options.target or {}).values()
        if share >= 1:
            return {}
        scale = allocation.Scale(model, groups, self, self.whole_ms)
        least = allocation.narrowest(groups, options)
        found: surgery.Choice
        found = {group: allocation.best(importances[group], count) for group, count in least.items()}
        reached, aim = 0.0, share
        with stage("try widths", TRIES) as advance:
            for _ in range(TRIES):
                aimed = options.model_copy(update={"target": {"latency": aim}})
                choice = allocation.choose(groups, aimed, importances, scale)
                measured = self.compare(baseline, surgery.without(model, choice)).value
                advance(1)
                if reached < measured <= share:
                    found, reached = choice, measured
                if CLOSE * share <= measured <= share:
                    break
                power = math.log(share) / math.log(min(measured, 0.99))  # as if the table were off by an exponent
                aim = min(aim**power, 0.98 * aim) if measured > share else aim**power
        return found

    def compare(self, baseline: ir.Model, model: ir.Model) -> Interval:
        """Measure one model against another; return the ratio of their times."""
        return ratio((baseline, model), self._feeds, self._options)

    def _layers_ms(self, model: ir.Model) -> float:
        return sum(self._layer_ms(node) for node in model.graph if graph.weighted(node) is not None)

    def _elements(self, model: ir.Model) -> int:
        """Count what all other operators write."""
        others = (node for node in model.graph if graph.weighted(node) is None)
        return sum(math.prod(self._shape(value)) for node in others for value in node.outputs)

    def _layer_ms(self, node: ir.Node) -> float:
        shapes = tuple(None if value is None else self._shape(value) for value in node.inputs)
        attributes = sorted((attribute.name, str(attribute.value)) for attribute in node.attributes.values())
        constants = tuple(graph.constant_tensor(value) is not None for value in node.inputs)
        key = (node.op_type, tuple(attributes), shapes, constants)
        if any(shape is not None and 0 in shape for shape in shapes):
            return 0.0  # it goes
        if key not in self._table:
            model, feeds = alone(node, shapes)
            self._table[key] = milliseconds(open_session(model, self._options), feeds)
        return self._table[key]

    def _shape(self, value: ir.Value) -> Shape:
        """Return a value's shape: known sizes as they are now, dynamic ones as they were on the sample."""
        seen = self._shapes.get(str(value.name), ())
        return tuple(seen[axis] if size is None else size for axis, size in enumerate(graph.shape(value) or seen))


def alone(node: ir.Node, shapes: Sequence[Shape | None]) -> tuple[ir.Model, dict[str, Array]]:
    """Return a model that is one Conv, Gemm or MatMul with inputs of these shapes, and noise for those not constant."""
    random = np.random.default_rng(0)
    inputs: list[ir.Value | None] = []
    feeds: dict[str, Array] = {}
    for value, shape in zip(node.inputs, shapes, strict=True):
        if value is None or shape is None:
            inputs.append(None)
            continue
        dtype = value.dtype or ir.DataType.FLOAT
        noise = random.standard_normal(shape).astype(dtype.numpy())
        copy = ir.Value(name=f"input{len(inputs)}", shape=ir.Shape(shape), type=ir.TensorType(dtype))
        if graph.constant_tensor(value) is None:
            feeds[str(copy.name)] = noise
        else:
            copy.const_value = ir.tensor(noise, name=copy.name)
        inputs.append(copy)
    attributes = dict(node.attributes)
    if node.op_type == "Conv" and shapes[0] is not None and shapes[1] is not None:
        attributes["group"] = ir.AttrInt64("group", shapes[0][1] // shapes[1][1])
    copied = ir.Node(node.domain, node.op_type, inputs, attributes.values(), num_outputs=1, name="layer")
    copied.outputs[0].name, copied.outputs[0].type = "output", node.outputs[0].type
    given = [value for value in inputs if value is not None]
    body = ir.Graph(
        [value for value in given if value.const_value is None],
        copied.outputs,
        nodes=[copied],
        initializers=[value for value in given if value.const_value is not None],
        opset_imports=dict(node.graph.opset_imports) if node.graph is not None else {},
    )
    return ir.Model(body, ir_version=IR_VERSION), feeds


def milliseconds(opened: Any, feeds: Mapping[str, Array], runs: int = RUNS) -> float:  # noqa: ANN401 - no stubs
    """Return the time of the fastest of some runs."""
    run(opened, feeds)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run(opened, feeds)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def ratio(pair: Sequence[ir.Model], feeds: Mapping[str, Array], options: SessionOptions) -> Interval:
    """Return the time of the second model over that of the first, measured in alternation."""
    groups = []
    for _ in range(PAIRS):
        sessions = [open_session(packed(model), options) for model in pair]
        laps = [[milliseconds(opened, feeds, 3) for opened in sessions] for _ in range(ROUNDS)]
        groups.append([math.log(second / first) for first, second in laps])
    return center(groups).exp()


def _sample(model: ir.Model, data: Dataset | None) -> tuple[Mapping[str, Array], dict[str, Shape]]:
    """Return one sample that the model accepts, and the shape of every value on it."""
    opened = open_session(exposing(model, [str(value.name) for node in model.graph for value in node.outputs]))
    for feeds in samples(model, data, 1):
        try:
            found = {**feeds, **run(opened, feeds)}
        except ModelError:
            if data is not None:
                raise
            continue
        return feeds, {name: array.shape for name, array in found.items()}
    raise UsageError("prune: target latency needs samples that the model accepts. Give --calibration DATA.")
