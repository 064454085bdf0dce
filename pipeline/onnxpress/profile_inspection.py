"""What a profile holds, for people and programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onnxpress.units import format_bytes
from onnxpress_calibration.profile import SCHEMA, Profile
from onnxpress_calibration.statistics import TensorStatistics

CELLS = 24
"""Cells of the small histogram, from the lowest to the highest value."""
BLOCKS = " ▁▂▃▄▅▆▇█"
SHOWN = 60
"""Tensors shown to people; the widest ranges first."""
MAGIC = b"PK\x03\x04"


def is_profile(path: Path) -> bool:
    """Tell a profile from an ONNX file: it is a zip archive of arrays."""
    if not path.is_file():  # one that is no regular file may never end, or never begin
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def document(profile: Profile) -> dict[str, Any]:
    """Describe a profile: its hashes, samples, and of each tensor the range, tails, zeros and channels."""
    return {
        "schema": SCHEMA,
        "model_sha256": profile.model_sha256,
        "data_sha256": profile.data_sha256,
        "samples": profile.samples,
        "tensors": {name: _tensor(each) for name, each in sorted(profile.tensors.items())},
    }


def render(found: dict[str, Any], path: Path) -> list[str]:
    """Return such a document for people, in lines."""
    tensors = {name: each for name, each in found["tensors"].items() if each["counted"]}
    by_channel = sum(each["channels"] is not None for each in tensors.values())
    lines = [
        f"{path}  {format_bytes(path.stat().st_size)}, {found['samples']} samples, {len(found['tensors'])} tensors, "
        f"{by_channel} of them by channel",
        f"  model sha256 {found['model_sha256'][:12]}, data sha256 {found['data_sha256'][:12]}",
        "",
        f"  {'tensor':<40} {'lowest':>10} {'0.01 %':>10} {'99.99 %':>10} {'highest':>10} {'zeros':>6} {'channels':>8}"
        "  how often, on a logarithmic scale",
    ]
    widest = sorted(tensors, key=lambda name: tensors[name]["low"] - tensors[name]["high"])
    for name in widest[:SHOWN]:
        each = tensors[name]
        numbers = " ".join(f"{each[key]:>10.4g}" for key in ("low", "p0_01", "p99_99", "high"))
        lines.append(
            f"  {name[-40:]:<40} {numbers} {each['zeros_pct']:>4.0f} % {each['channels'] or '':>8}  "
            f"{_bars(each['histogram'])}"
        )
    if len(widest) > SHOWN:
        lines.append(f"  and {len(widest) - SHOWN} tensors with narrower ranges (--json lists all)")
    lines += [f"  never computed: {name}" for name, each in found["tensors"].items() if not each["counted"]]
    return lines


def _tensor(statistics: TensorStatistics) -> dict[str, Any]:
    count, channels = statistics.count, statistics.channels
    if count == 0:
        return {"counted": 0, "low": None, "high": None, "channels": None}
    values, counts = statistics.histogram()
    share = np.cumsum(counts) / count
    low, high = (float(values[min(int(np.searchsorted(share, part)), len(values) - 1)]) for part in (1e-4, 1 - 1e-4))
    cells, _ = np.histogram(values, CELLS, (statistics.low, statistics.high), weights=counts)
    return {
        "counted": count,
        "low": statistics.low,
        "high": statistics.high,
        "p0_01": low,
        "p99_99": high,
        "zeros_pct": 100 * float(counts[values == 0].sum()) / count,
        "channels": None if channels is None else len(channels.low),
        "histogram": [int(cell) for cell in cells],
    }


def _bars(cells: list[int]) -> str:
    """Draw a histogram in one line: a cell with one value is seen, and ten times as many are one step more."""
    top = np.log10(max(cells)) or 1
    return "".join(BLOCKS[round(1 + (len(BLOCKS) - 2) * np.log10(cell) / top)] if cell else " " for cell in cells)
