import errno
import tempfile
from collections.abc import Callable
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from onnxpress import cpu, doctor, host, session
from onnxpress.doctor import Finding
from onnxpress.errors import ModelError, UsageError


def host_like(**changes: object) -> host.Host:
    facts: dict[str, object] = {
        "cpu": "some CPU",
        "arch": "x86_64",
        "features": ("avx2", "avx512_vnni"),
        "cpus": 4,
        "physical_cores": 2,
        "quota_cpus": None,
        "memory_bytes": 8 * 2**30,
    }
    return host.Host(**(facts | changes))  # type: ignore[arg-type]


def finding(name: str) -> Finding:
    return next(found for found in doctor.diagnose() if found.name == name)


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    def version(package: str) -> str:
        if package in packages:
            return "1.2.3"
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "files", lambda package: [])  # noqa: ARG005


def test_this_installation_works() -> None:
    found = doctor.diagnose()
    assert [each for each in found if each.status == "fail"] == []
    assert finding("provider cpu") == Finding(name="provider cpu", value="works")
    assert len({each.name for each in found}) == len(found)


def test_two_runtimes_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    found = finding("onnxruntime")
    assert found.status == "fail"
    assert found.value == "onnxruntime 1.2.3, onnxruntime-gpu 1.2.3"
    assert "Uninstall all" in found.advice


def test_what_is_large_says_how_large_it_is() -> None:
    assert " on disk)" in finding("torch").value
    assert finding("onnxruntime").value.endswith("MB on disk)")


def test_the_cuda_libraries_of_pytorch_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metadata, "distributions", lambda: [SimpleNamespace(name="nvidia-cublas"), SimpleNamespace(name="six")]
    )
    assert finding("CUDA libraries").value == "1 of NVIDIA's packages"
    assert "Only a GPU needs them" in finding("CUDA libraries").advice


def test_no_runtime_and_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr(session, "onnxruntime", lambda: (_ for _ in ()).throw(UsageError("onnxruntime: is not there")))
    assert finding("onnxruntime").status == "fail"
    assert finding("onnxruntime import").advice == "onnxruntime: is not there"
    assert finding("torch").status == "ok" and "pip install" in finding("torch").advice
    assert finding("onnx").status == "fail"


def test_a_provider_that_is_not_compiled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "onnxruntime", lambda: SimpleNamespace(get_available_providers=lambda: ["Other"]))
    assert (finding("provider cpu").status, finding("provider cpu").value) == ("fail", "not in this onnxruntime")
    assert finding("other providers").value == "Other"


def test_a_provider_that_is_listed_but_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_model: object, _options: object) -> None:
        raise ModelError("libcudnn is missing; see `compress doctor`.")

    monkeypatch.setattr(session, "open_session", broken)
    found = finding("provider cpu")
    assert (found.value, found.advice) == ("does not work", "libcudnn is missing.")


@pytest.mark.parametrize(
    ("changes", "name", "status", "says"),
    [
        ({"quota_cpus": 2.0}, "threads", "ok", ""),
        ({"quota_cpus": 1.5}, "threads", "warn", "quota of 1.5 CPUs"),
        ({"memory_bytes": 2**30}, "memory", "warn", "may not fit"),
        ({"memory_bytes": None}, "memory", "ok", ""),
    ],
)
def test_machine(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], name: str, status: str, says: str
) -> None:
    monkeypatch.setattr(host, "describe", lambda: host_like(**changes))
    assert finding(name).status == status
    assert says in finding(name).advice


@pytest.mark.parametrize(
    ("changes", "cut_off", "value", "status", "says"),
    [
        ({}, False, "vnni (avx2, avx512_vnni)", "ok", "uint8"),
        ({"features": ("avx512f", "amx_int8", "avx512_vnni")}, False, "amx (avx512f, amx_int8, avx512_vnni)", "ok", ""),
        ({"arch": "aarch64", "features": ("asimddp", "i8mm")}, False, "arm (asimddp, i8mm)", "ok", ""),
        ({"features": ("avx2",)}, True, "avx2 (avx2)", "warn", "cut off at 16 bits"),
        ({"features": ("avx512f", "avx2")}, True, "avx512 (avx512f, avx2)", "warn", "cut off at 16 bits"),
        ({}, True, "avx2 (avx2, avx512_vnni)", "warn", "cut off at 16 bits"),  # an emulator shows its host's flags
        ({"features": ()}, False, "unknown (no int8 instructions known)", "warn", "may gain less"),
    ],
)
def test_the_kind_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], cut_off: bool, value: str, status: str, says: str
) -> None:
    monkeypatch.setattr(host, "describe", lambda: host_like(**changes))
    monkeypatch.setattr(cpu, "saturates", lambda: cut_off)
    found = finding("cpu kind")
    assert (found.value, found.status) == (value, status)
    assert says in found.advice


def test_a_cpu_on_which_nothing_runs_is_of_no_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bool:
        raise ModelError("no kernel")

    monkeypatch.setattr(cpu, "saturates", broken)
    assert finding("cpu kind").value.startswith("unknown (")


def test_threads_say_what_limits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "describe", lambda: host_like(quota_cpus=1.0))
    assert finding("threads").value == "1 (4 CPUs on 2 cores, quota of 1)"


def test_without_a_temporary_folder_the_rest_is_still_told(
    monkeypatch: pytest.MonkeyPatch, compress: Callable[..., Any]
) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    ended = compress("doctor")
    assert ended.code == 0
    (line,) = (line for line in ended.out.splitlines() if "temporary folder" in line)
    assert line.startswith("FAIL")
    assert "TMPDIR" in ended.out
    assert "memory" in ended.out
