"""Calibrators: from a tensor's statistics to the range (low, high) that quantization keeps. One file each.

A calibrator is a module with ``choose(statistics, *, levels, importance) -> (low, high)``; ``levels`` is the number of
steps of the grid, 256 for 8 bits, and ``importance`` the squared norm of the weights that read each channel, where that
is known. The word in a recipe is the file's name.
"""

from __future__ import annotations

import importlib
import pkgutil

from onnxpress_calibration.statistics import Array, TensorStatistics


def names() -> list[str]:
    """Return the names of the calibrators: the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def choose(
    name: str, statistics: TensorStatistics, *, levels: int = 256, importance: Array | None = None
) -> tuple[float, float]:
    """Return the range that calibrator ``name`` picks; a tensor that was never computed gets (0, 0)."""
    if statistics.count == 0:
        return 0.0, 0.0
    module = importlib.import_module(f"{__name__}.{name}")
    low, high = module.choose(statistics, levels=levels, importance=importance)
    return float(low), float(high)
