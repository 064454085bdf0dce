"""What is installed, what really works on this machine, and what to do about the rest."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

import onnxpress
from onnxpress import cpu, host, session
from onnxpress.errors import OnnxpressError
from onnxpress.scratch import outer_tmpdir
from onnxpress.units import format_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

Status = Literal["ok", "warn", "fail"]

REQUIRED = ("numpy", "onnx", "onnx-ir", "pydantic")
OPTIONAL = {
    "torch": "Needed only to export and distil PyTorch models: pip install 'onnxpress[torch]'.",
    "neural-compressor": "Needed only to quantize PyTorch models before export: pip install 'onnxpress[torch]'.",
}
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
"""Distributions that all install the same package, ``onnxruntime``, and overwrite each other's files."""
GPU_RUNTIME = "onnxruntime-gpu"
SMALL_MEMORY = 2 * 2**30
NO_SCRATCH = "Set TMPDIR to a folder that can be written; without one no model can be tried."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact about this installation or machine."""

    name: str
    value: str
    status: Status = "ok"
    advice: str = ""
    """What to do, or to keep in mind; may be empty."""


def diagnose() -> list[Finding]:
    """Look at everything, in the order in which one would want to read it. Nothing is changed, nothing is raised."""
    return [*_software(), *_runtime(), *_machine()]


def _software() -> Iterator[Finding]:
    yield Finding(name="python", value=platform.python_version())
    yield Finding(name="onnxpress", value=onnxpress.__version__)
    for package in REQUIRED:
        version = _version(package)
        yield Finding(
            name=package,
            value=version or "not installed",
            status="ok" if version else "fail",
            advice="" if version else "Install onnxpress again, with its dependencies.",
        )
    for package, advice in OPTIONAL.items():
        version = _version(package)
        yield Finding(
            name=package,
            value=f"{version}{_on_disk(package)}" if version else "not installed",
            advice="" if version else advice,
        )
    cuda = sorted(each.name for each in metadata.distributions() if each.name.lower().startswith("nvidia-"))
    if cuda:
        yield Finding(
            name="CUDA libraries",
            value=f"{len(cuda)} of NVIDIA's packages{_on_disk(*cuda)}",
            advice="Only a GPU needs them. For CPUs install PyTorch's CPU build; the README has the command.",
        )


def _runtime() -> Iterator[Finding]:
    installed = [f"{name} {version}" for name in RUNTIMES if (version := _version(name))]
    if len(installed) > 1:
        yield Finding(
            name="onnxruntime",
            value=", ".join(installed),
            status="fail",
            advice="These overwrite each other's files. Uninstall all of them, then install one: the gpu package also "
            "runs on the CPU.",
        )
    else:
        advice = "" if installed else "Install onnxruntime-gpu (x86-64 Linux, Windows) or onnxruntime (others)."
        if _version(GPU_RUNTIME):
            advice = "It holds CUDA code and runs on CPUs, too. Where only CPUs serve, requirements-cpu.txt is smaller."
        yield Finding(
            name="onnxruntime",
            value=f"{installed[0]}{_on_disk(installed[0].split()[0])}" if installed else "not installed",
            status="ok" if installed else "fail",
            advice=advice,
        )
    try:
        offered = list(session.onnxruntime().get_available_providers())
    except OnnxpressError as error:
        yield Finding(name="onnxruntime import", value="fails", status="fail", advice=str(error))
        return
    try:
        yield Finding(name="temporary folder", value=str(outer_tmpdir()))
        usable = True
    except FileNotFoundError:
        usable = False
        yield Finding(name="temporary folder", value="none can be written", status="fail", advice=NO_SCRATCH)
    for name in session.providers() if usable else ():
        yield _provider(name, offered)
    ours = {session.provider_file(name).NAME for name in session.providers()}
    others = [name for name in offered if name not in ours]
    if others:
        yield Finding(
            name="other providers",
            value=", ".join(others),
            advice="onnxruntime lists them; this version of onnxpress does not use them.",
        )


def _provider(name: str, offered: list[str]) -> Finding:
    """Try a provider: that onnxruntime lists it only means that it was compiled in."""
    bad: Status = "fail" if name == "cpu" else "warn"
    title = f"provider {name}"
    if session.provider_file(name).NAME not in offered:
        return Finding(
            name=title,
            value="not in this onnxruntime",
            status="fail" if name == "cpu" else "ok",
            advice="Install a build of onnxruntime that has it, to use it.",
        )
    try:
        opened = session.open_session(_tiny_model(), session.SessionOptions(provider=name, threads=1))
        session.run(opened, {"x": np.ones((1, 4), np.float32)})
    except OnnxpressError as error:
        return Finding(
            name=title, value="does not work", status=bad, advice=str(error).replace("; see `compress doctor`", "")
        )
    return Finding(name=title, value="works")


def _machine() -> Iterator[Finding]:
    this = host.describe()
    yield Finding(name="cpu", value=f"{this.cpu}, {this.arch}")
    yield _kind(this)
    yield _threads(this)
    little = this.memory_bytes is not None and this.memory_bytes < SMALL_MEMORY
    yield Finding(
        name="memory",
        value="unknown" if this.memory_bytes is None else format_bytes(this.memory_bytes),
        status="warn" if little else "ok",
        advice="Calibration and export of larger models may not fit." if little else "",
    )
    yield Finding(name="host fingerprint", value=this.fingerprint, advice="Compare timings of equal fingerprints only.")


def _kind(this: host.Host) -> Finding:
    """Say which of the kinds of ``--target-cpu`` this is."""
    flags = ", ".join(this.features) or "no int8 instructions known"
    try:
        kind, cut_off = cpu.kind(), cpu.saturates()
    except OnnxpressError:
        value = f"unknown ({flags})"
        return Finding(name="cpu kind", value=value, status="warn", advice="No int8 kernel could be run.")
    value = f"{kind or 'unknown'} ({flags})"
    if cut_off:
        advice = (
            "No VNNI: int8 gains less, and sums of products are cut off at 16 bits. Models quantized with --target-cpu "
            "any (the default) or avx2 are right here; those for vnni, amx or arm are not."
        )
        return Finding(name="cpu kind", value=value, status="warn", advice=advice)
    if kind not in cpu.EXACT:
        advice = "No VNNI, AMX or dot product is known: int8 may gain less. Measure on the machine that will serve."
        return Finding(name="cpu kind", value=value, status="warn", advice=advice)
    fast = "Quantize activations to uint8 and weights to int8, as is the default: other pairings miss the fast kernels."
    return Finding(name="cpu kind", value=value, advice="" if kind == "arm" else fast)


def _threads(this: host.Host) -> Finding:
    quota = "no quota" if this.quota_cpus is None else f"quota of {this.quota_cpus:g}"
    value = f"{host.usable_threads()} ({this.cpus} CPUs on {this.physical_cores} cores, {quota})"
    if this.quota_cpus is not None and not this.quota_cpus.is_integer():
        return Finding(
            name="threads",
            value=value,
            status="warn",
            advice=f"A quota of {this.quota_cpus:g} CPUs stops all threads for part of each period, which shows in "
            "p99. Give the container whole CPUs.",
        )
    return Finding(name="threads", value=value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _on_disk(*packages: str) -> str:
    """Return what packages take on disk, ready to follow a version; "" where pip kept no list of their files."""
    files = [file for package in packages if _version(package) for file in metadata.files(package) or ()]
    sizes = [Path(str(file.locate())).stat().st_size for file in files if Path(str(file.locate())).is_file()]
    return f" ({format_bytes(sum(sizes))} on disk)" if sizes else ""


def _tiny_model() -> ir.Model:
    """Return ``y = relu(x)`` on [1, 4]."""
    import onnx_ir as ir  # here, so that a missing package is a finding

    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 4]))
    node = ir.node("Relu", [x])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", x.type, x.shape
    graph = ir.Graph([x], [y], nodes=[node], opset_imports={"": 17}, name="tiny")
    return ir.Model(graph, ir_version=8)
