"""`bench`: measure the speed, start-up and memory of several models so that they can be compared."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from onnxpress import artifact, host, session
from onnxpress.artifact import Artifact
from onnxpress.bench import doubts, energy, nvml, operators, protocol, server, subnormals
from onnxpress.bench.comparison import certain, compare, durations_ms
from onnxpress.bench.inputs import Ranges, prepare
from onnxpress.bench.measured import Measured
from onnxpress.bench.measurement import Measurement
from onnxpress.bench.messages import Load
from onnxpress.bench.options import BenchOptions
from onnxpress.bench.probing import Layout, layouts
from onnxpress.bench.process import WorkerProcess
from onnxpress.bench.protocol import Advance, Meter, Variant
from onnxpress.bench.result import Bench
from onnxpress.bench.scenarios import BATCHES, PAIRED, SERVER, SWEEP, Scenario
from onnxpress.bench.statistics import MIN_PROCESSES
from onnxpress.errors import UsageError, did_you_mean
from onnxpress.scratch import temporary
from onnxpress_calibration.dataset import Dataset

AGAIN = "\N{NO-BREAK SPACE}"
"""Name of the second copy of the baseline in an A/A check: no user can have taken it."""
PROFILED_MS = 500
"""About how long a model runs under the profiler."""
PROFILED_RUNS = (3, 50)
"""At least and at most."""
COLD_RUNS = 2
"""Runs at the start of a profile that do not count; those of `runner.Runner`'s start."""
PAIRED_SHARE = 80
"""Percent of the progress."""

Start = Callable[[str, Layout], WorkerProcess]


def bench(
    models: Mapping[str, Path],
    *,
    baseline: str,
    options: BenchOptions,
    inputs: Dataset | None,
    ranges: Ranges | None = None,
    limits: Collection[float] | None = None,
    advance: Advance = lambda percent: None,  # noqa: ARG005
) -> Bench:
    """Measure models against each other on this machine.

    Args:
        models: Model files by variant; they take the same inputs.
        baseline: The variant that all others are compared with.
        options: How to measure.
        inputs: Real samples; None for synthetic ones.
        ranges: Values that synthetic samples are drawn from, by input.
        limits: Regressions on which somebody decides: the measurement ends once it is certain on which side of all of
            them every model is, and goes on for longer while it is not. None for that of the options; empty to measure
            as much as was planned, neither more nor less.
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
    fed = prepare(graphs, baseline=baseline, data=inputs, ranges=ranges, seed=options.seed)
    provider = session.provider_file(options.providers[0])
    settings = session.effective_options(options.providers[0], options.provider_options)
    gpu = nvml.gpu(int(settings.get("device_id", "0"))) if provider.DEVICE == "cuda" else None
    card, conditions = gpu.describe() if gpu else None, host.conditions()
    threads = options.threads or host.usable_threads()
    ways = layouts(threads) if provider.DEVICE == "cpu" else layouts(threads)[:1]  # a device is shared, not divided
    watched = (options.max_regression,) if limits is None else limits
    meter = Meter(advance)
    with temporary() as folder:
        fed.save(folder / "samples.npz")

        def start(name: str, layout: Layout, profile: str | None = None) -> WorkerProcess:
            shown = baseline if name == AGAIN else name
            request = Load(
                model=str(models[shown]),
                size_bytes=artifacts[shown].size_bytes,
                provider=options.providers[0],
                threads=layout.threads,
                sessions=layout.sessions,
                spin=options.spin,
                config=options.session_options,
                provider_options=options.provider_options,
                samples=str(folder / "samples.npz"),
                names=tuple(fed.samples[0]),
                profile=profile,
            )
            return WorkerProcess(shown, request, folder / "worker.log")

        done = 0

        def advance_pairs(percent: int) -> None:
            nonlocal done
            done += percent
            meter.reach(PAIRED_SHARE * done / 100)

        def decided(found: dict[str, Variant], scenarios: Mapping[str, Scenario]) -> bool:
            judged = {name: variant for name, variant in found.items() if name != AGAIN}
            return certain(judged, baseline, scenarios, watched, protocol.ENOUGH_PAIRS)

        outcome = protocol.measure(
            (*models, *([AGAIN] if options.aa else [])),
            start,
            scenarios=paired(options, copies=provider.DEVICE != "cpu"),
            sweep=(options.batch or ()) if SWEEP in options.scenarios else None,
            batches=tuple(dict.fromkeys((fed.batch, *BATCHES))) if fed.joinable else (fed.batch,),
            ways=ways,
            pairs=options.pairs,
            budget_ms=1e3 * options.budget.total_seconds(),
            seed=options.seed,
            clock=time.perf_counter,
            decided=decided if len(models) > 1 and watched else None,
            advance=advance_pairs,
        )
        variants, scenarios = outcome.variants, outcome.scenarios
        measured = []
        for number, (name, made) in enumerate(artifacts.items(), start=1):
            run_ms = variants[name].warmed_up[0].run_ms
            with closing(start(name, ways[0], str(folder / "profile"))) as worker:
                profile = _profile(worker, run_ms)
            measured.append(
                _measured(
                    name,
                    variants[name],
                    made,
                    batch=fed.batch,
                    profile=profile,
                    fallback_nodes=profile.fallback_nodes(provider.NAME),
                    subnormal_weights=subnormals.count(graphs[name]),
                    energy=_energy(start, name, ways[0], gpu, run_ms, fed.batch),
                    server=_served(start, name, options, threads, fed.batch),
                )
            )
            meter.reach(PAIRED_SHARE + (100 - PAIRED_SHARE) * number / len(artifacts))
    runtime = {
        "onnxruntime": variants[baseline].loaded[0].onnxruntime,
        "provider": options.providers[0],
        "threads": threads,
        "spin": options.spin,
        "session_options": dict(options.session_options),
        "provider_options": settings,
    }
    comparisons = tuple(
        compare(variants, baseline, name, scenario, meaning)
        for name in artifacts
        if name != baseline
        for scenario, meaning in scenarios.items()
    )
    first = next(iter(scenarios))
    aa = compare(variants, baseline, AGAIN, first, scenarios[first]) if AGAIN in variants else None
    warnings = (
        *doubts.about_inputs(fed),
        *doubts.about_host(threads, conditions.load_average),
        *doubts.about_gpu(card, settings),
        *doubts.about_pairs(
            [*comparisons, *([aa] if aa else [])],
            replicates=len(variants[baseline].loaded),
            certain=outcome.certain,
            options=options,
        ),
        *(doubts.about_aa(aa) if aa else ()),
        *doubts.about_variants({name: variants[name] for name in artifacts}),
        *doubts.about_models(measured),
        *(doubts.about_cpus({name: each.lineage for name, each in artifacts.items()}) if gpu is None else ()),
    )
    return Bench(
        host=host.describe(),
        conditions=conditions,
        gpu=card,
        runtime=runtime,
        inputs=fed,
        baseline=baseline,
        variants=tuple(measured),
        comparisons=comparisons,
        max_regression=options.max_regression,
        aa=aa,
        warnings=warnings,
    )


def paired(options: BenchOptions, *, copies: bool) -> dict[str, Scenario]:
    """Return the scenarios that are measured in paired blocks, apart from a sweep.

    Args:
        options: What was asked for.
        copies: Whether inputs lie on another device, so that latency has two meanings: with and without the copies.

    """
    names = [name for name in options.scenarios if name in PAIRED] or ["single"]
    if copies and "single" in names and "end_to_end" not in names:
        names.append("end_to_end")
    return {name: PAIRED[name] for name in names}


def _profile(worker: WorkerProcess, run_ms: float) -> operators.Profile:
    """Return what onnxruntime's profile tells of a model, from a process of its own."""
    worker.load()
    least, most = PROFILED_RUNS
    file = Path(worker.dissect(min(most, max(least, math.ceil(PROFILED_MS / run_ms)))).file)
    found = operators.read(file, skipped_runs=COLD_RUNS)
    file.unlink()
    return found


def _energy(start: Start, name: str, layout: Layout, gpu: nvml.Nvml | None, run_ms: float, batch: int) -> energy.Energy:
    """Return what a sample draws, where the machine counts it."""
    cpu = energy.rapl()
    counters: list[energy.Counter] = [
        *([cpu] if cpu is not None else []),
        *([gpu] if gpu is not None and gpu.counts_energy() else []),
    ]
    if not counters:
        return energy.Energy(source=energy.UNAVAILABLE)

    def works() -> Iterator[Callable[[float], int]]:
        for _ in range(MIN_PROCESSES):
            with closing(start(name, layout)) as worker:
                worker.load()
                worker.warm_up(batch)
                yield partial(_work, worker, batch, run_ms)

    return energy.measure(counters, works(), clock=time.perf_counter, sleep=time.sleep)


def _work(worker: WorkerProcess, batch: int, run_ms: float, seconds: float) -> int:
    """Run a model for about so many seconds; return how many samples that were."""
    runs = math.ceil(1e3 * seconds / run_ms)
    worker.measure(batch, runs)
    return runs * batch


def _served(start: Start, name: str, options: BenchOptions, threads: int, batch: int) -> Mapping[str, Any] | None:
    """Return the highest rate that keeps the service level; None when it was not asked for."""
    if SERVER not in options.scenarios or options.sla is None:
        return None
    layout = Layout(threads=max(1, threads // options.sessions), sessions=options.sessions)
    with closing(start(name, layout)) as worker:
        worker.load()
        found = server.highest_rate(
            worker,
            options.sla,
            run_ms=worker.warm_up(batch).run_ms,
            sessions=options.sessions,
            seed=options.seed,
            budget_ms=1e3 * options.budget.total_seconds(),
        )
    return found.to_json(options.sla, sessions=options.sessions)


def _measured(
    name: str,
    variant: Variant,
    made: Artifact,
    *,
    batch: int,
    profile: operators.Profile,
    fallback_nodes: int,
    subnormal_weights: int,
    energy: energy.Energy,
    server: Mapping[str, Any] | None,
) -> Measured:
    def cold_start(phase: str) -> Measurement:
        return Measurement(
            variant=name,
            quantity=f"cold_start.{phase}",
            unit="ms",
            batch=batch,
            processes=tuple(((getattr(loaded, f"{phase}_ms"),),) for loaded in variant.loaded),
        )

    peaks = {
        field: tuple(sorted(value for loaded in variant.loaded if (value := getattr(loaded, field)) is not None))
        for field in ("vm_hwm_bytes", "session_hwm_bytes", "device_bytes")
    }

    def peak(field: str) -> int | None:
        return peaks[field][len(peaks[field]) // 2] if peaks[field] else None

    return Measured(
        name=name,
        model=made,
        subnormal_weights=subnormal_weights,
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
        layout=variant.probe.layout,
        server=server,
        cold_start={phase: cold_start(phase) for phase in ("import", "session", "first_run", "second_run")},
        memory={
            "vm_hwm_bytes": peak("vm_hwm_bytes"),
            "session_hwm_bytes": peak("session_hwm_bytes"),
            "arena_peak_bytes": profile.arena_peak_bytes,
            "device_bytes": peak("device_bytes"),
        },
        peaks=peaks,
        profile=profile,
        fallback_nodes=fallback_nodes,
        energy=energy,
    )
