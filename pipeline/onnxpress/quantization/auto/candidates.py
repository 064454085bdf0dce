"""What can be chosen, layer by layer, and the model that follows from a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from onnxpress import graph, macs
from onnxpress.artifact import Edit, Skip
from onnxpress.quantization import dynamic, fp16, static
from onnxpress.quantization.dynamic import lstm_refusal
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.params import Array
from onnxpress.quantization.placement import Placement, place, refusal
from onnxpress.quantization.techniques.bias_correction import subtract
from onnxpress.quantization.weights import Weights

Choice = Literal["static", "dynamic", "fp16", "float"]
Assignment = Mapping[str, Choice]
"""Node name to choice; a node that is not named stays float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Nodes that are decided together: equal operators on equal shapes cost the same."""

    name: str
    nodes: tuple[str, ...]
    choices: tuple[Choice, ...]
    """All that the runtime has kernels for, ``float`` last."""
    macs: int
    """Multiply-accumulates of all its nodes together."""
    weighted: bool
    """Whether the nodes carry weights; only those have an error of their own that is worth ranking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Everything that can be made of one prepared model."""

    model: ir.Model
    """With `placement.gemms` applied; it is never changed."""
    ranges: Mapping[str, tuple[float, float]]
    """(low, high) of each tensor that any choice quantizes."""
    options: QuantizeOptions
    groups: tuple[Group, ...]

    shifts: Mapping[str, Array] = field(default_factory=dict)
    """What static int8 adds to a layer's output channels on average, by node name; its bias takes it back."""
    peaks: Mapping[str, float] = field(default_factory=dict)
    """Largest magnitude by tensor name; a layer that comes near the end of float16 does not become that."""
    weights: Weights = field(default_factory=Weights)
    """Integers that all candidates share."""

    def build(self, assignment: Assignment) -> Edit:
        """Return the model in which each node has what was chosen for it, and embedding tables are integers."""
        model = self.model.clone()

        def selects(name: str, choice: Choice) -> bool:
            return assignment[name] == choice if name in assignment else self.options.selects(name)

        placement = place(model, lambda name: selects(name, "static"))
        for node in placement.weighted:
            shift = self.shifts.get(node.name or "")
            if shift is not None:
                subtract(model, node, shift)
        first = static.write(model, placement, self.ranges, self.options, self.weights)
        second = dynamic.write(model, lambda name: assignment.get(name) == "dynamic", self.options, self.weights)
        changed = tuple(dict.fromkeys([*first.changed, *second.changed]))
        half = {name for name, choice in assignment.items() if choice == "fp16"}
        if half:
            others = {name for group in self.groups if group.weighted for name in group.nodes} - half
            changed += tuple(name for name in fp16.mix(model, half, others, self.peaks) if name not in changed)
        kept = [
            Skip(where=name, op="", reason="float is faster here, or needed for accuracy")
            for name in assignment
            if name not in changed
        ]
        return Edit(model=model, changed=changed, skipped=tuple(kept))


def groups(model: ir.Model, placement: Placement, options: QuantizeOptions) -> tuple[Group, ...]:
    """Return what is decided together, the groups with the most multiply-accumulates first.

    Args:
        model: The model that ``placement`` was made for, with everything placed that can be.
        placement: See above.
        options: For the nodes that the user excludes, and the provider.
    """
    members: dict[str, list[ir.Node]] = {}
    choices: dict[str, tuple[Choice, ...]] = {}
    floats: tuple[Choice, ...] = ("fp16", "float") if options.half else ("float",)
    for node in placement.weighted:
        members.setdefault(_signature(node), []).append(node)
        integers: tuple[Choice, ...] = ("static",) if node.op_type == "Conv" else ("static", "dynamic")
        choices[_signature(node)] = (*integers, *floats)
    carry = set(choices)
    for node in graph.nodes(model):
        dynamic_only = node.op_type == "LSTM" and node.domain in graph.ONNX_DOMAINS
        dynamic_only = dynamic_only and lstm_refusal(node, options.selects) is None
        inside = node.graph is not model.graph
        inner = inside and node.op_type in ("MatMul", "Gemm")
        if dynamic_only or (inner and refusal(node, options.selects) is None):
            members.setdefault(_signature(node), []).append(node)
            choices[_signature(node)] = ("dynamic", "float") if inside else ("dynamic", *floats)
            carry.add(_signature(node))
    for node in placement.others:
        members.setdefault(node.op_type, []).append(node)
        choices[node.op_type] = ("static", "float")
    found = [
        Group(
            name=name,
            nodes=tuple(node.name or "" for node in nodes),
            choices=choices[name],
            macs=sum(macs.of(node) or 0 for node in nodes),
            weighted=name in carry,
        )
        for name, nodes in members.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.macs))


def _signature(node: ir.Node) -> str:
    """Describe operator, weight and, for a convolution, the size of its output: what its time depends on."""
    facts = graph.weighted(node)
    weight = graph.shape(node.inputs[1 if facts is None else facts.weight]) or ()
    text = f"{node.op_type} {'x'.join(str(size) for size in weight)}"
    if node.op_type != "Conv":
        return text
    output = graph.shape(node.outputs[0]) or ()
    return f"{text} to {'x'.join('?' if size is None else str(size) for size in output[2:])}"
