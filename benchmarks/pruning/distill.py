"""What distillation wins back of what pruning or quantization lost on the real models, from unlabelled samples.

    python benchmarks/pruning/distill.py prune    [MODEL …] [--left 0.7] [--iterations N] [--budget 10m | --steps N]
                                                       [-o out.json]
    python benchmarks/pruning/distill.py quantize [MODEL …] [--bits 4] [--mode weight-only] [--budget 10m | --steps N]

Each row is the metric of the float model, as cut by l2 alone, after repair, and after distillation (or: of the
quantized model before and after). A tenth of the samples is held out: repair does not see it, and distillation judges
by it. The models and data are those of ``measure.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
from measure import FOLDER, Row, calibration, loaders, model_of, quality

from onnxpress import graph
from onnxpress.distillation.distill import distill
from onnxpress.distillation.options import DistillOptions
from onnxpress.pruning import PruneOptions, prune
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress_calibration.dataset import Dataset

SET = ("steps", "budget", "learning_rate", "batch_size", "features", "temperature", "augment", "seed")


def main() -> None:
    """Measure what was asked for, print a line for each, and write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prune", "quantize"])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--left", type=float, default=0.7, help="share of the MACs that is left")
    parser.add_argument("--method", default="reconstruction")
    parser.add_argument("--round-to", type=int, default=PruneOptions.model_fields["round_to"].default)
    parser.add_argument("--iterations", type=int, default=1, help="of pruning, with repair")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--mode", default="weight-only")
    for name in SET:
        parser.add_argument(f"--{name.replace('_', '-')}", help="of the distill step")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    if not FOLDER.is_dir():
        sys.exit(f"skipped: there is no folder {FOLDER} (set ONNXPRESS_REAL_DATA)")
    rows = []
    for row in (pruned if asked.what == "prune" else quantized)(asked, loaders()):
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{value}" for key, value in row.items()))
        sys.stdout.flush()
        rows.append(row)
        if asked.output is not None:
            document = {"schema": f"onnxpress.distillation-{asked.what}/1", "rows": rows}
            asked.output.write_text(json.dumps(document, indent=1))


def pruned(asked: argparse.Namespace, load: ModuleType) -> Iterator[Row]:
    """Cut, repair, and train."""
    for name in asked.models or ["resnet56", "squeezenet", "resnet20"]:
        model, data = model_of(name, load), calibration(name, load)
        fitted, _ = data.split(graph.input_specs(model), DistillOptions().held_out)
        yield {"model": name, "what": "float", "metric": quality(model, name, load)}
        values = {"target": {"macs": asked.left}, "round_to": asked.round_to}
        for what, method, repair in (("l2", "l2", False), ("repaired", asked.method, True)):
            values |= {"method": method, "repair": repair, "iterations": asked.iterations if repair else 1}
            edit = prune(model, PruneOptions.model_validate(values), fitted)
            left = float(edit.facts["macs_ratio"])
            yield {"model": name, "what": what, "left": left, "metric": quality(edit.model, name, load)}
        yield trained(name, edit.model, model, data, asked, load) | {"left": left}


def quantized(asked: argparse.Namespace, load: ModuleType) -> Iterator[Row]:
    """Quantize, and train."""
    for name in asked.models or ["resnet20"]:
        model, data = model_of(name, load), calibration(name, load)
        yield {"model": name, "what": "float", "metric": quality(model, name, load)}
        options = QuantizeOptions(mode=asked.mode, bits=asked.bits, min_agreement=0)
        student = quantize(model, options, data).model
        yield {"model": name, "what": f"{asked.mode} {asked.bits} bits", "metric": quality(student, name, load)}
        yield trained(name, student, model, data, asked, load)


def trained(
    name: str, student: ir.Model, teacher: ir.Model, data: Dataset, asked: argparse.Namespace, load: ModuleType
) -> Row:
    """Distill, and measure what came out."""
    given = {key: value for key in SET if (value := getattr(asked, key)) is not None}
    start = time.perf_counter()
    edit = distill(student, teacher, DistillOptions.model_validate(given), data)
    seconds = time.perf_counter() - start
    facts = {key: edit.facts[key] for key in ("updates", "best_update", "loss_before", "loss_after")}
    return {"model": name, "what": "distilled", "metric": quality(edit.model, name, load), **facts, "seconds": seconds}


if __name__ == "__main__":
    main()
