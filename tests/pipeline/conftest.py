"""What tests of several folders of the pipeline share: an onnxruntime that believes to have a GPU."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxpress import session


@dataclass
class FakeGpu:
    """onnxruntime on the CPU, that says it runs on a GPU and writes down what it was asked for."""

    name: str = "CUDAExecutionProvider"
    falls_back: bool = False
    """The provider is compiled in, but cannot be created: onnxruntime silently uses the CPU."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Providers and options of each session."""
    values: list[str] = field(default_factory=list)
    """Device of each value."""
    graphs: list[str] = field(default_factory=list)
    """Graph number of each run that has one."""
    updates: int = 0

    def module(self) -> SimpleNamespace:
        """Return what stands for the module ``onnxruntime``."""
        real = {name: getattr(onnxruntime, name) for name in ("SessionOptions", "ExecutionMode", "ExecutionOrder")}
        return SimpleNamespace(
            **real,
            GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
            __version__=onnxruntime.__version__,
            get_available_providers=lambda: [self.name, "CPUExecutionProvider"],
            set_default_logger_severity=lambda _: None,
            InferenceSession=self.open,
            RunOptions=self.run_options,
            OrtValue=SimpleNamespace(ortvalue_from_numpy=self.value),
        )

    def open(self, path: str, settings: Any, *, providers: list[str], provider_options: list[dict[str, str]]) -> Any:
        self.asked.append(dict(zip(providers, provider_options, strict=True)))
        opened = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        return FakeSession(opened, self)

    def value(self, array: np.ndarray, device: str, device_id: int) -> Any:
        self.values.append(f"{device}:{device_id}")
        return FakeValue(onnxruntime.OrtValue.ortvalue_from_numpy(array.copy()), self)

    def run_options(self) -> Any:
        return SimpleNamespace(add_run_config_entry=lambda key, value: self.graphs.append(f"{key}={value}"))


@dataclass
class FakeValue:
    real: Any
    gpu: FakeGpu

    def update_inplace(self, array: np.ndarray) -> None:
        self.gpu.updates += 1
        self.real.update_inplace(array)


@dataclass
class FakeBinding:
    real: Any

    def bind_ortvalue_input(self, name: str, value: FakeValue) -> None:
        self.real.bind_ortvalue_input(name, value.real)

    def bind_ortvalue_output(self, name: str, value: FakeValue) -> None:
        self.real.bind_ortvalue_output(name, value.real)

    def bind_output(self, name: str, device: str, device_id: int) -> None:
        assert (device, device_id) == ("cuda", 0)
        self.real.bind_output(name)

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        found: list[np.ndarray] = self.real.copy_outputs_to_cpu()
        return found


class FakeSession:
    def __init__(self, real: Any, gpu: FakeGpu) -> None:
        self.real, self.gpu = real, gpu
        self.get_inputs, self.get_outputs = real.get_inputs, real.get_outputs
        self.disable_fallback = real.disable_fallback

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"] if self.gpu.falls_back else [self.gpu.name, "CPUExecutionProvider"]

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self.real.io_binding())

    def run(self, names: list[str], feeds: dict[str, Any], _options: Any) -> Any:
        return self.real.run(names, feeds)

    def run_with_iobinding(self, binding: FakeBinding, _options: Any) -> None:
        self.real.run_with_iobinding(binding.real)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeGpu]:
    """Put an onnxruntime in place that believes to have a GPU; takes the fields of `FakeGpu`."""

    def use(name: str = "CUDAExecutionProvider", *, falls_back: bool = False) -> FakeGpu:
        gpu = FakeGpu(name=name, falls_back=falls_back)
        monkeypatch.setattr(session, "onnxruntime", gpu.module)
        return gpu

    return use


@pytest.fixture
def bench_document() -> dict[str, Any]:
    """A benchmark of one model, of 2 GB, that does 100 inferences a second."""
    return {
        "schema": "onnxpress.bench/1",
        "host": {"cpu": "some CPU", "fingerprint": "f00"},
        "runtime": {"onnxruntime": "1.23.0", "provider": "cpu", "threads": 1},
        "baseline": "float",
        "variants": [
            {
                "id": "float",
                "model": {"sha256": "0", "size_bytes": 2 * 10**9},
                "latency_ms": {"n": 1000, "min": 9.0, "p50": 10.0, "mean": 10.0},
                "throughput_per_s": {"value": 100.0, "low": 99.0, "high": 101.0, "scenario": "single"},
                "cold_start_ms": {"import": 500.0, "session": 400.0, "first_run": 100.0},
                "memory": {"vm_hwm_bytes": None},
            }
        ],
        "comparisons": [],
        "fit_for_gating": True,
    }
