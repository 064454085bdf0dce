"""Where a PyTorch model comes from: a reference model, a factory in the user's code, or an exported program."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

import onnxpress_models
from onnxpress.errors import DataError, ModelError, UsageError, did_you_mean
from onnxpress.export import programs
from onnxpress.export.account import first_line, user_line
from onnxpress.export.inputs import DTYPES, SYNTAX, InputArgument, parse
from onnxpress.export.torch_export import Network
from onnxpress.export.weights import load_weights
from onnxpress.quiet import quiet
from onnxpress_calibration.sources.function import load_function

if TYPE_CHECKING:
    import torch

ZOO = "zoo:"
HOW = f"Describe each input with --input {SYNTAX}."


@contextmanager
def users_path(source: str) -> Iterator[None]:
    """Let the user's code import its neighbours while it is loaded and run; its folder comes first, as with ``python``.

    A package of theirs named like anything of ours wins: ours are imported by other names. A program and a reference
    model need no code, and none is imported that lies beside them.
    """
    if source.startswith(ZOO) or source.endswith(".pt2"):
        yield
        return
    where = source.rpartition(":")[0]
    folder = str(Path(where).resolve().parent if where.endswith(".py") else Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def network(source: str, inputs: Sequence[str] = (), weights: str | None = None) -> Network:
    """Load a PyTorch source of any kind; call it within `users_path`.

    Raises:
        UsageError: see `reference_model`, `factory_model` and `exported_program`.
        ModelError: likewise.
    """
    if source.startswith(ZOO):
        return reference_model(source, inputs, weights)
    if not source.endswith(".pt2"):
        return factory_model(source, inputs, weights)
    if weights is not None:
        raise UsageError(f"source {source}: --weights does not go with a program, which holds its own.")
    return exported_program(source, inputs)


def reference_model(source: str, inputs: Sequence[str], weights: str | None) -> Network:
    """Load ``zoo:NAME``.

    Raises:
        UsageError: there is no such model, or inputs were given.
    """
    name = source.removeprefix(ZOO)
    if name not in onnxpress_models.names():
        raise UsageError(f"source {source}: no such reference model.{did_you_mean(name, onnxpress_models.names())}")
    described = onnxpress_models.model(name)
    module = onnxpress_models.load(name)
    if weights is not None:
        load_weights(module, Path(weights))
    arguments = [parse(text) for text in inputs or (f"{key}:{value}" for key, value in described.INPUTS.items())]
    return Network(origin=source, module=module, arguments=tuple(arguments), outputs=tuple(described.OUTPUTS))


def factory_model(source: str, inputs: Sequence[str], weights: str | None) -> Network:
    """Call ``module:factory`` or ``file.py:factory``; a module object of that name will do, too.

    The inputs are ``inputs``, else what the attribute ``example_inputs`` of the factory or the model tells: arrays or
    tensors by name (or in the order of ``forward``), whose first axis is taken for the batch.

    Raises:
        UsageError: no such module, file or function; it returns no model; nothing says what the inputs are.
        ModelError: the factory fails, or the weights do not fit.
    """
    torch = import_torch()
    try:
        factory = load_function(source)
    except DataError as error:
        raise UsageError(f"source {error}") from error
    try:
        module = factory if isinstance(factory, torch.nn.Module) else factory()
    except Exception as error:  # the user's code
        place = user_line(error)
        at = f" at {place}" if place else ""
        raise ModelError(f"source {source}: the factory fails{at}: {first_line(error)}.") from error
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"source {source}: returns {type(module).__name__}, not a torch.nn.Module. Return the model.")
    module = module.cpu().eval()
    if weights is not None:
        load_weights(module, Path(weights))
    examples = getattr(factory, "example_inputs", getattr(module, "example_inputs", None))
    arguments = [parse(text) for text in inputs] if inputs else _from_examples(source, module, examples)
    return Network(origin=source, module=module, arguments=tuple(arguments))


def exported_program(source: str, inputs: Sequence[str]) -> Network:
    """Load a program that ``torch.export.save`` wrote; nothing in the file is run, see `programs`.

    Its inputs are known; what the user says of them only gives words to its dynamic axes.

    Raises:
        UsageError: there is no such file, or the inputs given are not those of the program.
        ModelError: the file holds no program that this version of torch can load, or needs code of its own to be run.
    """
    torch = import_torch()
    if not Path(source).is_file():
        raise UsageError(f"source {source}: no such file. Check the path.")
    try:
        with quiet():
            program = programs.load(Path(source))
            module = program.module()
    except ModelError:
        raise
    except Exception as error:  # torch raises whatever its readers raise
        raise ModelError(
            f"source {source}: torch {torch.__version__} cannot load it ({first_line(error)}). Write it again with "
            "torch.export.save, by the same version of torch."
        ) from error
    known = _program_inputs(program)
    arguments = [parse(text) for text in inputs] or known
    if [(a.name, a.dtype, len(a.shape)) for a in arguments] != [(a.name, a.dtype, len(a.shape)) for a in known]:
        raise UsageError(
            f"source {source}: --input {' '.join(map(str, arguments))} does not describe its inputs, "
            f"which are {' '.join(map(str, known))}."
        )
    return Network(origin=source, module=module, program=program, arguments=tuple(arguments))


def _program_inputs(program: torch.export.ExportedProgram) -> list[InputArgument]:
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    arguments = []
    for name in program.graph_signature.user_inputs:
        if isinstance(name, str):
            value = values[name]
            shape = tuple(size if isinstance(size, int) else _word(size, axis) for axis, size in enumerate(value.shape))
            dtype = str(value.dtype).removeprefix("torch.")
            arguments.append(InputArgument(name=name, dtype=dtype, shape=shape, sizes={}))
    return arguments


def _word(size: object, axis: int) -> str:
    """Return a word for a symbolic size: ``batch`` for the first axis, torch's own (s77) for others."""
    return "batch" if axis == 0 else str(size)


def _from_examples(source: str, module: torch.nn.Module, examples: object) -> list[InputArgument]:
    """Describe the inputs by arrays or tensors: names and dtypes, any batch, integers in the range seen."""
    if examples is None:
        raise UsageError(f"source {source}: nothing says what its inputs are. {HOW}")
    examples = examples() if callable(examples) else examples
    if isinstance(examples, Mapping):
        named = dict(examples)
    else:
        values = list(examples) if isinstance(examples, (tuple, list)) else [examples]
        named = dict(zip(inspect.signature(module.forward).parameters, values, strict=False))
    arguments = []
    for name, example in named.items():
        array = np.asarray(example)
        if array.dtype.name not in DTYPES:
            raise UsageError(
                f"source {source}: example input {name!r} is {array.dtype}, not one of {', '.join(DTYPES)}."
            )
        low, high = (array.min(), array.max() + 1) if array.dtype.kind in "iu" and array.size else (0, 2)
        shape = ("batch", *array.shape[1:]) if array.ndim else ()
        arguments.append(
            InputArgument(name=name, dtype=array.dtype.name, shape=shape, sizes={}, low=int(low), high=int(high))
        )
    return arguments


def import_torch() -> ModuleType:
    """Import torch, or say how to install it.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else the workers of a training write warnings of torch's
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UsageError(
            f"torch: cannot be imported ({error}). Exporting and distilling need it: pip install 'onnxpress[torch]'."
        ) from error
