"""Which layers lose how much: the error that quantizing each weighted node alone makes, all nodes in one pass.

Beside every weighted node the graph gets *twins* of it: the same operator with int8 weights and int8 input, rounded and
turned back to float. A run then compares each node with its twins on the float model's own activations, and hands back
two sums per twin instead of tensors. For the error at the model's outputs a switch lets one twin at a time take its
node's place, in the same session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.placement import Placement, activated, gemms, place
from onnxpress.quantization.twins import Twins, activation
from onnxpress.quantization.weights import Weights
from onnxpress.running import over
from onnxpress.session import Arrays
from onnxpress_calibration.dataset import Dataset

SAMPLES = 16
"""Errors are averages over all elements of a tensor: a few samples tell as much as many."""
SAMPLES_AT_OUTPUTS = 4
"""Each takes one run per node."""
SWITCH = "onnxpress_switch"
"""An input: the number of the node whose static twin takes its place; -1 for the float model."""
KINDS = ("signal", "weights", "static", "dynamic")
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What int8 costs at one node: squared error relative to the squared signal (0.01 is 20 dB, 1 is noise alone)."""

    node: str
    op: str
    weights: float
    """At the node's own output (behind its Relu or Clip), weights int8, input float."""
    static: float
    """The same with the input rounded to its fixed range, too."""
    dynamic: float | None
    """The same with the input's range computed in each run; None for a Conv, which has no such kernel."""
    at_outputs: float | None
    """Of the model's worst output when this node alone is static int8; None when it was not asked for."""


def sensitivity(
    model: ir.Model,
    options: QuantizeOptions,
    data: Dataset,
    ranges: Mapping[str, tuple[float, float]],
    *,
    at_outputs: bool = False,
    weights: Weights | None = None,
    advance: Callable[[int], object] = lambda runs: None,  # noqa: ARG005
) -> list[Sensitivity]:
    """Measure what quantizing each weighted node alone loses.

    Args:
        model: A prepared float model; it is not changed.
        options: For the nodes to leave alone and ``per_tensor``.
        data: Samples; the first `SAMPLES` are used, one by one, as dynamic ranges depend on the batch.
        ranges: (low, high) by tensor name, as `static.write` takes them.
        at_outputs: Measure the loss at the model's outputs, too: one more run per node for `SAMPLES_AT_OUTPUTS`.
        weights: The integers that will be written; nearest rounding without them.
        advance: Called with 1 after each run of the model.

    Returns:
        One entry per weighted node that can run int8, in the order of the graph.

    Raises:
        DataError: the data does not fit the model.
    """
    specs = graph.input_specs(model)
    outputs = [value.name or "" for value in model.graph.outputs if value.dtype in FLOATS]
    copy = model.clone()
    gemms(copy)
    placement = place(copy, options.selects)
    if not placement.weighted:
        return []
    _Compared(copy, placement, options, ranges, weights, switched=at_outputs)
    sums, zero = np.zeros((len(placement.weighted), len(KINDS))), np.zeros(())
    signal, noise = np.zeros(len(outputs)), np.zeros((len(placement.weighted), len(outputs)))
    few = replace(data, limit=min(SAMPLES, data.limit or SAMPLES))
    turns = (
        batch | {SWITCH: np.array(index)}
        for position, batch in enumerate(few.batches(specs))
        for index in range(-1, len(placement.weighted) if at_outputs and position < SAMPLES_AT_OUTPUTS else 0)
    )
    float_run: Arrays = {}
    for feeds, (given,) in over([copy], turns):
        advance(1)
        index = int(feeds[SWITCH])
        if index < 0:
            float_run = given
            sums += [[given.get(_sum(node, kind), zero) for kind in KINDS] for node in placement.weighted]
            continue
        if index == 0:
            signal += [np.square(float_run[name], dtype=np.float64).sum() for name in outputs]
        noise[index] += [np.square(given[name] - float_run[name], dtype=np.float64).sum() for name in outputs]
    loss = (noise / np.where(signal > 0, signal, 1)).max(axis=1, initial=0)
    return [
        Sensitivity(
            node=node.name or "",
            op=node.op_type,
            weights=weights,
            static=static,
            dynamic=None if node.op_type == "Conv" else dynamic,
            at_outputs=float(at_end) if at_outputs else None,
        )
        for node, (weights, static, dynamic), at_end in zip(
            placement.weighted, (sums[:, 1:] / np.where(sums[:, :1] > 0, sums[:, :1], 1)).tolist(), loss, strict=True
        )
    ]


class _Compared(Twins):
    """Adds the twins of every weighted node to a graph, and the sums that compare them with it."""

    def __init__(
        self,
        model: ir.Model,
        placement: Placement,
        options: QuantizeOptions,
        ranges: Mapping[str, tuple[float, float]],
        weights: Weights | None,
        *,
        switched: bool,
    ) -> None:
        super().__init__(model, options, weights)
        self.switched = switched
        if switched:
            self.selected = ir.Value(name=SWITCH, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.INT64))
            self.graph.inputs.append(self.selected)
        ends = [ranges[placement.quantized[activation(node)].name or ""] for node in placement.weighted]
        for index, (node, low_high) in enumerate(zip(placement.weighted, ends, strict=True)):
            entering = activation(node)  # by now perhaps behind the switch of the node before
            inputs = {"weights": entering, "static": self.static(entering, low_high)}
            if node.op_type != "Conv":
                inputs["dynamic"] = self.dynamic(entering)
            self._compare(index, node, inputs)

    def _compare(self, index: int, node: ir.Node, inputs: Mapping[str, ir.Value]) -> None:
        stored = self.weight(node)
        output = activated(node.outputs[0])
        follower = output.producer()
        assert follower is not None  # noqa: S101 - the node, or the Relu behind it
        ends = {"signal": output}
        readers = [(use.node, use.idx) for use in output.uses()]
        for kind, entering in inputs.items():
            twin = self.copy(node, f"{node.name}_{kind}", {0: entering, 1: stored}, after=follower)
            if follower is not node:
                twin = self.copy(follower, f"{node.name}_{kind}_activated", {0: twin}, after=twin.producer())
            ends[kind] = self.add("Sub", [twin, output], f"{node.name}_{kind}_error", after=twin.producer())
            if kind == "static" and self.switched:
                self._switch(index, output, twin, readers)
        for kind, value in ends.items():
            name = _sum(node, kind)
            total = self.add("ReduceSumSquare", [value], name, after=value.producer(), attributes={"keepdims": 0})
            total.shape, total.type = ir.Shape([]), ir.TensorType(ir.DataType.FLOAT)
            self.graph.outputs.append(total)

    def _switch(self, index: int, output: ir.Value, twin: ir.Value, readers: Iterable[tuple[ir.Node, int]]) -> None:
        """Let the readers of a node see its twin when the switch says so."""
        number = graph.add_initializer(self.graph, f"onnxpress_index_{index}", np.array(index))
        chosen = self.add("Equal", [self.selected, number], f"{twin.name}_chosen", after=twin.producer())
        name = output.name
        either = self.add("Where", [chosen, twin, output], f"{twin.name}_either", after=chosen.producer())
        for reader, position in readers:
            reader.replace_input_with(position, either)
        for position, value in enumerate(self.graph.outputs):
            if value is output:
                output.name, either.name = f"{name}_float", name
                either.shape, either.type = output.shape, output.type
                self.graph.outputs[position] = either


def _sum(node: ir.Node, kind: str) -> str:
    return f"{node.name}_{kind}_sum"
