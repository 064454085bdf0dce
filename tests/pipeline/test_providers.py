"""The contract of the files in ``onnxpress/providers``, and what a session makes of them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxpress import session, session_keys
from onnxpress.errors import UsageError
from onnxpress.session import SessionOptions

CAPI = Path(importlib.util.find_spec("onnxruntime").origin).parent / "capi"  # type: ignore[union-attr, arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_the_providers_are_the_files() -> None:
    assert session.providers() == ["coreml", "cpu", "cuda", "directml", "openvino", "tensorrt"]


@pytest.mark.parametrize("name", session.providers())
def test_every_file_says_the_same_five_things(name: str) -> None:
    file = session.provider_file(name)
    assert file.NAME.endswith("ExecutionProvider")
    assert file.DEVICE in ("cpu", "cuda")
    assert isinstance(file.BESIDE, tuple) and isinstance(file.KEYS, frozenset)
    assert set(file.OPTIONS) <= file.KEYS
    assert all(isinstance(value, str) for value in file.OPTIONS.values())
    assert file.__doc__


@pytest.mark.parametrize(
    ("name", "library"),
    [("cuda", "libonnxruntime_providers_cuda.so"), ("tensorrt", "libonnxruntime_providers_tensorrt.so")],
)
def test_the_options_are_those_that_the_library_knows(name: str, library: str) -> None:
    if not (CAPI / library).is_file():
        pytest.skip(f"this onnxruntime has no {library}")
    binary = (CAPI / library).read_bytes()
    assert [key for key in sorted(session.provider_file(name).KEYS) if key.encode() not in binary] == []


def test_the_session_options_are_those_that_onnxruntime_knows() -> None:
    binary = b"".join(file.read_bytes() for file in CAPI.glob("onnxruntime_pybind11_state*"))
    elsewhere = {"mlas.enable_gemm_fastmath_arm64_bfloat16"}  # only in builds for Arm
    assert [key for key in sorted(session_keys.CONFIG - elsewhere) if key.encode() not in binary] == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("session.totally_bogus", "1", "session option 'session.totally_bogus': unknown to onnxruntime. Known: "),
        ("session.set_denormal_as_zeros", "1", "Did you mean 'session.set_denormal_as_zero'?"),
        ("session.force_spinning_stop", "1", "use --spin"),
        ("enable_mem_pattern", "yes", "is one of 0, 1, not 'yes'"),
    ],
)
def test_what_onnxruntime_would_ignore_is_refused(path: Path, key: str, value: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        session.open_session(path, SessionOptions(config={key: value}))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_session_options_reach_the_session(path: Path) -> None:
    given = {"session.set_denormal_as_zero": "1", "enable_mem_pattern": "0", "execution_order": "priority_based"}
    found = session.open_session(path, SessionOptions(config=given)).get_session_options()
    assert found.get_session_config_entry("session.set_denormal_as_zero") == "1"
    assert found.enable_mem_pattern is False
    assert found.execution_order.name == "PRIORITY_BASED"


def test_unknown_options_of_a_provider_are_refused(path: Path) -> None:
    with pytest.raises(UsageError, match=r"option 'use_tf33' of execution provider 'cuda': .* mean 'use_tf32'\?"):
        session.check_keys("cuda", {}, {"use_tf33": "0"})
    with pytest.raises(UsageError, match="option 'device_id' of execution provider 'cpu': unknown"):
        session.open_session(path, SessionOptions(provider_options={"device_id": "0"}))


def test_a_provider_gets_its_options_and_those_given(path: Path, fake_gpu: Callable[..., Any]) -> None:
    gpu = fake_gpu()
    session.open_session(path, SessionOptions(provider="cuda", provider_options={"use_tf32": "0"}))
    cuda = {"device_id": "0", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    assert gpu.asked == [{"CUDAExecutionProvider": cuda}]


def test_tensorrt_gives_cuda_what_it_refuses(path: Path, fake_gpu: Callable[..., Any]) -> None:
    gpu = fake_gpu("TensorrtExecutionProvider")
    session.open_session(path, SessionOptions(provider="tensorrt"))
    assert list(gpu.asked[0]) == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]


def test_a_silent_fall_back_to_the_cpu_is_an_error(path: Path, fake_gpu: Callable[..., Any]) -> None:
    fake_gpu(falls_back=True)
    with pytest.raises(UsageError, match=r"provider 'cuda': does not work here, .* on CPUExecutionProvider instead"):
        session.open_session(path, SessionOptions(provider="cuda"))


def test_a_provider_that_is_not_installed_is_said(path: Path) -> None:
    with pytest.raises(UsageError, match="provider 'coreml': the installed onnxruntime has"):
        session.open_session(path, SessionOptions(provider="coreml"))
