"""The only module that creates onnxruntime sessions.

Everything that runs a model goes through `open_session`, so that threads, spinning, optimization level and provider are
explicit and the same everywhere. onnxruntime sizes its thread pool from the host and ignores a container's quota
(microsoft/onnxruntime#29510); here the default is what this process may really use (`host.usable_threads`).
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxpress import host
from onnxpress.errors import ModelError, UsageError, did_you_mean

if TYPE_CHECKING:  # a benchmark's worker imports this module, and its memory and start-up must be onnxruntime's alone
    import onnx_ir as ir

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
    optimization: Optimization = "all"
    optimized_path: Path | None = None
    """Write the optimized graph here."""
    profile_prefix: Path | None = None
    """Write onnxruntime's own profile here (it slows the runs down)."""


def open_session(model: Path | ir.Model, options: SessionOptions | None = None) -> Any:  # noqa: ANN401 - no stubs
    """Load a model in onnxruntime and return its ``InferenceSession``.

    Raises:
        UsageError: the provider is unknown or not available on this machine.
        ModelError: onnxruntime refuses the model.

    """
    if not isinstance(model, Path):
        from onnxpress import artifact

        with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
            path = Path(folder) / "model.onnx"
            artifact.save(model, path)
            return open_session(path, options)
    options = options or SessionOptions()
    ort = onnxruntime()
    provider = importlib.import_module(f"onnxpress.providers.{_known_provider(options.provider)}")
    if provider.NAME not in ort.get_available_providers():
        raise UsageError(
            f"execution provider {options.provider!r}: the installed onnxruntime has {ort.get_available_providers()}. "
            "See `compress doctor`."
        )
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # errors are raised; printed as well, they would come before our one line
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
    if options.optimized_path is not None:
        settings.optimized_model_filepath = str(options.optimized_path)
    if options.profile_prefix is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(options.profile_prefix)
    try:
        session = ort.InferenceSession(
            str(model), settings, providers=[provider.NAME], provider_options=[dict(provider.OPTIONS)]
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model {model}: onnxruntime {ort.__version__} cannot load it: {reason}") from error
    session.disable_fallback()  # else a failing provider is silently replaced by the CPU
    return session


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


def _known_provider(name: str) -> str:
    if name not in providers():
        raise UsageError(f"execution provider {name!r}: unknown.{did_you_mean(name, providers())}")
    return name


def run(session: Any, feeds: Mapping[str, Any]) -> Arrays:  # noqa: ANN401
    """Run a session once and return its outputs by name.

    Raises:
        ModelError: the model fails on this input.

    """
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))
    except Exception as error:
        shapes = {name: f"{value.dtype}{list(value.shape)}" for name, value in feeds.items()}
        reason = " ".join(str(error).split())
        raise ModelError(f"model fails on the input {shapes}: {reason}") from error


def optimized_graph(model: Path, options: SessionOptions | None = None) -> ir.Model:
    """Load a model in onnxruntime and return the graph that really runs, after all of its optimizations.

    Weights of the returned graph may be missing: it is for reading node types, names and providers.
    """
    import onnx_ir as ir

    options = options or SessionOptions()
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(model, replace(options, optimized_path=path))
        return ir.load(path)
