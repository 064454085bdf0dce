"""What this machine is, and how much of it this process may use.

Two latencies compare only between equal hosts, so these facts go into every measurement. Linux tells most of them; where
a fact cannot be had it is ``None``, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

INT8_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The part of a machine's description that changes how fast a model runs."""

    cpu: str
    arch: str
    features: tuple[str, ...]
    """Those of `INT8_FEATURES` that the CPU has."""
    cpus: int
    """Logical CPUs this process may run on (affinity)."""
    physical_cores: int
    quota_cpus: float | None
    """CPU limit of the control group, in CPUs; None when there is none."""
    memory_bytes: int | None
    """Memory limit: the smaller of the machine's and the control group's."""

    @property
    def fingerprint(self) -> str:
        """A short hash: equal for hosts whose latencies may be compared."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@cache
def describe() -> Host:
    """Describe this machine as this process sees it."""
    cpuinfo = _read("/proc/cpuinfo")
    fields = dict(_fields(cpuinfo))
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    cpus = _affinity()
    return Host(
        cpu=fields.get("model name") or platform.processor() or platform.machine(),
        arch=platform.machine(),
        features=tuple(name for name in INT8_FEATURES if name in flags),
        cpus=len(cpus),
        physical_cores=_physical_cores(cpus),
        quota_cpus=_quota_cpus(),
        memory_bytes=_memory_bytes(),
    )


def usable_threads() -> int:
    """Return how many threads can really run at once: affinity, quota and physical cores, whichever is smallest."""
    this = describe()
    quota = math.ceil(this.quota_cpus) if this.quota_cpus else this.cpus
    return max(1, min(this.cpus, quota, this.physical_cores))


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _physical_cores(cpus: Iterable[int]) -> int:
    """Count the cores behind these logical CPUs: hyper-threads of one core share its vector units."""
    siblings = set()
    for cpu in cpus:
        listed = _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").strip()
        siblings.add(listed or str(cpu))
    return max(1, len(siblings))


def _quota_cpus() -> float | None:
    limit, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")  # control groups, version 2
    if not limit:
        limit = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()  # version 1
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    if not limit.isdigit() or not period.isdigit():
        return None
    return int(limit) / int(period)


def _memory_bytes() -> int | None:
    total = dict(_fields(_read("/proc/meminfo"))).get("MemTotal", "")
    limits = [int(total.split()[0]) * 1024] if total else []
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        value = _read(file).strip()
        if value.isdigit():
            limits.append(int(value))
    return min(limits, default=None)


def _fields(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, found, value = line.partition(":")
        if found:
            yield name.strip(), value.strip()


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""
