"""An ONNX graph as a PyTorch module: its weights are parameters, and gradients flow from the outputs to them.

Only what leads to the wanted tensors is run. Shapes are whatever the inputs say: nothing is traced. Operators are
`onnxpress.distillation.operators`; one that is not there may still stand before the first weight, where no gradient is
needed: there onnx's reference evaluator runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from onnxpress import graph
from onnxpress.distillation.operators import OPERATORS
from onnxpress.distillation.operators.facts import Function, Unsupported
from onnxpress.distillation.weights import QuantizedBias, QuantizedWeight, channels_last, is_quantized, quantized
from onnxpress.errors import ModelError

LEARNED = {
    "Add": (0, 1),
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Div": (0, 1),
    "GRU": (1, 2, 3),
    "Gather": (0,),
    "Gemm": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "Mul": (0, 1),
    "PRelu": (1,),
    "QuantizeLinear": (0,),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "Sub": (0, 1),
}
"""Inputs at which a float initializer is a weight; elsewhere it is a constant of the computation."""
POINTWISE = ("Add", "Div", "Mul", "Sub")
MASK = 1e3
"""Larger values in a sum mask attention scores; no weight or bias is that large."""
NUMBERS = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
}
"""Inputs that are read as Python numbers: on a GPU they are kept on the host, where reading them waits for nothing."""
SIZES = ("Shape", "Size")
FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One node, ready to run: places of its inputs and outputs in the list of values."""

    node: ir.Node
    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    last_read: tuple[int, ...]
    """Values that no later step reads."""
    from_host: tuple[int, ...]
    """Positions among the inputs that are computed on the host but needed on the device."""


class Interpreter(nn.Module):
    """A model as a module: ``interpreter(feeds)`` gives its outputs, and the watched tensors, by name.

    ``weights`` maps the names of float initializers to parameters; quantized weights are `quantized`.
    """

    def __init__(self, model: ir.Model, *, watch: Sequence[str] = (), outputs: Sequence[str] | None = None) -> None:
        """Read a graph; it is not changed, and not needed later.

        Args:
            model: A prepared model (operator set 13 or newer).
            watch: Names of further tensors to give.
            outputs: Names of the outputs to give; all by default.

        Raises:
            ModelError: an operator on the way from a weight to a wanted tensor is not supported, or there is no tensor
                of a name.
        """
        super().__init__()
        if graph.opset(model) < 13:
            raise ModelError(f"opset {graph.opset(model)}: is older than 13. Convert it with `compress export` first.")
        self.inputs = tuple(value.name or "" for value in graph.inputs(model))
        named = {value.name: value for value in _values(model.graph)}
        chosen = [value.name or "" for value in model.graph.outputs] if outputs is None else list(outputs)
        self.wanted = tuple(dict.fromkeys([*chosen, *watch]))
        missing = [name for name in self.wanted if name not in named]
        if missing:
            raise ModelError(f"tensor {missing[0]!r}: the model has none of this name. See `compress inspect`.")
        nodes = _needed(model.graph, [named[name] for name in self.wanted])
        self._parameters_of(nodes)
        self._compile(nodes, [named[name] for name in self.wanted])

    def forward(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            feeds: A tensor for each input of the model.

        Raises:
            ModelError: a node fails on these shapes.
        """
        values: list[Any] = list(self._template)
        for name, place in self._input_places.items():
            values[place] = channels_last(feeds[name]) if self._has_images else feeds[name]
        device = next(iter(feeds.values())).device if feeds else torch.device("cpu")
        step = None
        try:
            for step in self._steps:
                arguments = [values[place] for place in step.inputs]
                if device.type != "cpu":
                    for index in step.from_host:
                        arguments[index] = arguments[index].to(device)
                made = step.function(*arguments)
                if len(step.outputs) == 1:
                    values[step.outputs[0]] = made[0] if isinstance(made, (tuple, list)) else made
                else:
                    for place, each in zip(step.outputs, made, strict=False):
                        values[place] = each
                for place in step.last_read:
                    values[place] = None
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            where = "" if step is None else f"node {step.node.name!r} ({step.node.op_type}): "
            raise ModelError(f"{where}fails in PyTorch ({' '.join(str(error).split())[:300]}).") from error
        return {name: values[place] for name, place in self._output_places.items()}

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Parameters by the name of their initializer, quantized ones left out."""
        return dict(zip(self._weight_names, self._weights, strict=True))

    @property
    def quantized(self) -> list[QuantizedWeight | QuantizedBias]:
        """The quantized weights and biases, in the order of the graph."""
        return [module for module in self._quantized if isinstance(module, (QuantizedWeight, QuantizedBias))]

    def _parameters_of(self, nodes: list[ir.Node]) -> None:
        """Make a parameter of each initializer that is a weight."""
        found = dict.fromkeys(
            value
            for node in nodes
            if node.domain in graph.ONNX_DOMAINS and not is_quantized(node)
            for index in LEARNED.get(node.op_type, ())
            if index < len(node.inputs) and (value := node.inputs[index]) is not None and _is_weight(node, value)
        )
        self._weight_values = list(found)
        self._weight_names = [value.name or "" for value in found]
        arrays = [graph.constant(value) for value in found]
        self._weights = nn.ParameterList(
            nn.Parameter(channels_last(_tensor(array))) for array in arrays if array is not None
        )
        self._quantized = nn.ModuleList()

    def _compile(self, nodes: list[ir.Node], wanted: list[ir.Value]) -> None:
        """Give every value a place in a list, and turn every node into a step that reads and writes places."""
        places: dict[tuple[ir.Value | None, bool], int] = {(None, False): 0, (None, True): 0}
        self._template: list[Any] = [None]
        self._device_constants: list[int] = []
        host: set[ir.Value] = set()
        learned: set[ir.Value] = set(self._weight_values)

        def place(value: ir.Value | None, *, on_host: bool = False) -> int:
            tensor = graph.constant_tensor(value)
            key = value, on_host and tensor is not None
            if key not in places:
                places[key] = len(self._template)
                self._template.append(None if tensor is None else _tensor(tensor.numpy()))
                if tensor is not None and not on_host:
                    self._device_constants.append(places[key])
            return places[key]

        for value, parameter in zip(self._weight_values, self._weights, strict=True):
            places[value, False] = len(self._template)
            self._template.append(parameter)
        steps: list[_Step] = []
        for node in nodes:
            function = self._function(node, learned)
            computed = isinstance(function, (QuantizedWeight, QuantizedBias))
            read = () if computed else node.inputs
            if computed or learned.intersection(value for value in node.inputs if value is not None):
                learned.update(node.outputs)
            numbers = NUMBERS.get(node.op_type, ())
            on_host = not computed and node.op_type not in SIZES and _on_host(node, host)
            if on_host or node.op_type in SIZES:
                host.update(node.outputs)
            steps.append(
                _Step(
                    node=node,
                    function=function,
                    inputs=tuple(place(value, on_host=on_host or i in numbers) for i, value in enumerate(read)),
                    outputs=tuple(place(value) for value in node.outputs),
                    last_read=(),
                    from_host=tuple(
                        i for i, value in enumerate(read) if value in host and not on_host and i not in numbers
                    ),
                )
            )
        self._input_places = {name: places[v, False] for v, _ in list(places) if v and (name := v.name) in self.inputs}
        self._has_images = any(parameter.ndim == 4 for parameter in self.parameters())
        self._output_places = {value.name or "": place(value) for value in wanted}
        self._steps = _released(steps, keep={*self._output_places.values()}, template=self._template)

    def _function(self, node: ir.Node, learned: set[ir.Value]) -> Function:
        """Return what computes a node."""
        if is_quantized(node):
            self._quantized.append(quantized(node))
            return self._quantized[-1]
        reason = "is not supported"
        if node.domain in graph.ONNX_DOMAINS and node.op_type in OPERATORS:
            try:
                return OPERATORS[node.op_type](node)
            except Unsupported as error:
                reason = str(error)
        if graph.subgraphs(node) or learned.intersection(value for value in node.inputs if value is not None):
            name = node.op_type if node.domain in graph.ONNX_DOMAINS else f"{node.domain}::{node.op_type}"
            raise ModelError(
                f"node {node.name!r}: {name} {reason}, and weights lie behind or before it. It cannot be trained "
                "through."
            )
        return _frozen(node)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Interpreter:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for place in self._device_constants:
            self._template[place] = fn(self._template[place])
        return self


def _values(main: ir.Graph) -> Iterable[ir.Value]:
    yield from main.inputs
    yield from main.initializers.values()
    for node in main:
        yield from node.outputs


def _needed(main: ir.Graph, wanted: Iterable[ir.Value]) -> list[ir.Node]:
    """Return the nodes that the wanted values depend on, in the order of the graph (constants are no nodes here)."""
    todo = [value.producer() for value in wanted]
    found: set[ir.Node] = set()
    while todo:
        node = todo.pop()
        if node is None or node in found or node.op_type == "Constant":
            continue
        found.add(node)
        todo += [] if is_quantized(node) else [value.producer() for value in node.inputs if value is not None]
    return [node for node in main if node in found]


def _is_weight(node: ir.Node, value: ir.Value) -> bool:
    """Tell whether a constant input is something to learn."""
    tensor = graph.constant_tensor(value)
    if tensor is None or tensor.dtype not in FLOATS or tensor.size < 2:
        return False
    if node.op_type not in POINTWISE:
        return True
    others = [other for other in node.inputs if other is not value]
    if any(other is not None and other.is_graph_input() for other in others):
        return False  # it prepares the input (mean, standard deviation)
    array = tensor.numpy()
    return bool(np.isfinite(array).all() and np.abs(array).max() < MASK)


def _on_host(node: ir.Node, host: set[ir.Value]) -> bool:
    """Tell whether a node computes with sizes: integers that come from shapes and constants alone."""
    tensors = [(value, graph.constant_tensor(value)) for value in node.inputs if value is not None]
    return all(
        value in host or (tensor is not None and tensor.dtype not in FLOATS and tensor.size < 64)
        for value, tensor in tensors
    )


def _tensor(array: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    """Copy an array into a tensor; four-bit and similar integers become int8 or uint8."""
    if array.dtype.kind == "V" or array.dtype.name in ("int4", "uint4", "int2", "uint2"):
        array = array.astype("float32" if "float" in array.dtype.name else "int8")
    return torch.from_numpy(np.array(array, order="C"))


def _frozen(node: ir.Node) -> Function:
    """Return a function that runs a node without gradients, by onnx's reference evaluator."""
    copies = [None if value is None else ir.Value(name=f"i{i}") for i, value in enumerate(node.inputs)]
    outputs = [ir.Value(name=f"o{i}") for i in range(len(node.outputs))]
    alone = ir.Node(node.domain, node.op_type, copies, node.attributes.values(), outputs=outputs)
    opsets = node.graph.opset_imports if node.graph is not None else {}
    main = ir.Graph([value for value in copies if value], outputs, nodes=[alone], opset_imports=opsets)
    proto = ir.to_proto(ir.Model(main, ir_version=10))
    assert isinstance(proto, onnx.ModelProto)  # noqa: S101
    evaluator = ReferenceEvaluator(proto)

    def run(*tensors: Tensor | None) -> tuple[Tensor, ...]:
        feeds = {f"i{i}": each.cpu().numpy() for i, each in enumerate(tensors) if each is not None}
        device = next((each.device for each in tensors if each is not None), torch.device("cpu"))
        return tuple(_tensor(np.asarray(value)).to(device) for value in evaluator.run(None, feeds))

    return run


def _released(steps: list[_Step], *, keep: set[int], template: list[Any]) -> list[_Step]:
    """Note for each step which computed values nobody reads after it, so that their memory is free again."""
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        last.update(dict.fromkeys((*step.inputs, *step.outputs), index))
    gone: list[list[int]] = [[] for _ in steps]
    for place, index in last.items():
        if place and place not in keep and template[place] is None:
            gone[index].append(place)
    return [
        _Step(
            node=step.node,
            function=step.function,
            inputs=step.inputs,
            outputs=step.outputs,
            last_read=tuple(free),
            from_host=step.from_host,
        )
        for step, free in zip(steps, gone, strict=True)
    ]
