"""NVML, spoken to through a library that is written in Python."""

import ctypes
from typing import Any

import pytest

from onnxpress.bench import nvml
from onnxpress.bench.nvml import Nvml

NOT_SUPPORTED = 3


class Library:
    """A driver with one GPU that works; ``refuses`` names what it does not answer."""

    def __init__(self, *refuses: str) -> None:
        self.refuses, self.asked = refuses, ""
        self.energy_mj = 5000

    def __getattr__(self, name: str) -> Any:
        if name in self.refuses:
            return lambda *_: NOT_SUPPORTED
        return {
            "nvmlInit_v2": lambda: 0,
            "nvmlDeviceGetHandleByIndex_v2": self._by_index,
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetTotalEnergyConsumption": lambda _, out: self._put(out, self.energy_mj),
            "nvmlDeviceGetEnforcedPowerLimit": lambda _, out: self._put(out, 300_000),
            "nvmlDeviceGetMigMode": lambda _, out, __: self._put(out, 0),
            "nvmlDeviceGetName": lambda _, buffer, __: self._text(buffer, b"NVIDIA Fake"),
            "nvmlSystemGetDriverVersion": lambda buffer, _: self._text(buffer, b"580.1"),
            "nvmlDeviceGetClockInfo": lambda _, kind, out: self._put(out, 1000 * kind),
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _, out: self._put(out, 1),
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetComputeRunningProcesses_v3": lambda _, count, __: self._put(count, 2) or 7,
        }[name]

    def _put(self, out: Any, value: int) -> int:
        out._obj.value = value
        return 0

    def _text(self, buffer: Any, text: bytes) -> int:
        buffer.value = text
        return 0

    def _memory(self, _device: object, out: Any) -> int:
        out._obj.total, out._obj.used = 80, 30
        return 0

    def _by_index(self, index: int, _out: object) -> int:
        self.asked = f"index {index}"
        return 0

    def _by_uuid(self, uuid: bytes, _out: object) -> int:
        self.asked = f"uuid {uuid.decode()}"
        return 0


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_is_described() -> None:
    found = Nvml(Library(), 0).describe()
    assert found == nvml.Gpu(
        name="NVIDIA Fake",
        driver="580.1",
        sm_clock_mhz=1000,
        memory_clock_mhz=2000,
        throttle_reasons=1,
        power_limit_w=300.0,
        mig=False,
        memory_bytes=80,
        memory_used_bytes=30,
        other_processes=2,
    )


def test_energy_is_in_joules() -> None:
    library = Library()
    one = Nvml(library, 0)
    before = one.joules()
    library.energy_mj += 12_500
    assert one.counts_energy() and one.joules() - before == 12.5
    assert one.used_bytes() == 30


def test_what_the_driver_does_not_tell_is_none() -> None:
    quiet = Nvml(Library("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMigMode"), 0)
    found = quiet.describe()
    assert found is not None and (found.memory_bytes, found.mig, found.name) == (None, None, "NVIDIA Fake")
    assert not quiet.counts_energy() and quiet.used_bytes() is None


@pytest.mark.parametrize("broken", ["nvmlInit_v2", "nvmlDeviceGetHandleByIndex_v2"])
def test_no_gpu_is_no_error(broken: str) -> None:
    one = Nvml(Library(broken), 0)
    assert one.describe() is None and one.used_bytes() is None and not one.counts_energy()


@pytest.mark.parametrize(("visible", "asked"), [("2,3", "index 3"), ("GPU-a,GPU-b", "uuid GPU-b"), ("", "index 1")])
def test_the_second_visible_gpu(monkeypatch: pytest.MonkeyPatch, visible: str, asked: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    library = Library()
    Nvml(library, 1)
    assert library.asked == asked


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nvml.gpu(0) is None
