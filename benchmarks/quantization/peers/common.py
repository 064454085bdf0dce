"""What the peers' scripts share; it runs in their environments and needs only numpy."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def request() -> dict:
    """Return what the script was asked for: mode, model, samples, output."""
    return json.loads(sys.argv[1])


def feeds(path: str) -> list:
    """Return the calibration samples, one dict of arrays for each run."""
    with np.load(path) as file:
        runs: dict = {}
        for key in file.files:
            index, _, name = key.partition(".")
            runs.setdefault(int(index), {})[name] = file[key]
    return [runs[index] for index in sorted(runs)]


def report(work: Callable[[], None]) -> None:
    """Do the work and print what it took."""
    start = time.perf_counter()
    try:
        work()
    except Exception as error:
        print("RESULT", json.dumps({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:250]}"}))
        return
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    print("RESULT", json.dumps({"seconds": round(seconds, 2), "peak_bytes": peak}))
