"""Whether the open loop behaves like the queue that it is: mean waits against M/D/1 theory at three loads.

    python benchmarks/bench/open_loop.py [--model squeezenet] [--seconds 20]

Requests arrive as a Poisson process at one server whose service time varies little, so Pollaczek and Khinchine give the
mean wait: W = rho s (1 + c²) / (2 (1 - rho)), where rho is the load, s the service time and c its coefficient of
variation (0 in M/D/1). Service times are measured by requests that come far apart.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
from models import real

from onnxpress import artifact, host
from onnxpress.bench.inputs import prepare
from onnxpress.bench.messages import Load
from onnxpress.bench.process import WorkerProcess

LOADS = (0.3, 0.5, 0.7)


def main() -> None:
    """Run all loads and print theory beside measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="squeezenet")
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    path = real(chosen.model)
    fed = prepare({"model": artifact.load(path)}, baseline="model", data=None, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fed.save(folder / "samples.npz")
        request = Load(
            model=str(path),
            provider="cpu",
            threads=host.usable_threads(),
            spin="stop",
            samples=str(folder / "samples.npz"),
            names=tuple(fed.samples[0]),
        )
        with closing(WorkerProcess(chosen.model, request, folder / "log")) as worker:
            worker.load()
            run_ms = worker.warm_up(1).run_ms
            print("load   service ms  cv    wait: M/D/1   with cv  measured ms  ratio to M/D/1  requests")
            for load in LOADS:
                apart = max(30, int(0.2 * chosen.seconds * 1e3 / (10 * run_ms)))
                alone = np.array(worker.serve(100 / run_ms, apart, seed=7).latencies_ns) / 1e6
                service_ms, variation = float(alone.mean()), float(alone.std() / alone.mean())
                rate = load * 1e3 / service_ms
                served = np.array(worker.serve(rate, int(rate * chosen.seconds), seed=11).latencies_ns) / 1e6
                wait = float(served.mean()) - service_ms
                theory = load * service_ms / (2 * (1 - load))
                facts = (service_ms, variation, theory, theory * (1 + variation**2), wait, wait / theory, len(served))
                print(f"{load:.1f}  {'{:12.3f} {:5.2f} {:13.3f} {:9.3f} {:12.3f} {:15.2f} {:9d}'.format(*facts)}")


if __name__ == "__main__":
    main()
