"""Reasons to trust the numbers of a benchmark less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from onnxpress import cpu, host
from onnxpress.bench.comparison import Comparison, durations_ms
from onnxpress.bench.inputs import SAMPLES, SYNTHETIC_AXIS, Inputs
from onnxpress.bench.measured import Measured
from onnxpress.bench.nvml import Gpu
from onnxpress.bench.options import BenchOptions
from onnxpress.bench.protocol import ENOUGH_PAIRS, REPLICATES, Variant
from onnxpress.bench.statistics import MIN_PROCESSES

MAX_AA = 0.01
"""A baseline that seems to differ by more than this from itself speaks against the host."""
MAX_DISTURBED = 0.2
"""Share of disturbed pairs beyond which a host is too noisy."""
WIDE = 1.1
"""High end ÷ low end of an interval beyond which the disturbance shows in the result; pairing cancels the rest."""
BUSY_LOAD = 0.5
"""Load average per CPU, before the start, beyond which other work disturbs."""
PYTHON_OVERHEAD_MS = 0.05
IDLE_REASON = 1
"""NVML's throttle reason that only says that nothing runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A reason to trust a number less: a warning of the result."""

    code: str
    message: str


def about_inputs(fed: Inputs) -> Iterator[Doubt]:
    """Doubts about what the models were fed."""
    if fed.kind == "synthetic":
        yield Doubt(
            code="synthetic-inputs",
            message=f"Inputs are random{', within the ranges of the profile' if fed.ranged else ''} (free axes of size "
            f"{SYNTHETIC_AXIS}): operators whose work depends on the data may run differently. Give real samples.",
        )
    elif len(fed.samples) < SAMPLES:
        yield Doubt(
            code="few-inputs",
            message=f"Only {len(fed.samples)} samples are cycled; {SAMPLES} show caches and data-dependent operators "
            "more variety.",
        )


def about_host(threads: int, load_average: float | None) -> Iterator[Doubt]:
    """Doubts about the machine, before anything was measured on it."""
    cpus, usable = host.describe().cpus, host.usable_threads()
    if load_average is not None and load_average > BUSY_LOAD * cpus:
        yield Doubt(
            code="busy-host",
            message=f"Load average was {load_average:.1f} on {cpus} CPU{'s' * (cpus > 1)} before the start: other work "
            "takes time away. Measure when the machine is idle.",
        )
    if threads > usable:
        yield Doubt(
            code="too-many-threads",
            message=f"{threads} threads where only {usable} can run at once: they wait for each other.",
        )


def about_gpu(gpu: Gpu | None, provider_options: Mapping[str, str]) -> Iterator[Doubt]:
    """Doubts about the GPU and how it is used."""
    if gpu is not None and gpu.other_processes:
        yield Doubt(
            code="gpu-busy",
            message=f"{gpu.other_processes} other processes computed on the GPU before the start. Measure when it is "
            "idle.",
        )
    if gpu is not None and (gpu.throttle_reasons or 0) & ~IDLE_REASON:
        yield Doubt(
            code="gpu-throttled",
            message=f"The GPU's clocks were held back before the start (reasons 0x{gpu.throttle_reasons:x}).",
        )
    if provider_options.get("use_tf32") == "1":
        yield Doubt(
            code="tf32",
            message="float32 products may run as TF32, which keeps 10 bits of the mantissa: this is not float32 "
            "arithmetic. --provider-option use_tf32=0 measures that.",
        )


def about_cpus(lineages: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Doubt]:
    """Doubts about models that were made for another kind of CPU than this one."""
    for name, lineage in lineages.items():
        for message in cpu.made_for_others(lineage):
            yield Doubt(code=cpu.DOUBT, message=f"{name}: {message}")


def about_models(measured: Sequence[Measured]) -> Iterator[Doubt]:
    """Doubts about what really runs."""
    for variant in measured:
        if variant.subnormal_weights:
            yield Doubt(
                code="subnormal-weights",
                message=f"{variant.name}: {variant.subnormal_weights} weights are subnormal (below 1.2e-38), and a CPU "
                "computes many times slower with them; a variant without them wins for that alone. Set them to zero, "
                "or measure with --session-option session.set_denormal_as_zero=1.",
            )
        if variant.fallback_nodes:
            yield Doubt(
                code="cpu-fallback",
                message=f"{variant.name}: {variant.fallback_nodes} nodes run on the CPU, which the execution provider "
                "does not support; what they read and write is copied. --session-option "
                "session.disable_cpu_ep_fallback=1 makes that an error.",
            )


def about_pairs(
    comparisons: Sequence[Comparison], *, replicates: int, certain: bool, options: BenchOptions
) -> Iterator[Doubt]:
    """Doubts about how much was measured, and how well.

    Args:
        comparisons: All comparisons, A/A included.
        replicates: Processes of each variant.
        certain: Whether more pairs could not change a verdict.
        options: What was asked for.

    """
    fewest = min((each.processes for each in comparisons), default=MIN_PROCESSES)
    if fewest < MIN_PROCESSES:
        yield Doubt(
            code="few-processes",
            message=f"The pairs of a comparison come from {fewest} process{'es' * (fewest != 1)} of each model; "
            f"{MIN_PROCESSES} are needed to tell a model from a process's luck. Ask for more pairs, or a larger budget "
            f"than {options.budget.total_seconds():.0f} s.",
        )
    taken = min((each.taken for each in comparisons), default=options.pairs)
    if taken < ENOUGH_PAIRS:
        yield Doubt(
            code="few-pairs",
            message=f"{taken} pairs of blocks were measured; {ENOUGH_PAIRS} are needed to decide on. Ask for more "
            f"pairs, or a larger budget than {options.budget.total_seconds():.0f} s.",
        )
    elif not certain and (taken < options.pairs or replicates < REPLICATES):
        yield Doubt(
            code="short-budget",
            message=f"{taken} pairs of blocks in {replicates} processes each fitted the budget of "
            f"{options.budget.total_seconds():.0f} s; {options.pairs} in {REPLICATES} were wanted.",
        )
    noisy = [each for each in comparisons if each.disturbed > MAX_DISTURBED * each.taken]
    if noisy:
        worst = max(noisy, key=lambda each: each.disturbed / each.taken)
        shows = any(each.ratio.high > WIDE * each.ratio.low for each in noisy)
        yield Doubt(
            code="noisy-host" if shows else "disturbed-pairs",
            message=f"{worst.disturbed} of {worst.taken} pairs were disturbed by other work on the host "
            f"({worst.dropped} of them dropped). "
            + ("Measure when the machine is idle." if shows else "The intervals are narrow all the same."),
        )


def about_aa(aa: Comparison) -> Iterator[Doubt]:
    """Doubts about a machine on which a model differs from itself."""
    if aa.ratio.low > 1 + MAX_AA or aa.ratio.high < 1 - MAX_AA:
        yield Doubt(
            code="aa-differs",
            message=f"The baseline seems to differ from itself by {100 * (aa.ratio.value - 1):+.1f}%: this host makes "
            "up differences. Measure when it is idle, or on another one.",
        )


def about_variants(variants: Mapping[str, Variant]) -> Iterator[Doubt]:
    """Doubts about single variants."""
    for name, variant in variants.items():
        if variant.probe.refused_batch is not None:
            yield Doubt(
                code="batch-refused",
                message=f"{name}: cannot run a batch of {variant.probe.refused_batch}, though its batch axis is free; "
                "smaller ones were measured.",
            )
        unsteady = sum(warm.stable is False for warm in variant.warmed_up)
        if unsteady > len(variant.warmed_up) / 2:
            yield Doubt(
                code="unsteady-warm-up",
                message=f"{name}: durations were not steady after the warm-up in {unsteady} of "
                f"{len(variant.warmed_up)} processes.",
            )
        fastest = min(
            median(duration for blocks in processes for block in blocks for duration in durations_ms(block))
            for processes in variant.blocks.values()
        )
        if fastest < PYTHON_OVERHEAD_MS:
            yield Doubt(
                code="python-overhead",
                message=f"{name}: a run takes {1e3 * fastest:.0f} µs, and calling it from Python is a visible part of "
                "that; the models differ more than these ratios say.",
            )
