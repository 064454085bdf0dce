"""float16: half the bytes; on GPUs faster, on CPUs computed in float32 all the same.

Every node that the runtime has a float16 form of is converted, except where float16 would overflow: its largest number
is 65504. A node stays float32 when a tensor that it reads or writes came within `MARGIN` of that in the statistics.
What sums or raises to powers (`FRAGILE`) stays float32 unless they show that it is safe. Weights are stored as
float16 everywhere; a node in float32 reads them through a Cast that onnxruntime computes once, when it loads the model.
Layers that are int8 already stay as they are, and so does what reads or writes a value of unknown type.

Peers convert blindly (onnxconverter-common), or guard with data, but only for TensorRT (ModelOpt AutoCast).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress import graph
from onnxpress.artifact import Edit, Skip
from onnxpress.quantization.forms import Form, half_form, is_float
from onnxpress.quantization.kernels import CONVERSIONS, INT8
from onnxpress.quantization.layers import layers
from onnxpress.quantization.placement import remove_unused
from onnxpress_calibration.profile import Profile

LARGEST = float(np.finfo(np.float16).max)
MARGIN = 2.0
"""Statistics are of samples: other inputs may go this much further."""
FRAGILE = frozenset(
    {
        "CumSum",
        "Exp",
        "Pow",
        "Reciprocal",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    }
)
KEPT = frozenset(
    {
        "BitCast",
        "Cast",
        "CastLike",
        "ConstantOfShape",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "EyeLike",
        "If",
        "Loop",
        "QuantizeLinear",
        "Scan",
        "SequenceMap",
    }
)
"""Their types are attributes, bits, or those of bodies or scales."""
MIN_SIZE = 64
"""Smaller weights of float32 nodes stay float32: a Cast is not worth it."""


def write(model: ir.Model, selects: Callable[[str], bool], peaks: Mapping[str, float], *, keep_io: bool = True) -> Edit:
    """Convert a prepared model to float16, in place.

    Args:
        model: A prepared float32 model.
        selects: Tells from a node's name whether it may be converted.
        peaks: Largest magnitude by tensor name, of the tensors whose statistics are known; may be empty.
        keep_io: Leave inputs and outputs of the model float32.

    Returns:
        The model, the names of the converted nodes, and what stayed float32 (or was clamped) with the reason.
    """
    writer = _Writer(model, integer=_integer(model))
    changed, skipped = [], []
    for node in list(model.graph):
        found = _form(node, selects, peaks, model)
        if isinstance(found, Form) and node in writer.integer:
            found = "part of an int8 layer, which float16 would take apart"
        if isinstance(found, Form):
            writer.half[node] = found
            changed.append(node.name or "")
        elif found:
            skipped.append(Skip(where=node.name or "", op=node.op_type, reason=found))
    if not keep_io:
        writer.half_inputs()
    for node in list(graph.nodes(model)):
        writer.convert(node)
    writer.outputs(keep_io=keep_io)
    remove_unused(model)
    skipped += [
        Skip(where=name, op="weight", reason=f"reaches {peak:.3g}; clamped to ±{LARGEST:g}, float16's largest number")
        for name, peak in writer.clamped.items()
    ]
    facts = {"float16_nodes": len(changed), "float32_nodes": sum(1 for _ in graph.nodes(model)) - len(changed)}
    return Edit(model=model, changed=(*changed, *writer.stored), skipped=tuple(skipped), facts=facts)


def mix(model: ir.Model, layers: Collection[str], others: Collection[str], peaks: Mapping[str, float]) -> list[str]:
    """Convert some layers of a model that may hold int8 already, in place; all else stays as it is.

    What reads nothing but float16 follows (Relu, Add, LayerNormalization, ...), so that values are converted where a
    chain of such layers begins and ends, not in between.

    Args:
        model: A prepared model, after `static.write` and `dynamic.write`.
        layers: Names of nodes in the main graph that are to be float16.
        others: Names of those that are not to follow.
        peaks: See `write`.

    Returns:
        The names of the converted nodes; a layer that could overflow stays float32.
    """
    writer = _Writer(model, everything=False)
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and node.outputs[0].dtype is None:
            node.outputs[0].dtype = ir.DataType.FLOAT  # the writers of int8 leave types to the runtime
        computed = [value for value in _floats(node.inputs) if graph.constant_tensor(value) is None]
        follows = bool(computed) and all(value.producer() in writer.half for value in computed)
        wanted = node.name in layers or (follows and node.name not in others)
        if wanted and isinstance(found := _form(node, lambda _: True, peaks, model), Form):
            writer.half[node] = found
    for node in list(graph.nodes(model)):
        writer.convert(node)
    writer.outputs(keep_io=True)
    remove_unused(model)
    return [node.name or "" for node in writer.half]


def peaks(collected: Profile | None) -> dict[str, float]:
    """Return the largest magnitude of each tensor that was measured."""
    known = {} if collected is None else collected.tensors
    return {name: max(abs(each.low), abs(each.high)) for name, each in known.items() if each.count}


def measured(model: ir.Model) -> list[str]:
    """Return the tensors whose range matters: every computed float32 tensor of the main graph."""
    return [
        value.name or ""
        for node in model.graph
        for value in node.outputs
        if is_float(value) and (value.uses() or value.is_graph_output())
    ]


def _form(node: ir.Node, selects: Callable[[str], bool], peaks: Mapping[str, float], model: ir.Model) -> Form | str:
    """Return a node's form in float16, or why it stays float32; "" when it has nothing to convert."""
    present = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    values, unknown = _floats(present), [value for value in present if value.type is None]
    if node.op_type in KEPT:
        return ""
    if not values and not unknown:
        wide = any(value.dtype == ir.DataType.DOUBLE for value in present)
        return "it computes in float64, not in float32" if wide else ""
    if not selects(node.name or ""):
        return "excluded by include/exclude"
    if unknown:
        return f"the type of {unknown[0].name} is not known"
    form = half_form(node, model)
    if form is None:
        return "it has no float16 form"
    computed = [value for value in values if graph.constant_tensor(value) is None]
    for value in computed:
        peak = peaks.get(value.name or "", 0.0)
        if peak * MARGIN > LARGEST:
            return f"tensor {value.name} reaches {peak:.3g}; float16 ends at {LARGEST:g}"
    if node.op_type in FRAGILE and any((value.name or "") not in peaks for value in computed):
        return "may overflow, and no statistics show that it does not (--calibration)"
    return form


def _floats(values: Sequence[ir.Value | None]) -> list[ir.Value]:
    return [value for value in values if value is not None and is_float(value)]


def _integer(model: ir.Model) -> set[ir.Node]:
    """Return the nodes of int8 layers: what computes on integers, what converts to and from them and what is beside."""
    found = {node for node in graph.nodes(model) if node.op_type in INT8 | CONVERSIONS}
    behind = {name for layer in layers(model) if layer.stored == "integers" for name in layer.results}
    beside = {reader for node in found for value in node.outputs for reader in graph.consumers(value)}
    for node in graph.nodes(model):
        if any(value.name in behind or found.intersection(graph.consumers(value)) for value in node.outputs):
            beside.add(node)
    return found | beside


class _Writer:
    """Converts values where they are read; each conversion exists once.

    Args:
        model: The model.
        everything: Store the weights of float32 nodes as float16, too.
        integer: Nodes that nothing is changed of; they only never read float16.
    """

    def __init__(self, model: ir.Model, *, everything: bool = True, integer: Collection[ir.Node] = ()) -> None:
        self.model = model
        self.everything = everything
        self.integer = integer
        self.main = model.graph
        self.half: dict[ir.Node, Form] = {}
        self.halved: set[ir.Value] = set()
        """What was float32 and is float16; what was float16 before stays as it is."""
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.stored: list[str] = []
        self.clamped: dict[str, float] = {}

    def half_inputs(self) -> None:
        """Make the model's float32 inputs float16."""
        for value in _floats(tuple(self.main.inputs)):
            self._halve(value)

    def convert(self, node: ir.Node) -> None:
        """Let a node read and write the type that was decided for it."""
        form = self.half.get(node)
        for index, value in enumerate(node.inputs):
            if value is None or (value not in self.halved and (not is_float(value) or node in self.integer)):
                continue
            is_half = form is not None and form.reads[index]
            node.replace_input_with(index, self._as(value, ir.DataType.FLOAT16 if is_half else ir.DataType.FLOAT))
        for output, is_half in zip(node.outputs, () if form is None else form.writes, strict=form is not None):
            if is_half:
                self._halve(output)

    def outputs(self, *, keep_io: bool) -> None:
        """Give the model's outputs their type, under their names."""
        target = ir.DataType.FLOAT if keep_io else ir.DataType.FLOAT16
        for index, value in enumerate(list(self.main.outputs)):
            if (value in self.halved) if keep_io else is_float(value):
                name = value.name
                value.name = f"{name}_{(value.dtype or target).name.lower()}"
                cast = self._as(value, target)
                cast.name, cast.shape = name, value.shape
                self.main.outputs[index] = cast

    def _halve(self, value: ir.Value) -> None:
        value.type = ir.TensorType(ir.DataType.FLOAT16)  # a new type: clones of a model share theirs
        self.halved.add(value)

    def _as(self, value: ir.Value, target: ir.DataType) -> ir.Value:
        """Return a value in a type."""
        constant = graph.constant_tensor(value)
        if constant is not None and constant.dtype == ir.DataType.FLOAT:
            unchanged = not self.everything or constant.size < MIN_SIZE or _peak(constant) > LARGEST
            if target == ir.DataType.FLOAT and unchanged:
                return value
            stored = self._stored(value, constant)
            return stored if target == ir.DataType.FLOAT16 else self._cast(stored, target)
        return value if value.dtype == target else self._cast(value, target)

    def _stored(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        name = f"{value.name}_fp16"
        if name not in self.main.initializers:
            array, peak = tensor.numpy(), _peak(tensor)
            if peak > LARGEST:
                self.clamped[value.name or ""] = peak
                array = np.where(np.isinf(array), array, np.clip(array, -LARGEST, LARGEST))
            self.stored.append(value.name or "")
            return graph.add_initializer(self.main, name, array.astype(np.float16))
        return self.main.initializers[name]

    def _cast(self, value: ir.Value, target: ir.DataType) -> ir.Value:
        """Cast a value behind what makes it, so that bodies see the result, too."""
        if (value, target) not in self.casts:
            cast = ir.node("Cast", [value], {"to": int(target)}, name=f"{value.name}_{target.name.lower()}")
            result = cast.outputs[0]
            result.name, result.shape, result.type = cast.name, value.shape, ir.TensorType(target)
            producer = value.producer()
            if producer is not None and producer.graph is not None:
                producer.graph.insert_after(producer, cast)
            else:
                self.main.insert_before(self.main[0], cast)
            self.casts[value, target] = result
        return self.casts[value, target]


def _peak(tensor: ir.TensorProtocol) -> float:
    """Return the largest finite magnitude."""
    array = tensor.numpy()
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))
