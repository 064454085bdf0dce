"""The command ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxpress.cli.shared import INPUT, OUTPUT, TEXT, Result, common, name_models, preprocessing_option, read_profile

if TYPE_CHECKING:
    from onnxpress_calibration.preprocessing import Preprocessing


@click.command()
@click.argument("models", nargs=-1, required=True, type=INPUT)
@click.option("--baseline", type=INPUT, help="What the others are compared with; default the first model.")
@click.option("--ep", "provider", default="cpu", help="Execution provider.")
@click.option("--threads", type=int, help="Intra-op threads; default what this process may really use.")
@click.option("--spin", type=click.Choice(["on", "stop", "off"]), default="stop", help="Spinning of idle threads.")
@click.option("--scenario", "scenarios", multiple=True, help="single, end_to_end, batch, offline or server.")
@click.option(
    "--inputs", type=TEXT, metavar="DATA", help="Real samples; without them synthetic ones are drawn, and labelled so."
)
@preprocessing_option
@click.option("--profile", type=INPUT, help="Draw synthetic samples in the value ranges of this profile.")
@click.option("--session-option", "session_options", multiple=True, metavar="KEY=VALUE", help="Of onnxruntime.")
@click.option("--provider-option", "provider_options", multiple=True, metavar="KEY=VALUE", help="Of the provider.")
@click.option("--batch", metavar="N,N,…", help="Batch sizes of the scenario batch.")
@click.option("--sla", metavar="p99=20ms", help="Service level of the scenario server.")
@click.option("--sessions", type=int, help="Sessions side by side in the scenario server.")
@click.option("--pairs", type=int, help="Rounds of interleaved blocks.")
@click.option("--budget", help="Time to spend at most, for example 60s.")
@click.option("--max-regression", metavar="5%", help="Limit of the verdicts.")
@click.option("--require-int8", metavar="REGEX", help="Fail (exit 3) if a matching layer of a MODEL runs in float.")
@click.option("--aa", is_flag=True, help="Also compare the baseline with itself.")
@click.option("--save-samples", type=OUTPUT, help="Write all durations to this npz.")
@common
def bench(
    models: tuple[Path, ...],
    baseline: Path | None,
    provider: str,
    threads: int | None,
    spin: str,
    scenarios: tuple[str, ...],
    inputs: str | None,
    preprocessing: Preprocessing | None,
    profile: Path | None,
    session_options: tuple[str, ...],
    provider_options: tuple[str, ...],
    batch: str | None,
    sla: str | None,
    sessions: int | None,
    pairs: int | None,
    budget: str | None,
    max_regression: str | None,
    require_int8: str | None,
    aa: bool,
    save_samples: Path | None,
    result: Result,
) -> None:
    """Measure latency, throughput, memory, cold start and energy of MODELS, in pairs with the baseline."""
    from onnxpress.bench.bench import bench as run
    from onnxpress.bench.options import BenchOptions
    from onnxpress.data import dataset
    from onnxpress.quantization.kernels import require
    from onnxpress.report.formats import terminal
    from onnxpress.session import SessionOptions
    from onnxpress.validation import options

    values = {"providers": [provider], "threads": threads, "spin": spin, "scenarios": scenarios or None, "pairs": pairs}
    values |= {"session_options": session_options or None, "provider_options": provider_options or None}
    values |= {"batch": batch, "sla": sla, "sessions": sessions, "max_regression": max_regression, "aa": aa or None}
    chosen = options(BenchOptions, values | {"budget": budget})
    named = name_models((*([baseline] if baseline is not None and baseline not in models else []), *models))
    reference = next((name for name, path in named.items() if path == baseline), next(iter(named)))
    if require_int8 is not None:
        for name, path in named.items():
            if name != reference:
                require(path, require_int8, options=SessionOptions(provider=provider, threads=threads or 0))
    statistics = None if profile is None else read_profile(profile, named[reference])
    with result.progress.task("bench", 100) as advance:
        measured = run(
            named,
            baseline=reference,
            options=chosen,
            inputs=dataset(inputs, preprocessing=preprocessing) if inputs else None,
            ranges=None
            if statistics is None
            else {name: (each.low, each.high) for name, each in statistics.tensors.items()},
            advance=advance,
        )
    if save_samples is not None:
        measured.save_samples(result.outputs.stage(save_samples))
    document = measured.to_json()
    result.show(terminal.bench(document), document)
