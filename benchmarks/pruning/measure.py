"""What pruning gives on the real models: what can be cut, what is lost and won back, and how much faster it gets.

    python benchmarks/pruning/measure.py share   [MODEL …] [-o share.json]
    python benchmarks/pruning/measure.py curve   [MODEL …] [--left 0.9 0.8 0.7 0.5 0.3] [--allocation …]
                                                         [--round-to N] [--iterations N] [--keep-depth]
    python benchmarks/pruning/measure.py latency [MODEL …] [--left 0.7] [--allocation sensitivity]
    python benchmarks/pruning/measure.py int8    [MODEL …] [--left 0.8 0.7]

``share`` takes the reference models, too. ``curve`` gives the metric of l2 alone, of l2 with repair from unlabelled
samples and of reconstruction with repair, and in the end a table of them in Markdown. ``latency`` compares loaded
sessions in alternation, each float and int8, with the 95 % interval of the ratio. ``int8`` prunes before and after
quantizing. The real models are not part of the
project: ``ONNXPRESS_REAL_DATA`` names their folder (default ``../shared/real``).
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

import onnxpress_models
from onnxpress import artifact, graph, session
from onnxpress.export.options import ExportOptions
from onnxpress.export.prepare import prepare
from onnxpress.pruning import PruneOptions, prune
from onnxpress.pruning.latency import ratio as compare
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress_calibration.dataset import Dataset

DEFAULT = Path(__file__).parents[3] / "shared" / "real"
FOLDER = Path(os.environ.get("ONNXPRESS_REAL_DATA", DEFAULT))
DATA = {  # calibration, test, samples of the first
    "resnet20": ("cifar_calibration", "cifar_test", 250),
    "resnet56": ("cifar_calibration", "cifar_test", 250),
    "squeezenet": ("imagenet_calibration", "imagenet_test", 250),
    "kws": ("kws_calibration", "kws_test", 100),
    "minilm": ("banking77", None, 1000),
}
WAYS = {"l2": ("l2", False), "l2 + repair": ("l2", True), "reconstruction + repair": ("reconstruction", True)}
Row = dict[str, Any]


def main() -> None:
    """Measure what was asked for, print a line for each, and write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["share", "curve", "latency", "int8"])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--allocation", default="auto")
    parser.add_argument("--left", nargs="+", type=float, help="shares of the MACs that are left")
    parser.add_argument("--round-to", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=1, help="of curve, with repair")
    parser.add_argument("--keep-depth", action="store_true", help="of curve: no branch goes whole")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    if not FOLDER.is_dir():
        sys.exit(f"skipped: there is no folder {FOLDER} (set ONNXPRESS_REAL_DATA)")
    kind: Callable[[argparse.Namespace, ModuleType], Iterator[Row]] = {
        "share": shares,
        "curve": curve,
        "latency": latency,
        "int8": int8,
    }[asked.what]
    rows = []
    for row in kind(asked, loaders()):
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{value}" for key, value in row.items()))
        sys.stdout.flush()
        rows.append(row)
        if asked.output is not None:
            asked.output.write_text(json.dumps({"schema": f"onnxpress.pruning-{asked.what}/1", "rows": rows}, indent=1))
    if asked.what == "curve":
        print(table(rows))


def loaders() -> ModuleType:
    """Import the loaders beside the real models."""
    spec = importlib.util.spec_from_file_location("load", FOLDER / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shares(asked: argparse.Namespace, load: ModuleType) -> Iterator[Row]:
    """Share of the MACs that pruning can reach, of every model, with channel counts kept multiples of 8."""
    zoo = [f"zoo:{name}" for name in onnxpress_models.names()]
    for name in asked.models or [*load.MODELS, *zoo]:
        edit = prune(model_of(name, load), PruneOptions(amount=0.5, round_to=asked.round_to or 8))
        facts = edit.facts
        yield {
            "model": name,
            "prunable_macs_pct": float(facts["prunable_macs_pct"]),
            "groups": facts["groups"],
            "groups_skipped": facts["groups_skipped"],
            "proof_error": facts["proof_error"],
        }


def curve(asked: argparse.Namespace, load: ModuleType) -> Iterator[Row]:
    """The metric over the share of MACs that is left, as cut and as repaired."""
    for name in asked.models or ["resnet56", "squeezenet", "minilm", "kws"]:
        model, data = model_of(name, load), calibration(name, load)
        yield {"model": name, "way": "float", "asked": 1.0, "left": 1.0, "metric": quality(model, name, load)}
        for left in asked.left or [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]:
            for way, (method, repaired) in WAYS.items():
                start = time.perf_counter()
                options = PruneOptions(
                    method=method,
                    target={"macs": left},
                    repair=repaired,
                    allocation=asked.allocation,
                    round_to=asked.round_to,
                    iterations=asked.iterations if repaired else 1,
                    keep_depth=asked.keep_depth,
                )
                edit = prune(model, options, data)
                yield {
                    "model": name,
                    "way": way,
                    "asked": left,
                    "left": float(edit.facts["macs_ratio"]),
                    "allocation": edit.facts["allocation"],
                    "round_to": edit.facts["round_to"],
                    "branches_removed": edit.facts["branches_removed"],
                    "metric": quality(edit.model, name, load),
                    "seconds": time.perf_counter() - start,
                }


def table(rows: list[Row]) -> str:
    """Return the curves in Markdown: a line for each share of MACs that is left, a column for each way."""
    lines = []
    for name in dict.fromkeys(row["model"] for row in rows):
        found = {(row["asked"], row["way"]): row["metric"] for row in rows if row["model"] == name}
        lines += [
            f"| {name} (float {found[1.0, 'float']:.2f}) | {' | '.join(WAYS)} |",
            "| --- |" + " --- |" * len(WAYS),
        ]
        for left in dict.fromkeys(row["asked"] for row in rows if row["model"] == name and row["way"] != "float"):
            lines.append(f"| {left:.0%} | " + " | ".join(f"{found[left, way]:.2f}" for way in WAYS) + " |")
        lines.append("")
    return "\n".join(lines)


def latency(asked: argparse.Namespace, load: ModuleType) -> Iterator[Row]:
    """Speed-up of the pruned model, and of its int8 form over the whole model's."""
    for name in asked.models or ["resnet56", "squeezenet"]:
        model, data = model_of(name, load), calibration(name, load)
        few = Dataset(origin=data.origin, read=data.read, limit=32)
        left = (asked.left or [0.7])[0]
        options = PruneOptions(
            target={"macs": left},
            round_to=asked.round_to,
            allocation=asked.allocation,
            repair=asked.allocation == "sensitivity",  # which branches can go depends on what repair makes good
        )
        edit = prune(model, options, few)
        feeds = next(data.batches(graph.input_specs(model)))
        int8 = QuantizeOptions(mode="static", min_agreement=0)  # speed is what is measured here
        small = tuple(quantize(each, int8, few).model for each in (model, edit.model))
        for kind, pair in {"float": (model, edit.model), "int8": small}.items():
            ratio = compare(pair, feeds, session.SessionOptions(threads=1))
            row = {"model": name, "kind": kind, "left": left, "round_to": edit.facts["round_to"]}
            row |= {"branches_removed": edit.facts["branches_removed"]}
            yield row | {"speed_up": 1 / ratio.value, "low": 1 / ratio.high, "high": 1 / ratio.low}


def int8(asked: argparse.Namespace, load: ModuleType) -> Iterator[Row]:
    """The metric of int8 models that were pruned before they were quantized, and after."""
    for name in asked.models or ["resnet20"]:
        model, data, options = model_of(name, load), calibration(name, load), QuantizeOptions(mode="static")
        whole = quantize(model, options, data).model
        yield {"model": name, "way": "int8", "left": 1.0, "metric": quality(whole, name, load)}
        for left in asked.left or [0.8, 0.7]:
            cut = PruneOptions(target={"macs": left}, round_to=asked.round_to or 4)
            repaired = cut.model_copy(update={"repair": True})
            ways = {
                "int8, pruned": prune(whole, cut, data).model,
                "int8, pruned, repaired": prune(whole, repaired, data).model,
                "pruned, repaired, int8": quantize(prune(model, repaired, data).model, options, data).model,
            }
            for way, edited in ways.items():
                yield {"model": name, "way": way, "left": left, "metric": quality(edited, name, load)}


def model_of(name: str, load: ModuleType) -> ir.Model:
    """Return a prepared model, real or of the zoo."""
    if not name.startswith("zoo:"):
        return prepare(artifact.load(load.MODELS[name])).model
    from onnxpress.export.export import export

    return export(name, ExportOptions(verify=False)).edit.model


def calibration(name: str, load: ModuleType) -> Dataset:
    """Return the unlabelled samples of a model."""
    function, _, count = DATA[name]
    if name == "minilm":
        return Dataset(origin=function, read=lambda: sentences(load, count))
    samples = {key: value for key, value in getattr(load, function)().items() if key != "y"}
    return Dataset(origin=function, read=lambda: [samples], limit=count)


def sentences(load: ModuleType, count: int) -> Iterator[dict[str, Any]]:
    """Yield tokens of questions to a bank, those of about the same length together: none is among those that judge."""
    with (FOLDER / "text" / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    texts = sorted(texts[:: len(texts) // count][:count], key=len)
    for start in range(0, count, 8):
        yield load.tokens(texts[start : start + 8])


def quality(model: ir.Model, name: str, load: ModuleType) -> float:
    """Return top-1 in percent, or 100 × Spearman's correlation for sentences."""
    opened, function = session.open_session(model), DATA[name][1]
    if function is None:
        return float(load.sts_spearman(opened))
    data = getattr(load, function)()
    labels = data.pop("y")
    batches = Dataset(origin=function, read=lambda: [data]).batches(graph.input_specs(model), 50)
    scores = [next(iter(session.run(opened, batch).values())) for batch in batches]
    found = np.concatenate([each.reshape(len(each), -1).argmax(axis=1) for each in scores])
    return float(100 * np.mean(found == labels))


if __name__ == "__main__":
    main()
