"""Which layers lose how much: the error that quantizing each weighted node alone makes, all nodes in one pass.

Beside every weighted node the graph gets *twins* of it: the same operator with int8 weights and int8 input, rounded and
turned back to float. A run then compares each node with its twins on the float model's own activations, and hands back
two sums per twin instead of tensors. For the error at the model's outputs a switch lets one twin at a time take its
node's place, in the same session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import activation_params, dequantize_weight, quantize_weight
from onnxpress.quantization.placement import Placement, activated, gemms, place
from onnxpress.session import Arrays, SessionOptions, open_session, run
from onnxpress_calibration.dataset import LABELS, Dataset

SAMPLES = 16
"""Errors are averages over all elements of a tensor: a few samples tell as much as many."""
SAMPLES_AT_OUTPUTS = 4
"""Each takes one run per node."""
SWITCH = "onnxpress_switch"
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
    advance: Callable[[int], object] = lambda runs: None,  # noqa: ARG005
) -> list[Sensitivity]:
    """Measure what quantizing each weighted node alone loses.

    Args:
        model: A prepared float model; it is not changed.
        options: For the nodes to leave alone and ``per_tensor``.
        data: Samples; the first `SAMPLES` are used, one by one, as dynamic ranges depend on the batch.
        ranges: (low, high) by tensor name, as `static.write` takes them.
        at_outputs: Measure the loss at the model's outputs, too: one more run per node for `SAMPLES_AT_OUTPUTS`.
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
    twins = _Twins(copy, placement, options, ranges, switched=at_outputs)
    session = open_session(copy, SessionOptions())
    sums, zero = np.zeros((len(placement.weighted), len(KINDS))), np.zeros(())
    signal, noise = np.zeros(len(outputs)), np.zeros((len(placement.weighted), len(outputs)))
    few = replace(data, limit=min(SAMPLES, data.limit or SAMPLES))
    for position, batch in enumerate(few.batches(specs, 1)):
        feeds = {name: value for name, value in batch.items() if name != LABELS}
        float_run = run(session, feeds | twins.switch(None))
        advance(1)
        sums += [[float_run.get(_sum(node, kind), zero) for kind in KINDS] for node in placement.weighted]
        if not at_outputs or position >= SAMPLES_AT_OUTPUTS:
            continue
        signal += [np.square(float_run[name], dtype=np.float64).sum() for name in outputs]
        for index in range(len(placement.weighted)):
            given = run(session, feeds | twins.switch(index))
            advance(1)
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


class _Twins:
    """Adds the twins of every weighted node to a graph, and the sums that compare them with it."""

    def __init__(
        self,
        model: ir.Model,
        placement: Placement,
        options: QuantizeOptions,
        ranges: Mapping[str, tuple[float, float]],
        *,
        switched: bool,
    ) -> None:
        self.graph = model.graph
        self.switched = switched
        self.rounded: dict[tuple[ir.Value, str], ir.Value] = {}
        if switched:
            self.selected = ir.Value(name=SWITCH, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.INT64))
            self.graph.inputs.append(self.selected)
        ends = [ranges[placement.quantized[_activation(node)].name or ""] for node in placement.weighted]
        for index, (node, low_high) in enumerate(zip(placement.weighted, ends, strict=True)):
            entering = _activation(node)  # by now perhaps behind the switch of the node before
            inputs = {"weights": entering, "static": self._static(entering, low_high)}
            if node.op_type != "Conv":
                inputs["dynamic"] = self._dynamic(entering)
            self._compare(index, node, inputs, per_tensor=options.per_tensor)

    def switch(self, index: int | None) -> Arrays:
        """Return what feeds the switch: the node whose static twin takes its place, or None for the float model."""
        return {SWITCH: np.array(-1 if index is None else index)} if self.switched else {}

    def _compare(self, index: int, node: ir.Node, inputs: Mapping[str, ir.Value], *, per_tensor: bool) -> None:
        facts = graph.weighted(node)
        weight = None if facts is None else graph.constant(node.inputs[facts.weight])
        assert facts is not None and weight is not None  # noqa: S101 - placement chose it for that
        axis = None if per_tensor else facts.out_axis
        rounded = dequantize_weight(*quantize_weight(weight, axis), axis)
        stored = graph.add_initializer(self.graph, f"{node.name}_twin_weight", rounded)
        output = activated(node.outputs[0])
        follower = output.producer()
        assert follower is not None  # noqa: S101 - the node, or the Relu behind it
        ends = {"signal": output}
        readers = [(use.node, use.idx) for use in output.uses()]
        for kind, entering in inputs.items():
            twin = self._copy(node, f"{node.name}_{kind}", {0: entering, facts.weight: stored}, after=follower)
            if follower is not node:
                twin = self._copy(follower, f"{node.name}_{kind}_activated", {0: twin}, after=twin.producer())
            ends[kind] = self._add("Sub", [twin, output], f"{node.name}_{kind}_error", after=twin.producer())
            if kind == "static" and self.switched:
                self._switch(index, output, twin, readers)
        for kind, value in ends.items():
            name = _sum(node, kind)
            total = self._add("ReduceSumSquare", [value], name, after=value.producer(), attributes={"keepdims": 0})
            total.shape, total.type = ir.Shape([]), ir.TensorType(ir.DataType.FLOAT)
            self.graph.outputs.append(total)

    def _switch(self, index: int, output: ir.Value, twin: ir.Value, readers: Iterable[tuple[ir.Node, int]]) -> None:
        """Let the readers of a node see its twin when the switch says so."""
        number = graph.add_initializer(self.graph, f"onnxpress_index_{index}", np.array(index))
        chosen = self._add("Equal", [self.selected, number], f"{twin.name}_chosen", after=twin.producer())
        name = output.name
        either = self._add("Where", [chosen, twin, output], f"{twin.name}_either", after=chosen.producer())
        for reader, position in readers:
            reader.replace_input_with(position, either)
        for position, value in enumerate(self.graph.outputs):
            if value is output:
                output.name, either.name = f"{name}_float", name
                either.shape, either.type = output.shape, output.type
                self.graph.outputs[position] = either

    def _static(self, value: ir.Value, ends: tuple[float, float]) -> ir.Value:
        """Return a value rounded to the uint8 grid of a range."""
        if (value, "static") not in self.rounded:
            params, name = activation_params(*ends), f"{value.name}_static"
            scale = graph.add_initializer(self.graph, f"{name}_s", np.asarray(params.scale))
            zero = graph.add_initializer(self.graph, f"{name}_z", np.asarray(params.zero_point))
            integers = self._add("QuantizeLinear", [value, scale, zero], f"{name}_q", after=value.producer())
            self.rounded[value, "static"] = self._add(
                "DequantizeLinear", [integers, scale, zero], f"{name}_dq", after=integers.producer()
            )
        return self.rounded[value, "static"]

    def _dynamic(self, value: ir.Value) -> ir.Value:
        """Return a value rounded to the uint8 grid of its own range."""
        if (value, "dynamic") not in self.rounded:
            name = f"{value.name}_dynamic"
            made = self._add("DynamicQuantizeLinear", [value], f"{name}_q", after=value.producer(), outputs=3)
            node = made.producer()
            assert node is not None  # noqa: S101
            self.rounded[value, "dynamic"] = self._add("DequantizeLinear", node.outputs, f"{name}_dq", after=node)
        return self.rounded[value, "dynamic"]

    def _copy(self, node: ir.Node, name: str, replaced: Mapping[int, ir.Value], *, after: ir.Node | None) -> ir.Value:
        """Add the same operator with some inputs replaced."""
        inputs = [replaced.get(index, value) for index, value in enumerate(node.inputs)]
        return self._add(node.op_type, inputs, name, after=after, attributes=dict(node.attributes))

    def _add(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        after: ir.Node | None,
        attributes: Mapping[str, Any] | None = None,
        outputs: int = 1,
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes, num_outputs=outputs, name=name)
        for position, value in enumerate(node.outputs):
            value.name = name if position == 0 else f"{name}_{position}"
        if after is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(after, node)
        return node.outputs[0]


def _sum(node: ir.Node, kind: str) -> str:
    return f"{node.name}_{kind}_sum"


def _activation(node: ir.Node) -> ir.Value:
    """Return what a weighted node multiplies its weight with."""
    value = node.inputs[0]
    assert value is not None  # noqa: S101 - the operator requires it
    return value
