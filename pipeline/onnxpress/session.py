"""The only module that creates onnxruntime sessions.

Everything that runs a model goes through `open_session`, so that threads, spinning, optimization level and provider are
explicit and the same everywhere. onnxruntime sizes its thread pool from the host and ignores a container's quota
(microsoft/onnxruntime#29510); here the default is what this process may really use (`host.usable_threads`).
"""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxpress import host, session_keys, watch
from onnxpress.errors import ModelError, UsageError, did_you_mean
from onnxpress.quiet import quiet
from onnxpress.scratch import temporary

if TYPE_CHECKING:  # a benchmark's worker imports this module, and its memory and start-up must be onnxruntime's alone
    import onnx_ir as ir

OVERHEAD_BYTES = 1 << 26
"""What a session of a small model may take besides its weights."""

Spin = Literal["on", "stop", "off"]
Optimization = Literal["all", "extended", "basic", "off"]
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How a session is made. Two measurements compare only when these are equal."""

    provider: str = "cpu"
    """File name in ``onnxpress/providers``."""
    threads: int = 0
    """Intra-op threads; 0 means `host.usable_threads`."""
    spin: Spin = "stop"
    """``on`` spins between runs, ``stop`` only during one, ``off`` never (steadier on shared machines, slower)."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Further session options by onnxruntime's names, see `session_keys`."""
    provider_options: Mapping[str, str] = field(default_factory=dict)
    """Options of the provider by onnxruntime's names; they go over the ``OPTIONS`` of its file."""
    optimization: Optimization = "all"
    optimized_path: Path | None = None
    """Write the optimized graph here."""
    profile_prefix: Path | None = None
    """Write onnxruntime's own profile here (it slows the runs down)."""


def open_session(model: Path | ir.Model, options: SessionOptions | None = None) -> Any:  # noqa: ANN401 - no stubs
    """Load a model in onnxruntime and return its ``InferenceSession``.

    Raises:
        UsageError: the provider or an option is unknown, or the provider does not work on this machine.
        ModelError: onnxruntime refuses the model.

    """
    if not isinstance(model, Path) or not _is_utf8(model):
        from onnxpress import artifact

        if isinstance(model, Path):
            model = artifact.load(model)
        with temporary() as folder:
            path = folder / "model.onnx"
            artifact.write(model, path)
            try:
                return open_session(path, options)
            except ModelError as error:  # names a file that is gone when the reason is read
                reason = str(error).replace(f"model {path}", "model").replace(str(path), "memory")
                raise ModelError(reason) from error
    options = options or SessionOptions()
    ort = onnxruntime()
    provider = provider_file(options.provider)
    check_keys(options.provider, options.config, options.provider_options)
    if provider.NAME not in ort.get_available_providers():
        raise UsageError(
            f"execution provider {options.provider!r}: the installed onnxruntime has {ort.get_available_providers()}. "
            "See `compress doctor`."
        )
    ort.set_default_logger_severity(4)  # errors are raised; printed as well, they would come before our one line
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = options.threads or host.usable_threads()
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = {
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }[options.optimization]
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0" if options.spin == "off" else "1")
    settings.add_session_config_entry("session.force_spinning_stop", "1" if options.spin == "stop" else "0")
    for key, value in options.config.items():
        if key not in session_keys.ATTRIBUTES:
            settings.add_session_config_entry(key, value)
        elif value in ("0", "1"):
            setattr(settings, key, value == "1")
        else:
            setattr(settings, key, getattr(ort.ExecutionOrder, value.upper()))
    if options.optimized_path is not None:
        settings.optimized_model_filepath = str(options.optimized_path)
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if options.profile_prefix is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(options.profile_prefix)
    # Providers of other devices compile kernels, or whole engines, for minutes.
    known = options.provider == "cpu" and model.is_file()
    nbytes, held = (model.stat().st_size if known else math.inf), watch.own_bytes()
    try:
        with (
            watch.native("loading the model in onnxruntime", nbytes),
            quiet(),
        ):  # it prints a banner where a provider does not work, which is said below
            session = ort.InferenceSession(
                str(model),
                settings,
                providers=[provider.NAME, *provider.BESIDE],
                provider_options=[
                    effective_options(options.provider, options.provider_options),
                    *({} for _ in provider.BESIDE),
                ],
            )
    except Exception as error:
        reason = " ".join(str(error).split())
        if model.is_symlink() and "External data" in reason:  # it lies beside what the link points to
            return open_session(model.resolve(), options)
        if not model.is_file():
            raise UsageError(f"model {model}: is not there any more. Was its folder removed meanwhile?") from error
        # Constants that shape inference reads, which onnxruntime wants inside of the model file.
        mend = ". `compress export MODEL -o OUT` writes them into the model" if "external tensors" in reason else ""
        raise ModelError(f"model {model}: onnxruntime {ort.__version__} cannot load it: {reason}{mend}") from error
    session.file_bytes = nbytes
    session.nbytes = max(nbytes, watch.own_bytes() - held - OVERHEAD_BYTES)  # weights in files of their own count, too
    session.disable_fallback()  # else a provider that fails in a run is silently replaced by the CPU
    if session.get_providers()[0] != provider.NAME:  # as onnxruntime does, silently, when one cannot even be created
        raise UsageError(
            f"execution provider {options.provider!r}: does not work here, onnxruntime would run on "
            f"{session.get_providers()[0]} instead. Its libraries or its device are missing; see `compress doctor`."
        )
    return session


def _is_utf8(path: Path) -> bool:
    """Tell whether onnxruntime can open a path; to file systems of Linux names are bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def effective_options(provider: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the options that an execution provider gets: those of its file, and over them the ones given."""
    return {**provider_file(provider).OPTIONS, **given}


def check_keys(provider: str, config: Mapping[str, str], provider_options: Mapping[str, str]) -> None:
    """Refuse what onnxruntime would ignore in silence.

    Raises:
        UsageError: a session option or an option of the provider is unknown, or has a value it does not take.

    """
    known = session_keys.CONFIG | session_keys.ATTRIBUTES.keys()
    for key, value in config.items():
        if key in session_keys.OWN:
            raise UsageError(f"session option {key!r}: use {session_keys.OWN[key]}, which sets it.")
        if key not in known:
            raise UsageError(f"session option {key!r}: unknown to onnxruntime.{did_you_mean(key, known)}")
        if value not in session_keys.ATTRIBUTES.get(key, (value,)):
            raise UsageError(
                f"session option {key!r}: is one of {', '.join(session_keys.ATTRIBUTES[key])}, not {value!r}."
            )
    keys = provider_file(provider).KEYS
    for key in provider_options:
        if key not in keys:
            hint = did_you_mean(key, keys) if keys else " It has none."
            raise UsageError(f"option {key!r} of execution provider {provider!r}: unknown.{hint}")


def onnxruntime() -> ModuleType:
    """Import onnxruntime, or say what is wrong with its installation."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime reports to its vendor, also while we measure
    try:
        ort = importlib.import_module("onnxruntime")
        ort.InferenceSession  # noqa: B018 - a half-installed wheel imports as an empty namespace package
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"onnxruntime: cannot be imported ({error}). Install exactly one of onnxruntime-gpu and onnxruntime; "
            "see `compress doctor`."
        ) from error
    return ort


def providers() -> list[str]:
    """Return the names of the execution providers this product knows: the files in ``onnxpress/providers``."""
    folder = Path(__file__).parent / "providers"
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")


def known_provider(name: str) -> str:
    """Return the name of an execution provider, as validators of options do.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in providers():
        raise ValueError(f"unknown execution provider {name!r}.{did_you_mean(name, providers())}")
    return name


def provider_file(name: str) -> ModuleType:
    """Return the file of an execution provider; see `onnxpress.providers` for what it says.

    Raises:
        UsageError: there is none of this name.

    """
    if name not in providers():
        raise UsageError(f"execution provider {name!r}: unknown.{did_you_mean(name, providers())}")
    return importlib.import_module(f"onnxpress.providers.{name}")


def run(session: Any, feeds: Mapping[str, Any], run_options: Any = None) -> Arrays:  # noqa: ANN401
    """Run a session once and return its outputs by name.

    Raises:
        ModelError: the model fails on this input.

    """
    names = [output.name for output in session.get_outputs()]
    fed, nbytes = sum(getattr(value, "nbytes", 0) for value in feeds.values()), getattr(session, "nbytes", 0)
    most_bytes = nbytes + watch.allowed_bytes(getattr(session, "file_bytes", 0) + fed)
    try:
        with watch.native("running the model in onnxruntime", nbytes + fed, most_bytes):
            return dict(zip(names, session.run(names, dict(feeds), run_options), strict=True))
    except Exception as error:
        shapes = {name: f"{value.dtype}{list(value.shape)}" for name, value in feeds.items()}
        reason = " ".join(str(error).split())
        raise ModelError(f"model fails on the input {shapes}: {reason}") from error


def output_types(model: ir.Model) -> dict[str, tuple[ir.TypeProtocol | None, ir.Shape | None]]:
    """Return type and shape of each output of a model as the runtime infers them, its own operators' too.

    The type is None where it is neither a tensor nor a sequence of tensors, the shape where the rank is 0 or not known.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    import onnx_ir as ir

    session = open_session(model, SessionOptions(threads=1, optimization="off"))
    found: dict[str, tuple[ir.TypeProtocol | None, ir.Shape | None]] = {}
    for output in session.get_outputs():
        match = re.fullmatch(r"(seq\()?tensor\((\w+)\)\)?", output.type)
        dtype = None if match is None else ir.DataType.__members__.get(match[2].upper())
        tensor = None if dtype is None else ir.TensorType(dtype)
        kind = tensor if tensor is None or match is None or match[1] is None else ir.SequenceType(tensor)
        found[output.name] = kind, ir.Shape(output.shape) if output.shape else None
    return found


def optimized_graph(model: Path, options: SessionOptions | None = None) -> ir.Model:
    """Load a model in onnxruntime and return the graph that really runs, after all of its optimizations.

    Weights of the returned graph may be missing: it is for reading node types and names.
    """
    return loaded(model, options)[0]


def loaded(model: Path, options: SessionOptions | None = None) -> tuple[ir.Model, dict[str, int]]:
    """Load a model in onnxruntime; return its `optimized_graph` and how many nodes each provider was given.

    The counts are of the nodes that onnxruntime divided among its providers, before the last fusions; empty where it
    does not tell (before version 1.24).
    """
    import onnx

    from onnxpress import maps

    options = options or SessionOptions()
    with temporary() as folder:
        path = folder / "optimized.onnx"
        session = open_session(model, replace(options, optimized_path=path))
        providers: dict[str, int] = {}
        for part in getattr(session, "get_provider_graph_assignment_info", list)():
            providers[part.ep_name] = providers.get(part.ep_name, 0) + len(part.get_nodes())
        return maps.from_proto(onnx.load(path, load_external_data=False)), providers
