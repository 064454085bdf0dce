"""`bench`: measure the speed, start-up and memory of several models so that they can be compared."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxpress import artifact, host
from onnxpress.artifact import Artifact
from onnxpress.bench import doubts, protocol
from onnxpress.bench.comparison import compare, durations_ms
from onnxpress.bench.inputs import Inputs, prepare
from onnxpress.bench.measurement import Measurement
from onnxpress.bench.messages import Load
from onnxpress.bench.options import BenchOptions
from onnxpress.bench.process import WorkerProcess
from onnxpress.bench.protocol import Advance, Variant
from onnxpress.bench.result import Bench, Measured
from onnxpress.bench.scenarios import BATCHES
from onnxpress.errors import UsageError, did_you_mean
from onnxpress_calibration.dataset import Dataset

AGAIN = "\N{NO-BREAK SPACE}"
"""Name of the second copy of the baseline in an A/A check: no user can have taken it."""


def bench(
    models: Mapping[str, Path],
    *,
    baseline: str,
    options: BenchOptions,
    inputs: Dataset | None,
    advance: Advance = lambda percent: None,  # noqa: ARG005
) -> Bench:
    """Measure models against each other on this machine.

    Args:
        models: Model files by variant; they take the same inputs.
        baseline: The variant that all others are compared with.
        options: How to measure.
        inputs: Real samples; None for synthetic ones.
        advance: Called with the percent done since the last call, 100 in all.

    Raises:
        UsageError: there is no such baseline or file, or the provider cannot be used here.
        ModelError: a model cannot be loaded, run or compared, or its process died.
        DataError: the samples do not fit.

    """
    if baseline not in models:
        raise UsageError(f"baseline {baseline!r}: is not among the models.{did_you_mean(baseline, models)}")
    artifacts = {name: artifact.read(path) for name, path in models.items()}
    graphs = {name: artifact.load(path) for name, path in models.items()}
    fed = prepare(graphs, baseline=baseline, data=inputs, seed=options.seed)
    threads = options.threads or host.usable_threads()
    load_average = host.load_average()
    files = dict(models) | ({AGAIN: models[baseline]} if options.aa else {})
    with tempfile.TemporaryDirectory(prefix="onnxpress-bench-") as folder:
        fed.save(Path(folder) / "samples.npz")

        def launch(name: str) -> WorkerProcess:
            request = Load(
                model=str(files[name]),
                provider=options.providers[0],
                threads=threads,
                spin=options.spin,
                samples=str(Path(folder) / "samples.npz"),
                names=tuple(fed.samples[0]),
            )
            return WorkerProcess(baseline if name == AGAIN else name, request, Path(folder) / "worker.log")

        variants = protocol.measure(
            tuple(files),
            launch,
            scenarios=options.scenarios,
            batches=BATCHES if fed.joinable else (fed.batch,),
            pairs=options.pairs,
            budget_ms=1e3 * options.budget.total_seconds(),
            seed=options.seed,
            clock=time.perf_counter,
            advance=advance,
        )
    runtime = {
        "onnxruntime": variants[baseline].loaded[0].onnxruntime,
        "provider": options.providers[0],
        "threads": threads,
        "spin": options.spin,
    }
    return conclude(
        variants, artifacts, fed, baseline=baseline, options=options, runtime=runtime, load_average=load_average
    )


def conclude(
    variants: dict[str, Variant],
    artifacts: Mapping[str, Artifact],
    fed: Inputs,
    *,
    baseline: str,
    options: BenchOptions,
    runtime: Mapping[str, Any],
    load_average: float | None,
) -> Bench:
    """Turn what was measured into measurements, comparisons and warnings."""
    comparisons = [
        compare(variants, baseline, name, scenario)
        for name in artifacts
        if name != baseline
        for scenario in options.scenarios
    ]
    aa = compare(variants, baseline, AGAIN, options.scenarios[0]) if AGAIN in variants else None
    measured = tuple(_measured(name, variants[name], made, fed.batch) for name, made in artifacts.items())
    warnings = [
        *doubts.about_inputs(fed),
        *doubts.about_host(runtime["threads"], load_average),
        *doubts.about_pairs(
            [*comparisons, *([aa] if aa else [])], replicates=len(variants[baseline].loaded), options=options
        ),
        *(doubts.about_aa(aa) if aa else ()),
        *doubts.about_variants({name: variants[name] for name in artifacts}),
    ]
    return Bench(
        host=host.describe(),
        load_average=load_average,
        runtime=runtime,
        inputs=fed,
        baseline=baseline,
        variants=measured,
        comparisons=tuple(comparisons),
        aa=aa,
        warnings=tuple(warnings),
    )


def _measured(name: str, variant: Variant, made: Artifact, batch: int) -> Measured:
    phases = {"import": "import_ms", "session": "session_ms", "first_run": "first_run_ms"}
    memory = [loaded.vm_hwm_bytes for loaded in variant.loaded]
    return Measured(
        name=name,
        model=made,
        timings={
            scenario: Measurement(
                variant=name,
                quantity=f"latency.{scenario}",
                unit="ms",
                batch=variant.probe.batch[scenario],
                processes=tuple(tuple(durations_ms(block) for block in blocks) for blocks in processes),
            )
            for scenario, processes in variant.blocks.items()
        },
        cold_start={
            phase: Measurement(
                variant=name,
                quantity=f"cold_start.{phase}",
                unit="ms",
                batch=batch,
                processes=tuple(((getattr(loaded, field),),) for loaded in variant.loaded),
            )
            for phase, field in phases.items()
        },
        memory=None
        if None in memory
        else Measurement(
            variant=name,
            quantity="memory.vm_hwm",
            unit="bytes",
            batch=batch,
            processes=tuple(((float(peak or 0),),) for peak in memory),
        ),
    )
