"""Our quantized models beside those of `peers.py`: size, metric, agreement, SQNR, and latency in interleaved pairs.

    python benchmarks/quantization/compare.py [CASE …] [--threads 2] [--budget 60s] [--ours default auto] [-o FILE]

Every model is loaded and scored, whatever its tool said of it. SQNR is that of the worst output against the float model
(over real tokens only, for text), agreement the share of samples with the same class (for `minilm` 100 times the mean
cosine). Latency is relative to the prepared float model, measured in one benchmark with all models that load; the last
column compares each of ours with the fastest peer that keeps the bound (`BOUND`), pair by pair.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from cases import Case, cases
from peers import CACHE, OLD_OPSETS, PEERS, result_path

from onnxpress import artifact
from onnxpress.bench.bench import bench
from onnxpress.bench.options import BenchOptions
from onnxpress.bench.statistics import Interval
from onnxpress.errors import ModelError, OnnxpressError
from onnxpress.evaluation.evaluate import evaluate
from onnxpress.evaluation.fidelity import Fidelity
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.session import SessionOptions, open_session
from onnxpress.units import parse

FLOAT = "float"
OURS = {
    "default": QuantizeOptions(),
    "dynamic": QuantizeOptions(mode="dynamic"),
    "auto": QuantizeOptions(mode="auto", budget=timedelta(minutes=5)),
}
BOUND = {"drop": 1.0, "sqnr_db": 10.0}
"""What a model must keep to count, auto's and theirs: at most a point of the metric (auto's default); else ten dB."""
CONTENDERS = 3
"""Peers that are measured again for the place of the fastest."""


def main() -> None:
    """Compare what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"default: {' '.join(cases())}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", default="60s", help="of each benchmark")
    parser.add_argument("--ours", nargs="*", default=list(OURS), choices=list(OURS))
    parser.add_argument("-o", "--output", type=Path, help="also write everything as JSON; other cases there stay")
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    if asked.output and asked.output.exists():
        results = json.loads(asked.output.read_text())["cases"]
    for case in (cases()[name] for name in asked.cases or cases()):
        models, refused = candidates(case, asked.ours, asked.threads)
        scores = {name: quality(case, name, path) for name, path in models.items()}
        fit = {name: path for name, path in models.items() if "error" not in scores[name]}
        ratios, direct = latencies(case, fit, scores, asked.threads, asked.budget)
        results[case.name] = {"scores": scores, "ratios": ratios, "against_fastest_peer": direct, "refused": refused}
        print(table(case, scores, ratios, direct, refused), flush=True)
        if asked.output:
            asked.output.write_text(json.dumps({"threads": asked.threads, "cases": results}, indent=1) + "\n")
    print(summary(results))


def candidates(case: Case, ours: list[str], threads: int) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the models of one case by name, the prepared float model first, and what was refused, with the reason."""
    home = CACHE / "ours" / case.name
    home.mkdir(parents=True, exist_ok=True)
    prepared = prepare(artifact.load(case.model)).model
    models = {FLOAT: artifact.save(prepared, home / "float.onnx", force=True).path}
    refused = {}
    for name in ours:
        path = home / f"{name}.onnx"
        try:
            bound = {} if case.metric or name != "auto" else {"min_sqnr": BOUND["sqnr_db"]}
            chosen = OURS[name].model_copy(update={"threads": threads, **bound})
            edit = quantize(
                prepared,
                chosen,
                case.data("calibration"),
                evaluation=case.data("test"),
                metric=case.metric,
                journal=home / "search.jsonl",
            )
            models[name] = artifact.save(edit.model, path, force=True).path
            if name == "auto":
                print(case.name, "auto:", json.dumps(dict(edit.facts)), flush=True)
        except OnnxpressError as error:
            refused[name] = str(error)
    for name in PEERS:
        for suffix in ("", "-op17") if case.name in OLD_OPSETS else ("",):
            result = result_path(name, case.name + suffix)
            if result.exists():
                found = json.loads(result.read_text())
                if "error" in found:
                    refused[name + suffix] = found["error"]
                else:
                    models[name + suffix] = result.with_suffix(".onnx")
    return models, refused


def quality(case: Case, name: str, path: Path) -> dict[str, Any]:
    """Return what a model scores, or the error with which it cannot be used; kept by the file's hash."""
    reference = CACHE / "ours" / case.name / "float.onnx"
    sha256 = artifact.read(path).sha256
    known = CACHE / "quality" / f"{case.name}-{sha256[:16]}.json"
    if known.exists():
        found: dict[str, Any] = json.loads(known.read_text())
        return found
    options = SessionOptions(threads=2)
    try:
        session = open_session(path, options)
        fidelity = Fidelity()
        for expected, given in zip(case.outputs(open_session(reference, options)), case.outputs(session), strict=True):
            fidelity.update(expected, given)
        found = {
            "size_bytes": artifact.read(path).size_bytes,
            "sqnr_db": fidelity.sqnr_db,
            "agreement_pct": fidelity.agreement_pct if case.mask is None else 100 * (fidelity.cosine or 0),
            "value": None,
            "drop": None,
        }
        if case.metric is not None:
            models = {FLOAT: reference} | ({"candidate": path} if name != FLOAT else {})
            scored = evaluate(models, baseline=FLOAT, data=case.data("test"), metric=case.metric)
            found["value"] = scored["variants"][-1]["value"]
            found["drop"] = scored["comparisons"][0]["drop"] if scored["comparisons"] else 0.0
    except (ModelError, RuntimeError, ValueError) as error:
        found = {"error": f"cannot be used: {' '.join(str(error).split())[:200]}"}
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(json.dumps(found))
    return found


def keeps(score: Mapping[str, Any]) -> bool:
    """Tell whether a model is within `BOUND`."""
    if score["drop"] is not None:
        return bool(score["drop"] <= BOUND["drop"])
    return score["sqnr_db"] is None or bool(score["sqnr_db"] >= BOUND["sqnr_db"])


def latencies(
    case: Case, models: Mapping[str, Path], scores: Mapping[str, Any], threads: int, budget: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ratios to float by model, and of ours to the fastest peer that keeps the bound."""
    options = BenchOptions(
        scenarios=("single",), threads=threads, budget=timedelta(milliseconds=parse(budget, "ms")), pairs=20
    )
    inputs = case.data("test")
    found = bench(models, baseline=FLOAT, options=options, inputs=inputs)
    ratios = {comparison.candidate: _interval(comparison.ratio) for comparison in found.comparisons}
    peers = [name for name in ratios if name not in OURS and keeps(scores[name])]
    if not peers:
        return ratios, {}
    ours = [name for name in OURS if name in models]
    contenders = sorted(peers, key=lambda name: float(ratios[name]["value"]))[:CONTENDERS]
    while True:  # among so many models each has few pairs: who is fastest shows when the first ones run alone
        chosen = {name: models[name] for name in (*contenders, *ours)}
        again = bench(chosen, baseline=contenders[0], options=options, inputs=inputs)
        direct = {comparison.candidate: _interval(comparison.ratio) for comparison in again.comparisons}
        fastest = min(contenders, key=lambda name: direct[name]["value"] if name in direct else 1.0)
        if fastest == contenders[0]:
            break
        contenders = [fastest]
    return ratios, {"peer": fastest, "ratios": direct}


def table(
    case: Case,
    scores: Mapping[str, Any],
    ratios: Mapping[str, Any],
    direct: Mapping[str, Any],
    refused: Mapping[str, str],
) -> str:
    """Return one case as Markdown."""
    against = f"against {direct['peer']}" if direct else "against the fastest peer"
    lines = [f"| {case.name} | MB | metric | agree | SQNR dB | latency | {against} |", "|---|---|---|---|---|---|---|"]
    for name, score in scores.items():
        if "error" in score:
            lines.append(f"| {name} | **{score['error']}** | | | | | |")
            continue
        cells = [
            f"{score['size_bytes'] / 1e6:.3f}",
            *(_number(score[key]) for key in ("value", "agreement_pct", "sqnr_db")),
        ]
        other = direct["ratios"].get(name) if direct else None
        lines.append(f"| {name} | {' | '.join(cells)} | {_ratio(ratios.get(name))} | {_ratio(other)} |")
    lines += [f"| {name} | **{reason[:160]}** | | | | | |" for name, reason in refused.items()]
    return "\n".join(lines) + "\n"


def summary(results: Mapping[str, Any]) -> str:
    """Return a line per case as Markdown."""
    lines = [
        "| model | float | static int8 | latency | auto | latency | fastest peer within it | auto to it | out |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, found in results.items():
        scores, ratios, direct = found["scores"], found["ratios"], found["against_fastest_peer"]
        peers = {name for name in scores if name not in (FLOAT, *OURS)}
        out = [name for name in peers if "error" in scores[name] or not keeps(scores[name])]
        out += [name for name in found["refused"] if name not in OURS]
        peer = direct.get("peer")
        cells = [case, _scored(scores[FLOAT])]
        for name in ("default", "auto"):
            cells += [_scored(scores[name]), _ratio(ratios.get(name))] if name in scores else ["refused", ""]
        cells += [f"{peer}: {_scored(scores[peer])}", _ratio(direct["ratios"].get("auto"))] if peer else ["none", ""]
        lines.append(f"| {' | '.join(cells)} | {len(out)} of {len(peers) + len(set(found['refused']) - set(OURS))} |")
    return "\n".join(lines)


def _scored(score: Mapping[str, Any]) -> str:
    """Say a model's size, metric and SQNR, as far as it has them."""
    said = [f"{score['size_bytes'] / 1e6:.2f} MB"]
    said += [] if score["value"] is None else [f"{score['value']:.2f}"]
    said += [] if score["sqnr_db"] is None else [f"{score['sqnr_db']:.1f} dB"]
    return ", ".join(said)


def _interval(ratio: Interval) -> dict[str, float]:
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ratio(ratio: Mapping[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"


if __name__ == "__main__":
    main()
