"""What a candidate loses against the float model, and whether that is within the bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxpress.evaluation import metrics
from onnxpress.evaluation.evaluate import add_user_metric, check_evidence, evaluate, user_results
from onnxpress.session import SessionOptions, open_session
from onnxpress_calibration.dataset import Dataset

SEARCH, HELD_OUT = 0, 1
"""Every second sample decides; the others confirm what was chosen by its loss on the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a candidate must keep; each limit that is given counts."""

    max_drop: float | None = None
    """Of the metric, in its own unit."""
    min_sqnr_db: float | None = None
    min_agreement_pct: float | None = None

    def __str__(self) -> str:
        limits = {
            "drop <= {:g}": self.max_drop,
            "SQNR >= {:g} dB": self.min_sqnr_db,
            "agreement >= {:g} %": self.min_agreement_pct,
        }
        return ", ".join(text.format(limit) for text, limit in limits.items() if limit is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What a candidate loses, on one half of the samples or all of them."""

    drop: float | None
    """Of the metric, positive where the candidate is worse; None without a metric."""
    ci95: tuple[float, float] | None
    expected_drop: float | None = None
    """Points of top-1 that changed answers lose by the float model's own probabilities, which vary far less than what
    few labels say (`onnxpress.evaluation.fidelity.Fidelity.expected_drop`); None where it is no estimate of the
    metric."""
    samples: int = 0
    sqnr_db: float | None
    """None where the outputs are equal."""
    agreement_pct: float | None

    def keeps(self, bound: Bound) -> bool:
        """Tell whether nothing says that the bound is broken.

        A drop is beyond it where its whole interval is, or the best estimate: that of the float model's own
        probabilities, else what was measured. One changed answer of a few hundred is noise.
        """
        estimate = self.drop if self.expected_drop is None else self.expected_drop
        return (
            (
                bound.max_drop is None
                or (
                    estimate is not None
                    and estimate <= bound.max_drop
                    and (self.ci95 is None or self.ci95[0] <= bound.max_drop)
                )
            )
            and (bound.min_sqnr_db is None or self.sqnr_db is None or self.sqnr_db >= bound.min_sqnr_db)
            and (
                bound.min_agreement_pct is None
                or self.agreement_pct is None
                or self.agreement_pct >= bound.min_agreement_pct
            )
        )

    def __str__(self) -> str:
        interval = f" [{self.ci95[0]:.2f}, {self.ci95[1]:.2f}]" if self.ci95 else ""
        texts = {
            f"drop {{:.2f}}{interval}": self.drop,
            "{:.2f} by the float model's own probabilities": self.expected_drop,
            "SQNR {:.1f} dB": self.sqnr_db,
            "agreement {:.1f} %": self.agreement_pct,
        }
        return ", ".join(text.format(value) for text, value in texts.items() if value is not None)

    def proves(self, bound: Bound) -> bool:
        """Tell whether even the worse end of the drop's interval is within the bound."""
        return self.keeps(bound) and (
            bound.max_drop is None or (self.ci95 is not None and self.ci95[1] <= bound.max_drop)
        )


class Judge:
    """Evaluates candidates against one float model.

    Args:
        reference: The float model's file.
        data: Evaluation samples (calibration samples where there are none).
        metric: See `onnxpress.evaluation.evaluate.evaluate`; None for fidelity only.
        session: Provider and threads.
    """

    def __init__(self, reference: Path, data: Dataset, metric: str | None, session: SessionOptions) -> None:
        self._reference, self._data, self._session = reference, data, session
        self._metric = metric if metric in metrics.names() else None
        self._function = None if metric in metrics.names() else metric
        self._results: dict[str, Any] = {}

    def quality(self, candidate: Path, half: int | None) -> Quality:
        """Return what a candidate loses on one half of the samples, `SEARCH` or `HELD_OUT`, or on all (None)."""
        models = {"float": self._reference, "candidate": candidate}
        document = evaluate(
            models,
            baseline="float",
            data=self._data,
            metric=self._metric,
            half=half,
            must_compare=self._function is None,
            options=self._session,
        )
        if self._function is not None:
            add_user_metric(document, self._function, self._user_results(models), half)
        check_evidence(document, "candidate")
        comparison = document["comparisons"][0] if document["comparisons"] else None
        variant = document["variants"][1]
        points = comparison is None or document["metric"]["unit"] == "%"
        return Quality(
            samples=document["data"]["samples"],
            expected_drop=variant["expected_drop"] if points else None,
            drop=comparison and comparison["drop"],
            ci95=tuple(comparison["ci95"]) if comparison and comparison["ci95"] else None,
            sqnr_db=variant["sqnr_db"],
            agreement_pct=variant["agreement_pct"],
        )

    def _user_results(self, models: Mapping[str, Path]) -> dict[str, Any]:
        """Return what the user's function says of both; it runs on all of its own data, so results are kept."""
        assert self._function is not None  # noqa: S101 - the only caller has asked
        for name, path in models.items():
            if str(path) not in self._results:
                session = open_session(path, self._session)
                self._results[str(path)] = user_results(self._function, {name: session})[name]
        return {name: self._results[str(path)] for name, path in models.items()}
