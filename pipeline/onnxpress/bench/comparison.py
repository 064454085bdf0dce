"""Comparing two variants: pairs of blocks, those left out that the host disturbed, and the ratio with its interval."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from onnxpress.bench import statistics
from onnxpress.bench.messages import Block
from onnxpress.bench.protocol import Variant
from onnxpress.bench.scenarios import Scenario
from onnxpress.bench.statistics import EARLY_CONFIDENCE, MIN_PAIRS, MIN_PROCESSES, Interval
from onnxpress.intervals import CONFIDENCE

Verdict = Literal["pass", "fail", "inconclusive"]

METHOD = "paired-block/hodges-lehmann"
MIN_EFFECT = 0.01
"""A gain below this is not called one."""
MAX_STOLEN = 0.02
"""Share of a block's time that the hypervisor may take."""
MAX_SPEED_DEVIATION = 0.1
"""Of the speedometer, from its median over all blocks."""
MAX_PREEMPTIONS_PER_S = 50
"""Measured: hundreds on a machine that others use too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a candidate differs from the baseline in one metric."""

    baseline: str
    candidate: str
    metric: str
    lower_is_better: bool = True
    ratio: Interval
    """Candidate ÷ baseline, with its interval; it counts the pairs it rests on."""
    processes: int
    """Of each variant, that these pairs come from."""
    ratios: tuple[float, ...] = ()
    """Of each pair that counts, in the order of measuring."""
    disturbed: int
    """Pairs that the host disturbed."""
    dropped: int
    """Pairs that were left out: the disturbed ones, or none where too little would be left to speak of the model."""

    def verdict(self, max_regression: float) -> Verdict:
        """Judge the change by a limit, a share such as 0.05.

        ``fail`` when the whole interval is worse than the limit, ``pass`` when no part of it is, else ``inconclusive``:
        more pairs would narrow it. Fewer than `MIN_PROCESSES` decide nothing.
        """
        if self.processes < MIN_PROCESSES:
            return "inconclusive"
        best, worst = (
            (self.ratio.low, self.ratio.high) if self.lower_is_better else (1 / self.ratio.high, 1 / self.ratio.low)
        )
        if best > 1 + max_regression:
            return "fail"
        return "pass" if worst <= 1 + max_regression else "inconclusive"

    @property
    def improved(self) -> bool:
        """Whether the candidate is better, by more than `MIN_EFFECT` and by more than chance."""
        return self.verdict(-MIN_EFFECT) == "pass"

    @property
    def taken(self) -> int:
        """Pairs that were measured."""
        return self.ratio.count + self.dropped


def compare(
    variants: dict[str, Variant],
    baseline: str,
    candidate: str,
    name: str,
    scenario: Scenario,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two variants by their pairs of blocks in one scenario (its name and what it means).

    A pair is left out, whole, by rules that were fixed beforehand and do not look at its result: see `disturbed`. When
    more than half would go, all stay: a host that is always disturbed is what was measured then.
    """
    measured = [variant.blocks[name] for variant in variants.values()]
    usual_ns = median(block.speed_ns for processes in measured for blocks in processes for block in blocks)
    one, two = variants[baseline], variants[candidate]
    pairs = [
        list(zip(first, second, strict=True)) for first, second in zip(one.blocks[name], two.blocks[name], strict=True)
    ]
    kept = [[pair for pair in group if not any(disturbed(block, usual_ns) for block in pair)] for group in pairs]
    all_count, kept_count = sum(map(len, pairs)), sum(map(len, kept))
    used = kept if kept_count >= max(MIN_PAIRS, all_count / 2) else pairs

    def value(block: Block, variant: Variant) -> float:
        return scenario.value(durations_ms(block), variant.probe.batch[name])

    logs: list[Sequence[float]] = [
        [math.log(value(second, two) / value(first, one)) for first, second in group] for group in used
    ]
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        metric=scenario.metric,
        lower_is_better=scenario.lower_is_better,
        ratio=statistics.center(logs, confidence).exp(),
        processes=sum(bool(group) for group in logs),
        ratios=tuple(math.exp(one) for group in logs for one in group),
        disturbed=all_count - kept_count,
        dropped=all_count - sum(map(len, used)),
    )


def certain(
    variants: dict[str, Variant],
    baseline: str,
    scenarios: Mapping[str, Scenario],
    limits: Collection[float],
    enough: int,
) -> bool:
    """Tell whether the verdicts on all candidates, by all limits, are beyond doubt: the measurement may end early.

    Each must hold at `EARLY_CONFIDENCE`, from at least ``enough`` pairs that count.
    """
    comparisons = [
        compare(variants, baseline, name, scenario, meaning, EARLY_CONFIDENCE)
        for name in variants
        if name != baseline
        for scenario, meaning in scenarios.items()
    ]
    return all(
        each.ratio.count >= enough and all(each.verdict(limit) != "inconclusive" for limit in limits)
        for each in comparisons
    )


def disturbed(block: Block, usual_speed_ns: float) -> bool:
    """Tell whether something other than the model changed how fast a block ran.

    That is: the quota of a control group stopped it; the hypervisor took more than `MAX_STOLEN` of the time (and more
    than the single tick that cannot be told from rounding); other processes took the CPUs away more than
    `MAX_PREEMPTIONS_PER_S` times a second (and more than a system's housekeeping does); or a fixed piece of work just
    before it was more than `MAX_SPEED_DEVIATION` faster or slower than usual.
    """
    return (
        block.throttled > 0
        or block.stolen_ticks > max(1, MAX_STOLEN * block.ticks)
        or block.preempted > max(5, MAX_PREEMPTIONS_PER_S * sum(block.durations_ns) / 1e9)
        or abs(block.speed_ns / usual_speed_ns - 1) > MAX_SPEED_DEVIATION
    )


def durations_ms(block: Block) -> tuple[float, ...]:
    """Return the durations of a block's runs in milliseconds."""
    return tuple(duration / 1e6 for duration in block.durations_ns)
