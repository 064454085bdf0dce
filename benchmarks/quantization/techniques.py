"""What each accuracy technique wins on the real models: without any, with each alone, with all, with all but one.

    python benchmarks/quantization/techniques.py [NAME …] [--samples N] [--bits 8 …]

dB of the worst output and share of equal classes, against the float model on the first N test samples, padding left
out; static int8 with default settings else.
"""

from __future__ import annotations

import argparse
from itertools import islice

import onnx_ir as ir
from cases import Case, cases

from onnxpress import artifact
from onnxpress.errors import ModelError
from onnxpress.evaluation.fidelity import Fidelity
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.session import open_session

TECHNIQUES = ("equalize", "smooth", "bias_correction", "rounding")


def options(bits: int, on: tuple[str, ...]) -> QuantizeOptions:
    """Return static int8 with these techniques alone."""
    switches = {each: each in on for each in TECHNIQUES[:-1]}
    return QuantizeOptions(
        verify=False, bits=bits, rounding="reconstruct" if "rounding" in on else "nearest", **switches
    )


def fidelity(case: Case, model: ir.Model, quantized: ir.Model, samples: int) -> Fidelity:
    """Compare an int8 model with float on a case's test samples."""
    found = Fidelity()
    runs = (islice(case.outputs(open_session(each)), samples) for each in (model, quantized))
    for expected, given in zip(*runs, strict=True):
        found.update(expected, given)
    return found


def main() -> None:
    """Print one row per model."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(known))
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--bits", type=int, nargs="+", default=[8])
    chosen = parser.parse_args()
    without = [tuple(each for each in TECHNIQUES if each != left) for left in TECHNIQUES]
    columns = [(), *((each,) for each in TECHNIQUES), TECHNIQUES, *without]
    titles = ["none", *TECHNIQUES, "all", *(f"no {each}" for each in TECHNIQUES)]
    print(f"{'model':<12}{'bits':>4}" + "".join(f"{title:>19}" for title in titles))
    for name in chosen.names:
        case = known[name]
        model = prepare(artifact.load(case.model)).model
        for bits in chosen.bits:
            row = []
            for on in columns:
                try:
                    edit = quantize(model, options(bits, on), case.data("calibration"))
                except ModelError:
                    row.append("-")  # nothing in it can be static int8
                    continue
                found = fidelity(case, model, edit.model, chosen.samples)
                agreement = "" if found.agreement_pct is None else f" {found.agreement_pct:.1f} %"
                row.append("equal" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB{agreement}")
            print(f"{name:<12}{bits:>4}" + "".join(f"{value:>19}" for value in row), flush=True)


if __name__ == "__main__":
    main()
