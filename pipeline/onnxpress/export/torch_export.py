"""From PyTorch to ONNX with torch's own exporter (dynamo), and back to PyTorch for the verification.

torch names dynamic axes ``s77``; here they carry the words of the user. Metadata that the exporter stores with each
node (stack traces with the paths of this machine) is dropped: the same model gives the same file anywhere.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnx_ir.passes import common

from onnxpress.errors import ModelError
from onnxpress.export.account import account, first_line, user_line
from onnxpress.export.inputs import SYNTAX, InputArgument, choose_sizes, random_arrays
from onnxpress.graph import Array
from onnxpress.quiet import quiet

if TYPE_CHECKING:
    import torch

OPSET = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Something that PyTorch can run and export."""

    origin: str
    """What the user wrote."""
    module: torch.nn.Module
    arguments: tuple[InputArgument, ...]
    """The inputs. They are given by name where ``forward`` has parameters of these names, else in this order."""
    outputs: tuple[str, ...] = ()
    """Names of the outputs; empty for names that follow from what ``forward`` returns."""
    program: torch.export.ExportedProgram | None = None
    """An exported program is converted as it is; ``module`` runs it."""

    @property
    def by_name(self) -> bool:
        """Whether ``forward`` takes the inputs by name."""
        if self.program is not None:
            return False
        parameters = inspect.signature(self.module.forward).parameters
        return all(argument.name in parameters for argument in self.arguments)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Run on named arrays; return the output tensors in order."""
        return [array for _, array in self.named(feeds)]

    def named(self, feeds: Mapping[str, Array]) -> list[tuple[str, Array]]:
        """Run on named arrays; return the output tensors in order, each with a name."""
        import torch

        tensors = {argument.name: torch.from_numpy(feeds[argument.name]) for argument in self.arguments}
        args, kwargs = ((), tensors) if self.by_name else (tuple(tensors.values()), {})
        if self.program is not None:  # it knows which of them it takes by name
            args, kwargs = self.program.call_spec.in_spec.unflatten(tensors.values())
        with torch.no_grad(), quiet():
            result = self.module(*args, **kwargs)
        return [(name, tensor.numpy(force=True)) for name, tensor in _tensors("output", result)]


def trace_sizes(network: Network) -> dict[str, int]:
    """Return a size for each dynamic axis, such that the network runs.

    Raises:
        ModelError: it does not run; says on what, why and where.
    """
    try:
        return choose_sizes(network.arguments, network.run)
    except Exception as error:  # whatever the user's code raises
        place = user_line(error)
        raise ModelError(
            f"source {network.origin}: the model does not run on random inputs {' '.join(map(str, network.arguments))}"
            f"{f' at {place}' if place else ''}: {first_line(error)}. Describe its inputs with --input {SYNTAX}; "
            "WORD=SIZE sets the size to trace with."
        ) from error


def to_onnx(network: Network, sizes: Mapping[str, int], opset: int = OPSET) -> ir.Model:
    """Export a network with torch's exporter.

    Args:
        network: The network.
        sizes: For each dynamic axis a size to trace with; see `trace_sizes`.
        opset: The operator set to ask for; torch may choose a newer one.

    Raises:
        ModelError: torch cannot export it; says why, and where in the user's code.
    """
    import torch

    feeds = random_arrays(network.arguments, sizes)
    arguments = _in_order(network)
    tensors = {argument.name: torch.from_numpy(feeds[argument.name]) for argument in arguments}
    dynamic = {argument.name: _dynamic(argument) for argument in arguments}
    outputs = network.outputs or _unique([name for name, _ in network.named(feeds)])
    by_name = network.by_name
    exported = network.module if network.program is None else network.program
    try:
        with quiet():
            converted = torch.onnx.export(
                exported,
                () if by_name else tuple(tensors.values()),
                kwargs=tensors if by_name else None,
                dynamic_shapes=None if network.program else (dynamic if by_name else tuple(dynamic.values())),
                input_names=list(tensors),
                output_names=list(outputs),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch's own classes for this are private
        parameters = list(inspect.signature(network.module.forward).parameters)
        named = [argument.name for argument in arguments] if by_name else parameters[: len(arguments)]
        reason = account(error, named, arguments, lambda operator: _stacks(network, tensors, dynamic, operator))
        raise ModelError(f"source {network.origin}: PyTorch cannot export it: {reason}") from error
    assert converted is not None  # noqa: S101 - with dynamo it never is
    model: ir.Model = converted.model
    _name_axes(model, arguments, network.origin)
    common.ClearMetadataAndDocStringPass()(model)
    return model


def _in_order(network: Network) -> list[InputArgument]:
    """Return the inputs in the order in which ``forward`` names them."""
    if not network.by_name:
        return list(network.arguments)
    parameters = list(inspect.signature(network.module.forward).parameters)
    return sorted(network.arguments, key=lambda argument: parameters.index(argument.name))


def _dynamic(argument: InputArgument) -> dict[int, Any]:
    import torch

    return {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(argument.shape) if isinstance(size, str)}


def _tensors(name: str, result: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors in what ``forward`` returned, in the order in which torch exports them, each with a name."""
    import torch

    if isinstance(result, torch.Tensor):
        yield name, result
    elif isinstance(result, Mapping):
        for key, value in result.items():
            yield from _tensors(str(key), value)
    elif isinstance(result, (tuple, list)):
        names = getattr(result, "_fields", [f"{name}_{index}" for index in range(len(result))])
        for key, value in zip(names, result, strict=True):
            yield from _tensors(key, value)


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)]


def _name_axes(model: ir.Model, arguments: Sequence[InputArgument], origin: str) -> None:
    """Give the dynamic axes the user's words, also where they are part of an expression (``s77 + 1``)."""
    words: dict[str, str] = {}
    for value, argument in zip(model.graph.inputs, arguments, strict=True):
        for axis, (found, word) in enumerate(zip(value.shape or (), argument.shape, strict=True)):
            if not isinstance(word, str):
                continue
            if isinstance(found, int):
                raise ModelError(
                    f"source {origin}: the export fixes the dynamic axis {word!r} (axis {axis} of input "
                    f"{argument.name!r}) at {found}. Change the code, or write the number instead of the word."
                )
            if words.setdefault(str(found), word) != word:
                raise ModelError(
                    f"source {origin}: the model makes the axes {words[str(found)]!r} and {word!r} equal. "
                    "Use one word for both in --input."
                )
    symbol = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, words)) + r")(?!\w)")
    for graph in model.graphs():
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
            if words and value.shape is not None:
                value.shape = ir.Shape(
                    [
                        axis if isinstance(axis, int) else symbol.sub(lambda found: words[found[0]], str(axis))
                        for axis in value.shape
                    ]
                )


def _stacks(network: Network, tensors: Mapping[str, Any], dynamic: Mapping[str, Any], operator: str) -> list[str]:
    """Return the stack traces of the calls of an operator; the exporter's error does not have them."""
    import torch

    program = network.program
    if program is None:
        try:
            with quiet():
                program = torch.export.export(
                    network.module,
                    () if network.by_name else tuple(tensors.values()),
                    dict(tensors) if network.by_name else None,
                    dynamic_shapes=dict(dynamic) if network.by_name else tuple(dynamic.values()),
                )
        except Exception:  # the account of the first failure is what counts
            return []
    return [node.meta.get("stack_trace") or "" for node in program.graph.nodes if str(node.target).startswith(operator)]
