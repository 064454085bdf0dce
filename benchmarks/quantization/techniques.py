"""What each accuracy technique wins on the real models: without any, with each alone, with all, with all but one.

    OPENBLAS_NUM_THREADS=1 python benchmarks/quantization/techniques.py [NAME …] [--bits 8 …] [--all-but-one]

Static int8 with default settings else, calibrated on the first 50 samples. Per cell: dB of the worst output against the
float model on the first N test samples, padding left out, and how many points of its metric are lost on them. Nine
models with 8, 6 and 4 bits take about twenty minutes of one core.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx_ir as ir
from cases import Arrays, Case, cases

from onnxpress import artifact
from onnxpress.errors import ModelError
from onnxpress.evaluation import metrics
from onnxpress.evaluation.evaluate import user_results
from onnxpress.evaluation.fidelity import Fidelity
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.session import SessionOptions, open_session

TECHNIQUES = ("equalize", "smooth", "bias_correction", "rounding")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of a case's first test samples."""

    outputs: list[Arrays]
    value: float | None
    """Of the case's metric."""


def options(bits: int, on: tuple[str, ...]) -> QuantizeOptions:
    """Return static int8 with these techniques alone."""
    switches = {each: each in on for each in TECHNIQUES[:-1]}
    rounding = "reconstruct" if "rounding" in on else "nearest"
    return QuantizeOptions(verify=False, bits=bits, samples=50, rounding=rounding, **switches)


def answers(case: Case, model: ir.Model, samples: int) -> Answers:
    """Run a model."""
    session = open_session(model, SessionOptions(threads=1))
    outputs, value = list(islice(case.outputs(session), samples)), None
    if case.metric in metrics.names():
        metric, labels = metrics.metric(case.metric), case.test()["y"][: len(outputs)]
        scores = [metric.score(next(iter(each.values())), labels[[i]]) for i, each in enumerate(outputs)]
        value = metric.aggregate(np.concatenate(scores), labels)
    elif case.metric is not None:
        result = user_results(case.metric, {case.name: session})[case.name]
        metric = metrics.metric(result["metric"])
        value = metric.aggregate(metric.score(result["output"], result["labels"]), result["labels"])
    return Answers(outputs, value)


def cell(expected: Answers, given: Answers) -> str:
    """Compare a model with float."""
    fidelity = Fidelity()
    for pair in zip(expected.outputs, given.outputs, strict=True):
        fidelity.update(*pair)
    words = ["equal" if fidelity.sqnr_db is None else f"{fidelity.sqnr_db:.1f} dB"]
    if expected.value is not None and given.value is not None:
        words.append(f"{expected.value - given.value:.1f}")
    return ", ".join(words)


def main() -> None:
    """Print one row per model."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(known))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6, 4])
    parser.add_argument("--all-but-one", action="store_true", help="four more columns")
    chosen = parser.parse_args()
    columns = {"none": (), **{each: (each,) for each in TECHNIQUES}, "all": TECHNIQUES}
    if chosen.all_but_one:
        columns |= {f"no {left}": tuple(each for each in TECHNIQUES if each != left) for left in TECHNIQUES}
    print(f"| model | bits | {' | '.join(columns)} |\n{'|---' * (len(columns) + 2)}|")
    for case in (known[name] for name in chosen.names):
        model = prepare(artifact.load(case.model)).model
        expected = answers(case, model, chosen.samples)
        for bits in chosen.bits:
            row = []
            for on in columns.values():
                try:
                    edit = quantize(model, options(bits, on), case.data("calibration"))
                except ModelError:
                    break  # nothing in it can be static int8
                row.append(cell(expected, answers(case, edit.model, chosen.samples)))
            if row:
                print(f"| {case.name} | {bits} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
