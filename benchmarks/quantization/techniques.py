"""What each accuracy technique wins on the real models: SQNR of static int8 without any, with each alone, with all.

    python benchmarks/quantization/techniques.py [NAME …] [--samples N]

dB of the worst output against the float model, on the first N test samples, padding left out; default settings else.
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

TECHNIQUES = ("equalize", "smooth", "bias_correction")


def sqnr_db(case: Case, model: ir.Model, quantized: ir.Model, samples: int) -> float | None:
    """Return the SQNR of an int8 model on a case's test samples."""
    fidelity = Fidelity()
    runs = (islice(case.outputs(open_session(each)), samples) for each in (model, quantized))
    for expected, given in zip(*runs, strict=True):
        fidelity.update(expected, given)
    return fidelity.sqnr_db


def main() -> None:
    """Print one row per model."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(known))
    parser.add_argument("--samples", type=int, default=100)
    chosen = parser.parse_args()
    columns = [(), *((each,) for each in TECHNIQUES), TECHNIQUES]
    print(f"{'model':<12}" + "".join(f"{' + '.join(names) if len(names) < 2 else 'all':>18}" for names in columns))
    for name in chosen.names:
        case = known[name]
        model = prepare(artifact.load(case.model)).model
        row = []
        for on in columns:
            options = QuantizeOptions(verify=False, **{each: each in on for each in TECHNIQUES})
            try:
                found = sqnr_db(case, model, quantize(model, options, case.data("calibration")).model, chosen.samples)
            except ModelError:
                found = None  # nothing in it can be static int8
            row.append("-" if found is None else f"{found:.1f}")
        print(f"{name:<12}" + "".join(f"{value:>18}" for value in row), flush=True)


if __name__ == "__main__":
    main()
