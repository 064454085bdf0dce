"""What this machine is, and how much of it this process may use.

Two latencies compare only between equal hosts, so these facts go into every measurement. Linux tells most of them;
where a fact cannot be had it is ``None``, never a guess.
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
    """Memory limit: the smallest of the machine's and the control groups'."""

    @property
    def fingerprint(self) -> str:
        """A short hash: equal for hosts whose latencies may be compared (memory size does not matter to them)."""
        facts = asdict(self)
        del facts["memory_bytes"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbances:
    """Counters of what keeps a process from its CPUs. They only grow; differences of two readings mean something."""

    ticks: int
    """Clock ticks (usually 10 ms) of all usable CPUs together."""
    stolen_ticks: int
    """Those that the hypervisor gave to another machine."""
    throttled: int
    """How often a control group's CPU quota was used up."""
    preempted: int
    """How often a thread of this process had to leave its CPU to another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What else changes how fast this machine is, from one hour to the next."""

    governor: str | None
    """How the kernel sets the CPU's frequency; virtual machines often do not tell."""
    turbo: bool | None
    smt: bool | None
    """Whether hyper-threads are on."""
    numa_nodes: int | None
    load_average: float | None
    cpu_pressure_pct: float | None
    """Share of the last ten seconds in which some process waited for a CPU."""


def conditions() -> Conditions:
    """Look at the machine as it is now; nothing is changed."""
    cpu = Path("/sys/devices/system/cpu")
    no_turbo, boost = _read(f"{cpu}/intel_pstate/no_turbo").strip(), _read(f"{cpu}/cpufreq/boost").strip()
    smt = _read(f"{cpu}/smt/active").strip()
    pressure = next((line.split() for line in _read("/proc/pressure/cpu").splitlines() if line.startswith("some")), [])
    average = next((field.partition("=")[2] for field in pressure if field.startswith("avg10=")), "")
    return Conditions(
        governor=_read(f"{cpu}/cpu0/cpufreq/scaling_governor").strip() or None,
        turbo=no_turbo == "0" if no_turbo else boost == "1" if boost else None,
        smt=smt == "1" if smt else None,
        numa_nodes=len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        load_average=load_average(),
        cpu_pressure_pct=float(average) if average else None,
    )


@cache
def describe() -> Host:
    """Describe this machine as this process sees it."""
    cpuinfo = _read("/proc/cpuinfo")
    fields = dict(_fields(cpuinfo))
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    cpus = affinity()
    return Host(
        cpu=fields.get("model name") or platform.processor() or platform.machine(),
        arch=platform.machine(),
        features=tuple(name for name in INT8_FEATURES if name in flags),
        cpus=len(cpus),
        physical_cores=len(one_cpu_per_core()),
        quota_cpus=_quota_cpus(),
        memory_bytes=_memory_bytes(),
    )


def usable_threads() -> int:
    """Return how many threads can really run at once: affinity, quota and physical cores, whichever is smallest."""
    this = describe()
    quota = math.ceil(this.quota_cpus) if this.quota_cpus else this.cpus
    return max(1, min(this.cpus, quota, this.physical_cores))


def affinity() -> list[int]:
    """Return the logical CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def one_cpu_per_core() -> list[int]:
    """Return one usable logical CPU of each physical core: hyper-threads of one core share its vector units."""
    cores: dict[str, int] = {}
    for cpu in affinity():
        siblings = _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").strip()
        cores.setdefault(siblings or str(cpu), cpu)
    return sorted(cores.values())


def peak_memory_bytes() -> int | None:
    """Return the peak resident memory of this process.

    VmHWM, not ``ru_maxrss``: that one is inherited through exec, and shows a child what its parent once used.
    """
    peak = dict(_fields(_read("/proc/self/status"))).get("VmHWM", "")
    return int(peak.split()[0]) * 1024 if peak else None


def load_average() -> float | None:
    """Return how many processes wanted a CPU during the last minute, on average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def disturbances() -> Disturbances:
    """Read the counters of what keeps this process from its CPUs; those that the system does not have stay 0."""
    wanted = {f"cpu{cpu}" for cpu in affinity()}
    lines = [line.split() for line in _read("/proc/stat").splitlines()]
    # user nice system idle iowait irq softirq steal; guest time after that is part of user time already
    times = [[int(field) for field in line[1:9]] for line in lines if line and line[0] in wanted]
    return Disturbances(
        ticks=sum(map(sum, times)),
        stolen_ticks=sum(fields[7] for fields in times if len(fields) > 7),
        throttled=sum(
            int(value) for stat in _cgroup("cpu", "cpu.stat") for name, value in _pairs(stat) if name == "nr_throttled"
        ),
        preempted=sum(
            int(dict(_fields(_read(f"{task}/status"))).get("nonvoluntary_ctxt_switches", 0)) for task in _tasks()
        ),
    )


def _quota_cpus() -> float | None:
    quotas = [limit.split() for limit in _cgroup("cpu", "cpu.max")]  # version 2
    periods = _cgroup("cpu", "cpu.cfs_period_us")  # version 1
    quotas += [[quota, period] for quota, period in zip(_cgroup("cpu", "cpu.cfs_quota_us"), periods, strict=False)]
    limits = [int(quota) / int(period) for quota, period in quotas if quota.isdigit()]
    return min(limits, default=None)


def _memory_bytes() -> int | None:
    total = dict(_fields(_read("/proc/meminfo"))).get("MemTotal", "")
    limits = [int(total.split()[0]) * 1024] if total else []
    for file in ("memory.max", "memory.limit_in_bytes"):
        limits += [int(value) for value in _cgroup("memory", file) if value.isdigit()]
    return min(limits, default=None)


def _cgroup(controller: str, file: str) -> list[str]:
    """Return what a file says in this process's control group and in all groups around it, the innermost first.

    Each of them can set a limit. Both versions are looked for; inside a container the group's own path may not be
    visible, and its files are then at the root.
    """
    found = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = Path("/sys/fs/cgroup") / (controller if controllers else "")
        path = Path(group)
        for place in (path, *path.parents):
            text = _read(str(mount / str(place).lstrip("/") / file)).strip()
            if text:
                found.append(text)
    return found


def _tasks() -> list[str]:
    try:
        return [str(task) for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return []


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        yield name, value.strip()


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
