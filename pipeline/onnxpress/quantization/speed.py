"""How long a quantized model takes here beside its float model: told in a second or two, or said that it was not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxpress import artifact, cpu
from onnxpress.bench.inputs import prepare
from onnxpress.errors import OnnxpressError
from onnxpress.quantization.auto.race import Race
from onnxpress.scratch import temporary
from onnxpress.session import SessionOptions
from onnxpress_calibration.dataset import Dataset

LONGEST_MS = 100
"""Of one run of the float model: a comparison then takes about two seconds."""
PAIRS = 6


def against_float(reference: Path, quantized: Path, data: Dataset | None) -> dict[str, Any]:
    """Time a quantized model against its float model, in pairs of short blocks, each in a process of its own.

    Args:
        reference: The float model's file.
        quantized: The file of what became of it.
        data: Samples to feed; synthetic ones without.

    Returns:
        Facts: ``latency_ratio`` to float and ``latency_ratio_ci95``, None where it was not measured, and then
        ``latency_not_measured``, the reason.
    """
    try:
        inputs = prepare({"float": artifact.load(reference)}, baseline="float", data=data, seed=0)
        with temporary() as folder, Race(inputs, SessionOptions(), folder) as race:
            before = race.start(reference)
            if before.run_ms > LONGEST_MS:
                return not_measured(f"one run of the float model takes {before.run_ms:.0f} ms")
            ratio = race.ratio(before, race.start(quantized), pairs=PAIRS, least=1)
    except OnnxpressError as error:
        return not_measured(str(error))
    return {"latency_ratio": ratio.value, "latency_ratio_ci95": [ratio.low, ratio.high]}


def not_measured(why: str) -> dict[str, Any]:
    """Return the facts of `against_float` where nothing was timed."""
    return {"latency_ratio": None, "latency_ratio_ci95": None, "latency_not_measured": why}


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what `against_float` found, and what to do where int8 is slower."""
    if "latency_ratio" not in facts:
        return
    if facts["latency_ratio"] is None:
        why = facts["latency_not_measured"]
        yield f"not timed ({why}): static int8 may be slower than float. `compress bench` tells"
        return
    low, high = facts["latency_ratio_ci95"]
    here = f"on this CPU ({cpu.kind() or 'of a kind that is not known'})"
    yield f"{facts['latency_ratio']:.2f} [{low:.2f}, {high:.2f}] of float's time {here}, timed briefly"
    if low > 1:
        yield (
            "  note: slower than float here. --mode auto leaves in float what is faster that way, --mode dynamic suits "
            "LSTMs and transformers; if a CPU of another kind (--target-cpu) will serve, time it there"
        )
