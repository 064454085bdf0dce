"""What NVIDIA's driver tells of a GPU, by its management library (NVML), without a Python package.

Where there is no such library, or it refuses to answer, a fact is None: a virtual GPU, a MIG slice and a container each
keep something back.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

LIBRARIES = ("libnvidia-ml.so.1", "nvml.dll")
SM_CLOCK, MEMORY_CLOCK = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as it was before the benchmark."""

    name: str | None
    driver: str | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    throttle_reasons: int | None
    """NVML's bit mask; 0 for none, 1 for idle."""
    power_limit_w: float | None
    mig: bool | None
    memory_bytes: int | None
    memory_used_bytes: int | None
    other_processes: int | None
    """Processes that compute on it, before ours."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Nvml:
    """One GPU, and its counter of energy.

    Args:
        library: The loaded library, or something that behaves like it.
        device_id: Number of the GPU, as the driver counts those that are visible here.

    """

    window_s = 10.0
    """Its counter moves in steps of some tenths of a second."""

    def __init__(self, library: Any, device_id: int) -> None:  # noqa: ANN401 - a C library
        self._library, self._device = library, ctypes.c_void_p()
        self.name = f"nvml:{device_id}"
        self._found = not library.nvmlInit_v2() and not self._handle(device_id)

    def _handle(self, device_id: int) -> int:
        visible = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
        chosen = visible[device_id] if device_id < len(visible) else str(device_id)
        pointer = ctypes.byref(self._device)
        if chosen.isdigit():
            return int(self._library.nvmlDeviceGetHandleByIndex_v2(int(chosen), pointer))
        return int(self._library.nvmlDeviceGetHandleByUUID(chosen.encode(), pointer))

    def counts_energy(self) -> bool:
        """Tell whether this GPU has a counter of energy (Volta and later)."""
        return self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong) is not None

    def joules(self) -> float:
        """Return the energy since the driver was loaded."""
        return (self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong) or 0) / 1e3

    def describe(self) -> Gpu | None:
        """Describe the GPU as it is now; None where there is none."""
        if not self._found:
            return None
        memory = self._memory()
        limit = self._number("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint)
        mig = self._number("nvmlDeviceGetMigMode", ctypes.c_uint, extra=ctypes.byref(ctypes.c_uint()))
        return Gpu(
            name=self._text("nvmlDeviceGetName"),
            driver=self._text("nvmlSystemGetDriverVersion", of_device=False),
            sm_clock_mhz=self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, SM_CLOCK),
            memory_clock_mhz=self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, MEMORY_CLOCK),
            throttle_reasons=self._number("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong),
            power_limit_w=None if limit is None else limit / 1e3,
            mig=None if mig is None else bool(mig),
            memory_bytes=memory.total if memory else None,
            memory_used_bytes=memory.used if memory else None,
            other_processes=self._processes(),
        )

    def used_bytes(self) -> int | None:
        """Return the memory in use on the whole GPU, contexts of all processes included."""
        memory = self._memory() if self._found else None
        return memory.used if memory else None

    def _memory(self) -> _Memory | None:
        memory = _Memory()
        failed = self._library.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory))
        return None if failed else memory

    def _processes(self) -> int | None:
        # Asked with no room for an answer: the number comes with the error "insufficient size" (7).
        count = ctypes.c_uint(0)
        code = self._library.nvmlDeviceGetComputeRunningProcesses_v3(self._device, ctypes.byref(count), None)
        return count.value if code in (0, 7) else None

    def _number(self, function: str, kind: type[Any], *arguments: object, extra: object = None) -> int | None:
        if not self._found:
            return None
        value = kind()
        more = () if extra is None else (extra,)
        failed = getattr(self._library, function)(self._device, *arguments, ctypes.byref(value), *more)
        return None if failed else int(value.value)

    def _text(self, function: str, *, of_device: bool = True) -> str | None:
        text = ctypes.create_string_buffer(96)
        before = (self._device,) if of_device else ()
        return None if getattr(self._library, function)(*before, text, 96) else text.value.decode()


def gpu(device_id: int) -> Nvml | None:
    """Return a GPU of this machine; None where NVIDIA's driver is not installed."""
    for name in LIBRARIES:
        try:
            return Nvml(ctypes.CDLL(name), device_id)
        except OSError:
            continue
    return None
