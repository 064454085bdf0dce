"""Whether the open loop behaves like the queue that it is: mean waits against theory at three loads.

    python benchmarks/bench/open_loop.py [--model squeezenet] [--seconds 20]

Requests arrive as a Poisson process at one server. Were its service time always the same, the mean wait over a long
time would be that of M/D/1: W = rho s / (2 (1 - rho)), with s the service time and rho the load. Some thousand requests
are no long time: beside it stands what a server that always takes s makes of the very same arrivals (Lindley).
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
from models import real

from onnxpress import artifact
from onnxpress.bench.inputs import prepare
from onnxpress.bench.messages import Load
from onnxpress.bench.process import WorkerProcess
from onnxpress.bench.serving import arrivals_ns

LOADS = (0.3, 0.5, 0.7)


def main() -> None:
    """Run all loads and print theory beside measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="squeezenet")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1, help="waking others up makes service times vary")
    chosen = parser.parse_args()
    path = real(chosen.model)
    fed = prepare({"model": artifact.load(path)}, baseline="model", data=None, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fed.save(folder / "samples.npz")
        request = Load(
            model=str(path),
            provider="cpu",
            threads=chosen.threads,
            spin="stop",
            samples=str(folder / "samples.npz"),
            names=tuple(fed.samples[0]),
        )
        with closing(WorkerProcess(chosen.model, request, folder / "log")) as worker:
            worker.load()
            run_ms = worker.warm_up(1).run_ms
            print("wanted   load  service ms    cv  wait ms: M/D/1  same arrivals  measured  ÷ M/D/1  ÷ same  requests")
            for wanted in LOADS:
                rate = 1e3 * wanted / run_ms
                count = int(rate * chosen.seconds)
                served = worker.serve(rate, count, seed=11)
                service_ms = np.array(served.services_ns) / 1e6
                wait_ms = np.array(served.latencies_ns) / 1e6 - service_ms
                mean_ms, variation = float(service_ms.mean()), float(service_ms.std() / service_ms.mean())
                due_ms = np.array(arrivals_ns(rate, count, seed=11)) / 1e6
                load = mean_ms * count / due_ms[-1]  # of the arrivals as they were
                theory, same = load * mean_ms / (2 * (1 - load)), lindley(due_ms, mean_ms)
                facts = (wanted, load, mean_ms, variation, theory, same, float(wait_ms.mean()))
                line = "{:.1f}     {:.3f} {:10.3f} {:6.2f} {:14.3f} {:14.3f} {:9.3f}".format(*facts)
                print(f"{line} {facts[-1] / theory:8.2f} {facts[-1] / same:7.2f} {count:9d}", flush=True)


def lindley(due_ms: np.ndarray, service_ms: float) -> float:
    """Return the mean wait of requests at a server that always takes the same time."""
    wait, total = 0.0, 0.0
    for gap in np.diff(due_ms):
        wait = max(0.0, wait + service_ms - float(gap))
        total += wait
    return total / len(due_ms)


if __name__ == "__main__":
    main()
