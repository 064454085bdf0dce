"""Artifacts: model files with their hash and lineage. The only place where models are read and written.

An artifact is one ``.onnx`` file, plus one ``.data`` file beside it when the weights pass the two-gigabyte limit of
protocol buffers. Its lineage (which step made it, from what, with which options) is stored inside the model, under
``metadata_props["onnxpress.lineage"]``, so that a file can always be asked where it comes from. Lineage holds no clock
and no path: the same steps on the same bytes give the same file, bit by bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxpress import maps, wellformed
from onnxpress.errors import ModelError, UsageError
from onnxpress.files import hash_files, reads, writing

LINEAGE_KEY = "onnxpress.lineage"
PROTOBUF_LIMIT_BYTES = 1 << 31
INLINE_LIMIT_BYTES = 1_500_000_000  # above this, weights go to a file of their own (a protobuf ends at 2 GiB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model file that exists, with its content hash and what it was made by."""

    path: Path
    sha256: str
    size_bytes: int
    """Bytes on disk, external data included."""
    files: tuple[Path, ...]
    """The model file and those with its external data."""
    lineage: tuple[Mapping[str, Any], ...]
    """One entry per step, oldest first: ``step``, ``options``, ``input_sha256``, ``data_sha256``, ``versions``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Something that a step left alone, and why. A refusal is data, not an error."""

    where: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What a step returns: the new model, what changed in it, and what was left alone."""

    model: ir.Model
    changed: tuple[str, ...] = ()
    """Names of the nodes that were changed."""
    skipped: tuple[Skip, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Numbers worth reporting (JSON values), for example ``{"macs_ratio": 0.7}``."""


def read(path: Path) -> Artifact:
    """Hash a model file and read its lineage.

    Raises:
        UsageError: there is no such file.
        ModelError: the file is not a usable ONNX model.

    """
    model, data = _load(path)
    files = (path, *data)
    return Artifact(
        path=path,
        sha256=hash_files(files),
        size_bytes=sum(file.stat().st_size for file in files),
        files=files,
        lineage=lineage(model),
    )


def lineage(model: ir.Model) -> tuple[Mapping[str, Any], ...]:
    """Return the steps a model has been through, oldest first; empty when it was not made by us."""
    return tuple(json.loads(model.metadata_props.get(LINEAGE_KEY, "[]")))


def load(path: Path) -> ir.Model:
    """Read a model; weights in external files are mapped whenever they are asked for, and not kept in memory.

    Raises:
        UsageError: there is no such file.
        ModelError: not an ONNX file, truncated, or external data that is missing, short or outside the folder.

    """
    return _load(path)[0]


def _load(path: Path) -> tuple[ir.Model, list[Path]]:
    """Return the model and the files with its external data, sorted; see `load`."""
    if not path.is_file():
        raise UsageError(
            f"model {path}: no such file. Check the path; a folder of PyTorch code goes to `compress export`."
        )
    size_bytes = path.stat().st_size
    if size_bytes >= PROTOBUF_LIMIT_BYTES:
        raise ModelError(
            f"model {path}: {size_bytes:,} bytes are no ONNX file, which ends at 2 GiB. Export it again with the "
            "weights in a file of their own."
        )
    try:
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise ModelError(f"model {path}: not an ONNX file, or truncated ({error}). Export or copy it again.") from error
    except OSError as error:
        raise ModelError(f"model {path}: cannot be read ({error.strerror}).") from error
    if not proto.HasField("graph") or not proto.opset_import or proto.ir_version < 1:
        raise ModelError(
            f"model {path}: not an ONNX file, or truncated ({size_bytes} bytes hold no graph with an opset). "
            "Export or copy it again."
        )
    try:
        wellformed.check(proto, LINEAGE_KEY)
        model = maps.from_proto(proto)
    except wellformed.MalformedError as error:
        raise ModelError(
            f"model {path}: {error}. Export it again, or copy it whole from where it comes from."
        ) from error
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, NotImplementedError, AttributeError) as error:
        cause: BaseException = error
        while isinstance(cause, ir.serde.SerdeError) and cause.__cause__ is not None:
            cause = cause.__cause__  # it only names the function that failed
        reason = " ".join(str(cause).split())
        raise ModelError(
            f"model {path}: malformed or unsupported graph ({reason}). Run onnx.checker on it and export it again."
        ) from error
    return model, _map_external(model, path)


def content(tensor: ir.TensorProtocol) -> bytes:
    """Return the bytes of a tensor, of strings too."""
    if tensor.dtype == ir.DataType.STRING:
        return b"\0".join(text if isinstance(text, bytes) else str(text).encode() for text in tensor.numpy().flat)
    return tensor.tobytes()


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Yield every constant tensor once: initializers and tensor attributes, in subgraphs and functions too."""
    for graph in _graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield attribute.as_tensor()


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield graph
        yield from graph.subgraphs()


def _map_external(model: ir.Model, path: Path) -> list[Path]:
    """Replace each tensor in an external file by one that is read from there; return the files, sorted.

    A tensor of onnx's kind goes into every protocol buffer as the bare file name, which whoever gets it looks up in the
    current folder. These know their file, and go there as bytes.
    """
    files = set()

    def mapped(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        file = _external_file(tensor, path)
        files.add(file)
        reads(file)
        if tensor.size == 0:  # onnx_ir's has no bytes then, not even none
            return ir.Tensor(tensor.numpy(), name=tensor.name)
        offset, length, dtype, shape, name = tensor.offset, tensor.length, tensor.dtype, tensor.shape, tensor.name
        return ir.LazyTensor(  # uncached: what is read is unmapped when nobody uses it any more
            lambda: ir.ExternalTensor(file, offset, length, dtype, shape=shape, name=name),
            dtype=dtype,
            shape=shape,
            name=name,
        )

    for graph in _graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = mapped(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, mapped(attribute.as_tensor()))
                elif attribute.type == ir.AttributeType.TENSORS:
                    node.attributes[name] = ir.AttrTensors(name, [mapped(each) for each in attribute.as_tensors()])
    return sorted(files)


def _external_file(tensor: ir.ExternalTensor, path: Path) -> Path:
    """Return the file with a tensor's data, after checking that the tensor lies inside it.

    It lies beside the model; of a model that is a link, beside the link or beside what that points to.

    Raises:
        ModelError: the file is missing, too short, or outside the model's folder (a path that a model must not name).

    """
    folders = dict.fromkeys((path.resolve().parent, path.parent.resolve()))
    candidates = [folder / tensor.location for folder in folders]
    try:
        file = next((each for each in candidates if each.is_file()), path.parent / tensor.location)
        inside = any(file.resolve().is_relative_to(folder) for folder in folders)
    except (OSError, RuntimeError, ValueError) as error:  # too long, a link to itself, a NUL
        raise ModelError(f"external data of tensor {tensor.name!r}: {tensor.location!r} names no file.") from error
    if not inside:
        raise ModelError(
            f"external data of tensor {tensor.name!r}: {str(tensor.location)!r} points outside the model's folder. "
            "Refused: put the data beside the model."
        )
    if not file.is_file():
        raise ModelError(
            f"external data of tensor {tensor.name!r}: {file} is missing. Copy it from where the model comes from."
        )
    end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
    if file.stat().st_size < end:
        raise ModelError(
            f"external data of tensor {tensor.name!r}: {file} has {file.stat().st_size} bytes, {end} are needed. "
            "The file is truncated: copy it again."
        )
    return file


def save(model: ir.Model, path: Path, *, step: Mapping[str, Any] | None = None, force: bool = False) -> Artifact:
    """Write a model whole or not at all, with one more entry in its lineage.

    Args:
        model: The model; it is not changed.
        path: Where to write it. Its folder must exist.
        step: The lineage entry of the step that made it.
        force: Replace an existing file.

    Raises:
        OutputError: the file exists, the folder is missing or cannot be written, or the disk is full.

    """
    if step is not None:
        model.metadata_props[LINEAGE_KEY] = json.dumps([*lineage(model), step], sort_keys=True)
    with writing(path, force=force) as scratch:
        write(model, scratch / path.name)
    return read(path)


def write(model: ir.Model, path: Path) -> None:
    """Write a model to a folder that nobody else reads: not whole or not at all, and nothing is read back."""
    if sum(tensor.nbytes for tensor in tensors(model)) > INLINE_LIMIT_BYTES:
        # The name holds the content's hash, so replacing a model never leaves it with another model's weights.
        digest = hashlib.sha256()
        for tensor in tensors(model):
            digest.update(content(tensor))
        data = f"{path.stem}.{digest.hexdigest()[:12]}.data"
        ir.save(model, path, external_data=data, size_threshold_bytes=1024)
        saved = onnx.load(path, load_external_data=False)
        if maps.restore(saved):
            path.write_bytes(saved.SerializeToString(deterministic=True))
    else:
        path.write_bytes(maps.to_proto(model).SerializeToString(deterministic=True))
