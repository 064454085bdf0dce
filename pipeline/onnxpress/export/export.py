"""``compress export``: one function for every kind of source.

====================================  ==========================================================
``zoo:NAME``                          a reference model
``module:factory``                    a function without arguments that returns a torch.nn.Module
``file.py:factory``                   the same, in a file
``program.pt2``                       what ``torch.export.save`` wrote
``model.onnx``                        an ONNX file, which is prepared
====================================  ==========================================================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxpress import artifact, graph
from onnxpress.artifact import Edit
from onnxpress.errors import ModelError, UsageError
from onnxpress.export.inputs import DTYPES, InputArgument, choose_sizes
from onnxpress.export.options import ExportOptions
from onnxpress.export.prepare import prepare
from onnxpress.export.verify import Verification, verify
from onnxpress.graph import Array
from onnxpress.session import SessionOptions, open_session, run

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A model ready to be written."""

    edit: Edit
    """The prepared model, and what preparing it changed."""
    verification: Verification | None
    """None where it was not asked for, or where an ONNX file's inputs cannot be guessed."""

    @property
    def model(self) -> ir.Model:
        """The prepared model."""
        return self.edit.model


def export(source: str, options: ExportOptions | None = None) -> Exported:
    """Turn a source into a prepared ONNX model and verify it; nothing is written.

    Raises:
        UsageError: the source does not exist, or an option does not go with it.
        ModelError: it cannot be exported, or the result differs from it.
    """
    options = options or ExportOptions()
    if source.endswith(".onnx"):
        return _onnx(source, options)
    if source.endswith(".pt2") or source.startswith("zoo:") or ":" in source:
        return _pytorch(source, options)
    if source.endswith((".pt", ".pth", ".safetensors")):
        raise UsageError(f"source {source}: holds weights only. Give the code of the model, and --weights {source}.")
    raise UsageError(
        f"source {source}: is none of zoo:NAME, module:factory, file.py:factory, program.pt2 and model.onnx."
    )


def _pytorch(source: str, options: ExportOptions) -> Exported:
    from onnxpress.export import sources
    from onnxpress.export.torch_export import OPSET, to_onnx, trace_sizes

    sources.import_torch()
    with sources.users_path(source):
        network = sources.network(source, options.inputs, options.weights)
        sizes = trace_sizes(network)
        edit = prepare(to_onnx(network, sizes, options.opset or OPSET), opset=options.opset or OPSET)
        verification = None
        if options.verify:
            verification = verify(
                edit.model,
                network.run,
                network.arguments,
                sizes,
                against="PyTorch",
                atol=options.atol,
                rtol=options.rtol,
            )
    return Exported(edit=edit, verification=verification)


def _onnx(source: str, options: ExportOptions) -> Exported:
    if options.weights is not None or options.inputs:
        raise UsageError(f"source {source}: --weights and --input are for PyTorch models; an ONNX file has both.")
    model = artifact.load(Path(source))
    edit = prepare(model, opset=options.opset)
    return Exported(edit=edit, verification=_compared(model, edit.model, options) if options.verify else None)


def _compared(model: ir.Model, prepared: ir.Model, options: ExportOptions) -> Verification | None:
    """Compare a prepared model with what it was; None where random inputs do not fit it, or it is very large."""
    if sum(tensor.nbytes for tensor in artifact.tensors(model)) > artifact.INLINE_LIMIT_BYTES:
        _log.info("not verified: the model is too large to be loaded twice")
        return None
    arguments = _arguments(model)
    if arguments is None:
        _log.info("not verified: an input has no fixed dtype or rank")
        return None
    session = open_session(model, SessionOptions())

    def original(feeds: Mapping[str, Array]) -> Sequence[Array]:
        return list(run(session, feeds).values())

    try:
        sizes = choose_sizes(arguments, original)
    except ModelError as error:
        _log.info("not verified: the original does not run on random inputs (%s)", error)
        return None
    return verify(prepared, original, arguments, sizes, against="the original", atol=options.atol, rtol=options.rtol)


def _arguments(model: ir.Model) -> list[InputArgument] | None:
    """Describe the inputs of an ONNX model; an axis without a name is one of its own."""
    arguments = []
    for value in graph.inputs(model):
        dtype = None if value.dtype is None else value.dtype.numpy().name
        if dtype not in DTYPES or value.shape is None:
            return None
        shape = tuple(
            size if isinstance(size, int) else size.value or f"{value.name}_{axis}"
            for axis, size in enumerate(value.shape)
        )
        arguments.append(InputArgument(name=value.name or "", dtype=dtype, shape=shape, sizes={}))
    return arguments
