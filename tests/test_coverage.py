"""The simulation of the intervals (benchmarks/statistics/coverage.py) on a few trials: its cells are all sound."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "statistics" / "coverage.py"
spec = importlib.util.spec_from_file_location("coverage_of_verdicts", FILE)
assert spec is not None and spec.loader is not None
coverage = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = coverage
spec.loader.exec_module(coverage)


@pytest.mark.parametrize(("table", "trials"), [("proportions", 100), ("shares", 50), ("latency", 30), ("looks", 50)])
def test_every_cell_is_sound(table: str, trials: int) -> None:
    cells = list(coverage.TABLES[table](np.random.default_rng(1), trials))
    assert len(cells) >= 10
    assert [str(cell) for cell in cells if not cell.sound] == []


def test_a_cell_that_errs_is_not() -> None:
    ends = np.zeros(1000)
    passing = coverage.Cell("passes wrongly", ends, np.where(np.arange(1000) < 100, -1.0, 1.0), 0.0)
    assert (passing.passes, passing.sound) == (0.1, False)
    silent = coverage.Cell("gives none", ends - np.inf, ends + np.inf, 0.0)
    assert (silent.given, silent.holds, silent.sound) == (0, 1, True)
