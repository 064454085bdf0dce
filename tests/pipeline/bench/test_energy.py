from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from onnxpress.bench import energy


@dataclass
class Machine:
    """Draws ten watts idle and 35 while it works; a clock of its own."""

    now: float = 0.0
    drawn: float = 100.0
    name: str = "meter"
    window_s: float = 4.0

    def joules(self) -> float:
        return self.drawn

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.drawn += 10 * seconds

    def work(self, seconds: float) -> int:
        self.now += seconds
        self.drawn += 35 * seconds
        return round(50 * seconds)  # fifty samples a second


def test_net_energy_is_what_the_idle_machine_does_not_draw() -> None:
    machine = Machine()
    found = energy.measure([machine], [machine.work] * 3, clock=lambda: machine.now, sleep=machine.sleep)
    assert found.source == "meter" and found.window_s == 12
    assert found.idle_w == pytest.approx(10)
    assert found.j_per_inference == pytest.approx(35 / 50)
    assert found.net_j_per_inference == pytest.approx(25 / 50)


def test_energy_has_an_interval_over_processes() -> None:
    machine = Machine()

    def work(factor: float) -> Callable[[float], int]:
        return lambda seconds: round(factor * machine.work(seconds))

    found = energy.measure([machine], map(work, (1.0, 1.25, 0.8)), clock=lambda: machine.now, sleep=machine.sleep)
    assert found.j_per_inference == pytest.approx(0.7 * (1 + 0.8 + 1.25) / 3)
    low, high = found.bounds or (0, 0)
    assert (high - low) / 2 == pytest.approx(4.3027 * 0.7 * np.std([1, 0.8, 1.25], ddof=1) / np.sqrt(3), rel=1e-4)
    few = energy.measure([machine], [machine.work], clock=lambda: machine.now, sleep=machine.sleep)
    assert few.bounds is None


def test_counters_add_up() -> None:
    machine = Machine()
    found = energy.measure([machine, machine], [machine.work] * 3, clock=lambda: machine.now, sleep=machine.sleep)
    assert found.j_per_inference == pytest.approx(2 * 35 / 50)
    assert found.source == "meter+meter"


def test_without_a_counter_there_is_no_number() -> None:
    machine = Machine()
    found = energy.measure([], [machine.work], clock=lambda: machine.now, sleep=machine.sleep)
    assert found == energy.Energy(source="unavailable")
    assert machine.now == 0  # and no time is spent


def zone(root: Path, place: str, name: str, microjoules: int) -> Path:
    folder = root / f"intel-rapl:{place}"
    folder.mkdir()
    (folder / "name").write_text(name + "\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("999999\n")
    return folder / "energy_uj"


def test_rapl_counts_packages_and_memory_and_survives_a_wrap(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 900_000)
    memory = zone(tmp_path, "0:1", "dram", 10)
    zone(tmp_path, "0:0", "core", 5)
    zone(tmp_path, "1", "psys", 5)
    found = energy.rapl(tmp_path)
    assert found is not None and found.name == "rapl:package-0+dram"
    package.write_text("950000")
    memory.write_text("20010")
    assert found.joules() == pytest.approx(0.07)
    package.write_text("50000")  # it started again after 999,999
    assert found.joules() == pytest.approx(0.07 + 0.1)


def test_no_rapl_no_counter(tmp_path: Path) -> None:
    assert energy.rapl(tmp_path) is None
    zone(tmp_path, "0", "package-0", 1).chmod(0)
    if not _is_root(tmp_path):
        assert energy.rapl(tmp_path) is None


def _is_root(folder: Path) -> bool:
    try:
        (folder / "intel-rapl:0" / "energy_uj").read_text()
    except OSError:
        return False
    return True
