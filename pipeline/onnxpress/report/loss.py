"""What a variant lost, judged by bounds that hold where nobody set others: a hundredth may go, a tenth is ruin.

With labels the bound is a point of the metric (a hundredth of the float model's value for a metric in its own unit).
Without, a hundredth of the answers may change; where outputs are no class scores, noise may be a hundredth of the
signal. A bound is judged on the whole 95% interval, so that little evidence is never taken for a small loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from onnxpress.report.numbers import drop_within, needed

if TYPE_CHECKING:
    from onnxpress.report.report import Document, Report

State = Literal["kept", "open", "lost", "ruined", "unknown"]
ALLOWED = 1.0
"""Points, or per cent."""
RUIN = 10 * ALLOWED
MOST_POWER = 300
"""Of ten, that a number of the machine holds."""
OTHER_MODEL_PCT = 50.0
"""With fewer answers alike it is another model, whatever labels say of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a variant lost against the baseline."""

    state: State
    """``kept`` and ``lost`` are shown, ``open`` is neither; ``ruined`` lost ten times what it may."""
    text: str
    """The number: ``top1 drop 81.91 [78.30, 84.93] pp``."""
    bound: str = ""
    """What it was judged by: ``top1 drop ≤ 1 pp``."""
    decides: str = ""
    """What would decide where it is open."""


def loss(report: Report, variant: str) -> Loss:
    """Judge one variant by the best evidence there is: labels, else answers, else signal and noise."""
    quality = report.quality(variant)
    if quality is None:
        return Loss(state="unknown", text="accuracy and fidelity were not measured")
    new, old = quality.get("non_finite") or 0, (report.quality(report.baseline) or {}).get("non_finite") or 0
    if new > old:
        return Loss(state="ruined", text=f"{new - old} output values are no number (NaN or infinite)")
    metric, answers, signal = _metric(report, variant), _answers(report, quality), _signal(report, quality)
    noisy = signal is None or signal.state == "ruined"
    if metric is not None:
        if metric.state != "ruined" and answers and noisy and quality["agreement_pct"] < OTHER_MODEL_PCT:
            return replace(answers, state="ruined")
        return metric
    if answers is not None:
        # Outputs that are close all the same are no class scores (an embedding): their largest is no answer.
        return answers if noisy or answers.state != "ruined" else replace(answers, state="lost")
    return signal or Loss(state="unknown", text="its outputs could not be compared")


def _metric(report: Report, variant: str) -> Loss | None:
    metric, change, base = report.metric, report.quality_change(variant), report.quality(report.baseline)
    if metric is None or change is None or change["drop"] is None or math.isnan(change["drop"]):
        return None
    points = metric["unit"] in ("%", "x100")
    scale = 1.0 if points else abs((base or {}).get("value") or 0) / 100
    if not scale:
        return None
    drop, interval = change["drop"] / scale, change["ci95"] and tuple(end / scale for end in change["ci95"])
    allowed = f"{ALLOWED:g} pp" if points else f"{ALLOWED:g}% of the value of {report.baseline}"
    return _judged(
        drop,
        interval,
        change["samples"] or 0,
        text=f"{metric['name']} {drop_within(change['drop'], change['ci95'], metric['unit'])}",
        bound=f"{metric['name']} drop ≤ {allowed}",
    )


def _answers(report: Report, quality: Document) -> Loss | None:
    agreement = quality["agreement_pct"]
    if agreement is None:
        return None
    ends = _ends(quality, "agreement_pct")
    return _judged(
        100 - agreement,
        ends and (100 - ends[1], 100 - ends[0]),
        report.evaluation["data"]["samples"] if report.evaluation else 0,
        text=f"agreement {agreement:.2f}%",
        bound=f"agreement ≥ {100 - ALLOWED:g}%",
    )


def _signal(report: Report, quality: Document) -> Loss | None:
    """Judge the noise as a share of the signal: 1% is 20 dB, 10% is 10 dB."""
    if quality["cosine"] is None:
        return None
    sqnr_db, bound = quality["sqnr_db"], f"SQNR ≥ {noise_db(ALLOWED):g} dB"
    if sqnr_db is None:
        return Loss(state="kept", text="no noise", bound=bound)
    ends = _ends(quality, "sqnr_db")
    return _judged(
        _noise_pct(sqnr_db),
        ends and (_noise_pct(ends[1]), _noise_pct(ends[0])),
        report.evaluation["data"]["samples"] if report.evaluation else 0,
        text=f"SQNR {sqnr_db:.1f} dB",
        bound=bound,
    )


def noise_db(share_pct: float) -> float:
    """Return the signal-to-noise ratio, dB, of noise that is a share of the signal's power, per cent."""
    return -10 * math.log10(share_pct / 100)


def _noise_pct(sqnr_db: float) -> float:
    return float(100 * 10 ** min(-sqnr_db / 10, MOST_POWER))


def _ends(quality: Document, name: str) -> Sequence[float] | None:
    """Return the 95% interval of a number of the evaluation; None where the samples give none."""
    found: Sequence[float] | None = (quality.get("ci95") or {}).get(name)
    return found


def _judged(drop: float, interval: Sequence[float] | None, count: int, *, text: str, bound: str) -> Loss:
    """Judge a drop in points or per cent."""
    low, high = interval or (-math.inf, math.inf)
    decides = ""
    if drop > RUIN and (interval is None or low > ALLOWED):
        state: State = "ruined"
    elif low > ALLOWED:
        state = "lost"
    elif high <= ALLOWED:
        state = "kept"
    else:
        state = "open"
        samples = (
            needed(count, high - drop if drop <= ALLOWED else drop - low, abs(ALLOWED - drop)) if interval else None
        )
        decides = (
            f"about {samples} samples would decide"
            if samples
            else f"it is too near to {ALLOWED:g} for any number of samples to decide"
            if interval
            else "too few samples, or too few that differ, for an interval: evaluate on more"
        )
    return Loss(state=state, text=text, bound=bound, decides=decides)
