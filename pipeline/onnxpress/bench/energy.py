"""Energy of a run, from the machine's own counters: RAPL of Intel and AMD CPUs, NVML of NVIDIA GPUs.

Both count what the whole package or card draws, whoever uses it, and nothing of the power supply, fans and (mostly)
memory: a lower bound of what the socket gives. RAPL's files are readable by root only (CVE-2020-8694), masked in
containers and absent in most virtual machines; then there is no number, and the source says ``unavailable``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Protocol

from onnxpress.bench.statistics import MIN_PROCESSES
from onnxpress.intervals import student_interval

RAPL = Path("/sys/class/powercap")
UNAVAILABLE = "unavailable"


class Counter(Protocol):
    """Something that counts joules."""

    name: str
    window_s: float
    """The shortest time that its steps allow to be measured."""

    def joules(self) -> float:
        """Return the energy since some fixed time; only differences mean something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What runs of one variant drew."""

    source: str
    """Names of the counters, or ``unavailable``."""
    j_per_inference: float | None = None
    """All that was drawn, per sample."""
    net_j_per_inference: float | None = None
    """Beyond what the idle machine draws."""
    idle_w: float | None = None
    window_s: float | None = None
    bounds: tuple[float, float] | None = None
    """Between which ``j_per_inference`` lies, at 95% at least; None from fewer than `MIN_PROCESSES`."""


class Rapl:
    """One package (and its memory, where that is counted apart) of Intel's or AMD's running average power limit.

    ``psys`` is left out: it contains the packages. A counter starts again at zero after ``max_energy_range_uj``.
    """

    window_s = 2.0

    def __init__(self, zones: Sequence[Path]) -> None:
        self.name = "rapl:" + "+".join((zone / "name").read_text().strip() for zone in zones)
        self._zones = [(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())) for zone in zones]
        self._last = [int(file.read_text()) for file, _ in self._zones]
        self._total_uj = 0

    def joules(self) -> float:
        """Return the energy since this object was made."""
        for place, (file, range_uj) in enumerate(self._zones):
            now = int(file.read_text())
            self._total_uj += (now - self._last[place]) % (range_uj + 1)
            self._last[place] = now
        return self._total_uj / 1e6


def rapl(root: Path = RAPL) -> Rapl | None:
    """Return the counter of all CPU packages and their memory; None where it cannot be read."""
    zones = []
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            (zone / "energy_uj").read_text()
        except OSError:
            continue
        if name.startswith(("package", "dram")):
            zones.append(zone)
    return Rapl(zones) if zones else None


def measure(
    counters: Sequence[Counter],
    works: Iterable[Callable[[float], int]],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> Energy:
    """Measure what one sample draws: the machine idle for a while, then working for as long, in several processes.

    Args:
        counters: What counts; none gives ``unavailable``.
        works: One for each process: runs the model for about so many seconds and returns how many samples that were.
        clock: Seconds.
        sleep: Waits for seconds.

    """
    if not counters:
        return Energy(source=UNAVAILABLE)
    window_s = max(counter.window_s for counter in counters)

    def drawn(during: Callable[[], int]) -> tuple[float, float, int]:
        before, start = [counter.joules() for counter in counters], clock()
        samples = during()
        seconds = clock() - start
        after = [counter.joules() for counter in counters]
        return sum(after) - sum(before), seconds, samples

    def idle() -> int:
        sleep(window_s)
        return 0

    idle_j, idle_s, _ = drawn(idle)
    parts = [drawn(lambda work=work: work(window_s)) for work in works]  # type: ignore[misc]
    gross = [gross_j / samples for gross_j, _, samples in parts]
    return Energy(
        source="+".join(counter.name for counter in counters),
        j_per_inference=fmean(gross),
        net_j_per_inference=fmean(
            (gross_j - idle_j / idle_s * seconds) / samples for gross_j, seconds, samples in parts
        ),
        idle_w=idle_j / idle_s,
        window_s=sum(seconds for _, seconds, _ in parts),
        bounds=student_interval(gross) if len(gross) >= MIN_PROCESSES else None,
    )
