"""What a run would do: its steps, which of them are done already, and about how long the others take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxpress import runner, store
from onnxpress.recipe import BASELINE, Recipe, Step
from onnxpress.runner import Samples

SCHEMA = "onnxpress.plan/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step of a variant, before it is done."""

    variant: str
    step: str
    """With its mode or method, where it has one."""
    done: bool
    """Whether the run folder has its result."""
    seconds: float | None
    """About how long it takes: what the like took last in this run folder; None where there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run would do, in order."""

    steps: tuple[PlannedStep, ...]
    measurements: tuple[str, ...]
    bench_s: float | None
    """The budget of the benchmark; None without one."""

    @property
    def seconds(self) -> float | None:
        """About how long the run takes; None where a step never ran here."""
        left = [step.seconds for step in self.steps if not step.done]
        known = [each for each in left if each is not None]
        return sum(known) + (self.bench_s or 0.0) if len(known) == len(left) else None


def plan(recipe: Recipe, folder: Path) -> Plan:
    """Return what a run of a recipe would do; nothing is written.

    Args:
        recipe: A validated recipe.
        folder: The run folder; it need not exist.

    Raises:
        UsageError: policy, metric or prices are not what they should be.
        DataError: the calibration data cannot be read.
    """
    runner.checked(recipe)
    steps, samples = folder / "steps", Samples.of(recipe)
    took = {_like(record): seconds for record, seconds in store.times_s(steps)}
    entry = runner.export_entry(recipe)
    exported = store.find(steps, entry)
    planned = [_planned(BASELINE, entry, took, done=exported is not None)]
    seen: list[tuple[Step, ...]] = []
    for name, todo in recipe.variants.items():
        done = exported
        for position, step in enumerate(todo, start=1):
            entry = {"step": step.name, "options": step.options.model_dump(mode="json")}
            if done is not None and exported is not None:
                entry = runner.step_entry(step, done.artifact, exported.artifact, samples)
                done = store.find(steps, entry)
            shared = todo[:position] in seen  # with a variant before, which leaves its result for this one
            seen.append(todo[:position])
            planned.append(_planned(name, entry, took, done=done is not None or shared))
    return Plan(
        steps=tuple(planned),
        measurements=tuple(_measurements(recipe)),
        bench_s=None if recipe.bench is None else recipe.bench.budget.total_seconds(),
    )


def _planned(variant: str, entry: Mapping[str, Any], took: Mapping[str, float], *, done: bool) -> PlannedStep:
    step = _like(entry)
    return PlannedStep(variant=variant, step=step, done=done, seconds=took.get(step))


def _like(entry: Mapping[str, Any]) -> str:
    """Name a step with its mode or method: steps of one name take about equally long on one model."""
    options = entry.get("options") or {}
    return " ".join(str(part) for part in (entry.get("step"), options.get("mode") or options.get("method")) if part)


def _measurements(recipe: Recipe) -> Iterator[str]:
    """Say what is measured after the steps."""
    models = f"{1 + len(recipe.variants)} models"
    if recipe.data.evaluation is not None:
        yield f"evaluate {models} on {recipe.data.evaluation}" + (f", {recipe.data.metric}" * bool(recipe.data.metric))
    if recipe.bench is not None:
        yield (
            f"bench {models} ({', '.join(recipe.bench.scenarios)}): about "
            f"{_duration(recipe.bench.budget.total_seconds())}"
        )
    if recipe.cost is not None:
        yield f"cost on {', '.join(recipe.cost.instances)}"
    if recipe.gate is not None:
        yield f"gate by {recipe.gate}"


def document(found: Plan) -> dict[str, Any]:
    """Return the plan as JSON."""
    return {"schema": SCHEMA, **asdict(found), "seconds": found.seconds}


def render(found: Plan) -> str:
    """Write the plan for people."""
    widths = [max(len(getattr(step, name)) for step in found.steps) for name in ("variant", "step")]
    lines = []
    for step in found.steps:
        state = "done" if step.done else "to do"
        time = "" if step.done else "time not known" if step.seconds is None else f"about {_duration(step.seconds)}"
        lines.append(f"{step.variant:<{widths[0]}}  {step.step:<{widths[1]}}  {state:<6} {time}".rstrip())
    lines += found.measurements
    total = "not known: some steps never ran in this folder" if found.seconds is None else _duration(found.seconds)
    return "\n".join([*lines, f"time: {total}"])


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
