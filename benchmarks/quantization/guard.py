"""What the guard of `compress quantize` says of the real models: the drop as estimated and as it is.

    python benchmarks/quantization/guard.py [CASE …] [--modes static dynamic …]

Each case is quantized at default settings and judged twice: without labels on its calibration samples, and by its
metric on its test samples.
"""

from __future__ import annotations

import argparse

import onnx_ir as ir
from cases import Case, cases

from onnxpress import artifact
from onnxpress.errors import ModelError
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.verification import verify


def main() -> None:
    """Print one row per case and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(cases()))
    parser.add_argument("--modes", nargs="+", default=["static", "dynamic"])
    asked = parser.parse_args()
    print("| model | mode | without labels: SQNR, changed, estimated drop | with a metric: SQNR, changed, drop |")
    print("|---|---|---|---|")
    for case in (cases()[name] for name in asked.cases):
        model = prepare(artifact.load(case.model)).model
        for mode in asked.modes:
            try:
                made = quantize(model, QuantizeOptions(mode=mode, verify=False), case.data("calibration")).model
            except ModelError as error:
                print(f"| {case.name} | {mode} | {error} | |", flush=True)
                continue
            without, measured = judged(case, model, made, None), ""
            if case.metric is not None:
                measured = judged(case, model, made, case.metric)
            print(f"| {case.name} | {mode} | {without} | {measured} |", flush=True)


def judged(case: Case, model: ir.Model, made: ir.Model, metric: str | None) -> str:
    """Return the numbers of one judgement, and what was refused."""
    data = case.data("calibration" if metric is None else "test")
    facts = verify(model, made, QuantizeOptions(accept_loss=True), data, metric=metric)
    words = ["equal" if facts["sqnr_db"] is None else f"{facts['sqnr_db']:.1f} dB"]
    if facts["agreement_pct"] is not None:
        words.append(f"{100 - facts['agreement_pct']:.1f} %")
    if facts["drop"] is not None:
        low, high = facts["drop_ci95"]
        words.append(f"{facts['drop']:.2f} [{low:.2f}, {high:.2f}]")
    return ", ".join([*words, *(f"refused: {reason}" for reason in facts["refused"])])


if __name__ == "__main__":
    main()
