"""The loop: a recipe in, a folder with artifacts, measurements, report and verdict out.

::

    RUN_DIR/
      steps/KEY/model.onnx, step.json   one folder per step, named by everything that its result depends on
      profiles/KEY.profile              activation statistics of one model, collected once for all its variants
      VARIANT/model.onnx                the artifact of each variant (a hard link into steps/)
      evaluation.json bench.json cost.json report.json report.md report.html run.json

No state lives anywhere else. A step's key is the hash of its input model, options, data, code and library versions, so
variants share steps, a second run does only what changed, and a run that was killed continues: a step's folder appears
in one rename, complete. Measurements are always taken again, because they are about this machine now.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress import artifact, host, macs
from onnxpress.artifact import Artifact, Edit, Skip
from onnxpress.data import shared_samples
from onnxpress.distillation.options import DistillOptions
from onnxpress.errors import ModelError, OutputError, UsageError
from onnxpress.files import dumps, write_text
from onnxpress.gate import reader
from onnxpress.gate.policy import Policy
from onnxpress.progress import Progress, Stage, unshown
from onnxpress.provenance import source_sha256, versions
from onnxpress.pruning.options import PruneOptions
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.recipe import BASELINE, Recipe, Step, judges, needs_calibration, uses_calibration
from onnxpress.report.report import Report
from onnxpress.scratch import explained, remove_abandoned
from onnxpress.store import MODEL_FILE, Done, key, link, stored
from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.profile import Profile

LOCK_FILE = ".lock"
"""Held while a run works in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The recipe's data section, opened."""

    calibration: Dataset | None
    evaluation: Dataset | None
    metric: str | None

    @classmethod
    def of(cls, recipe: Recipe) -> Samples:
        """Open the data of a recipe; nothing is read yet."""
        return cls(
            calibration=recipe.data.calibration_data(),
            evaluation=recipe.data.evaluation_data(),
            metric=recipe.data.metric,
        )


def run(recipe: Recipe, folder: Path, progress: Progress, *, now: Callable[[], datetime] | None = None) -> Report:
    """Do everything a recipe asks for.

    Args:
        recipe: A validated recipe.
        folder: The run folder; it is created, or continued when a run was here before.
        progress: Shows what is going on.
        now: The clock (for tests).

    Returns:
        The report, checks included when the recipe names a policy.

    Raises:
        OnnxpressError: see the commands; finished steps stay for the next run.
    """
    from onnxpress.report import files

    policy = checked(recipe)
    with _created(folder), _locked(folder):
        variants = _variants(recipe, folder, progress)
        limits = policy.regressions() if policy else None
        report = measure(recipe, folder, variants, progress, limits=limits, created=(now or _now)())
        if policy is not None:
            from onnxpress.gate.gate import gate

            report = Report.from_json(report.to_json())  # what `compress gate` on this folder reads
            report = report.with_checks(gate(report, policy, (now or _now)().date()))
        files.write(report, folder)
        return report


def checked(recipe: Recipe) -> Policy | None:
    """Find what a recipe names and is not there, before any work: data, metric, policy, prices; return the policy.

    Raises:
        UsageError: something is not there, or is not what it should be.
        DataError: the data cannot be read, or has no labels though the metric needs them.
    """
    from onnxpress.evaluation.evaluate import check_labels, check_metric

    check_metric(recipe.data.metric)
    for data in (recipe.data.calibration_data(), recipe.data.evaluation_data()):
        if data is not None:
            next(data.samples(), None)
    if (evaluation := recipe.data.evaluation_data()) is not None:
        check_labels(evaluation, recipe.data.metric)
    if recipe.cost is not None:
        from onnxpress.cost.cost import check

        check(recipe.cost, [BASELINE, *recipe.variants])
    return reader.read(Path(recipe.gate)) if recipe.gate else None


def _variants(recipe: Recipe, folder: Path, progress: Progress) -> dict[str, list[Done]]:
    """Make the artifact of every variant; return the steps of each, the export first."""
    store = folder / "steps"
    remove_abandoned(store)
    samples = Samples.of(recipe)
    exported = _export(recipe, store, progress)
    variants = {BASELINE: [exported]}
    for name, steps in recipe.variants.items():
        done = [exported]
        for step in steps:
            done.append(_apply(step, done[-1].artifact, exported.artifact, samples, store, progress, variant=name))
        variants[name] = done
    for name, done in variants.items():
        link(done[-1].artifact, folder / name)
    return variants


def _export(recipe: Recipe, store: Path, progress: Progress) -> Done:
    from onnxpress.export.export import export

    source = recipe.model.source

    def work() -> tuple[Edit, dict[str, Any]]:
        exported = export(source, recipe.model)
        return exported.edit, {"verification": exported.verification and asdict(exported.verification)}

    return stored(store, export_entry(recipe), work, progress, text=f"export {Path(source).name}")


def export_entry(recipe: Recipe) -> dict[str, Any]:
    """Return everything that the exported model depends on."""
    source, options = recipe.model.source, recipe.model.model_dump(mode="json", exclude={"source", "shape"})
    return {"step": "export", "options": options, "source_sha256": source_sha256(source, recipe.model.weights)}


def _apply(
    step: Step,
    given: Artifact,
    baseline: Artifact,
    samples: Samples,
    store: Path,
    progress: Progress,
    *,
    variant: str,
) -> Done:
    calibration = samples.calibration if uses_calibration(step) else None
    if needs_calibration(step) and calibration is None:
        raise UsageError(
            f"variant {variant!r}, step {step.name}: needs data.calibration, which the recipe does not give."
        )

    journal = store / f"search-{given.sha256[:12]}.jsonl"

    def work() -> tuple[Edit, dict[str, Any]]:
        try:
            statistics = _statistics(step, given, calibration, store, progress) if calibration else None
            return apply(step, given.path, baseline.path, samples, journal, statistics, progress.stage), {}
        except ModelError as error:
            raise ModelError(f"variant {variant!r}, step {step.name}: {error}") from error

    entry = step_entry(step, given, baseline, samples)
    done = stored(store, entry, work, progress, text=f"{variant}: {step.name}")
    if isinstance(step.options, DistillOptions):
        journal.with_suffix(".checkpoint").unlink(missing_ok=True)
    return done


def step_entry(step: Step, given: Artifact, baseline: Artifact, samples: Samples) -> dict[str, Any]:
    """Return everything that a step's result depends on."""
    calibration = samples.calibration if uses_calibration(step) else None
    entry = {
        "step": step.name,
        "options": step.options.model_dump(mode="json"),
        "input_sha256": given.sha256,
        "data_sha256": calibration.sha256 if calibration else None,
    }
    if judges(step):
        entry |= {
            "evaluation_sha256": samples.evaluation.sha256 if samples.evaluation else None,
            "metric": samples.metric,
        }
    if isinstance(step.options, PruneOptions | QuantizeOptions) and step.options.depends_on_host:
        entry |= {"host": host.describe().fingerprint}
    if isinstance(step.options, DistillOptions):
        entry |= {"teacher_sha256": baseline.sha256}
    return entry


def _statistics(step: Step, given: Artifact, data: Dataset, store: Path, progress: Progress) -> Profile | None:
    """Return the profile of the model that is quantized, collected once for all variants; None for steps without."""
    from onnxpress.quantization.collecting import collect, reuse

    if not isinstance(step.options, QuantizeOptions) or step.options.mode not in ("static", "auto"):
        return None
    budget = step.options.memory_budget
    if step.options.samples is not None:
        data = replace(data, limit=step.options.samples)
    entry = {"step": "profile", "input_sha256": given.sha256, "data_sha256": data.sha256, "versions": versions()}

    def make() -> Profile:
        collected = collect(artifact.load(given.path), data, memory_budget=budget, model_sha256=given.sha256)
        progress.done(f"profile of {collected.samples} samples, for every variant of this model")
        return collected

    home = store.parent / "profiles"
    home.mkdir(exist_ok=True)
    return reuse(home / f"{key(entry)}.profile", given.sha256, make)


def apply(
    step: Step,
    path: Path,
    baseline: Path,
    samples: Samples,
    journal: Path,
    statistics: Profile | None = None,
    stage: Stage = unshown,
) -> Edit:
    """Run one step on a model file and return its edit.

    Args:
        step: What to do.
        path: The model to do it to.
        baseline: The float model, the teacher of distillation.
        samples: The recipe's data.
        journal: A search keeps here what it measured, and training (with ``.checkpoint``) how far it is.
        statistics: Of the model, where they are known.
        stage: Shows the parts of a step that takes long.
    """
    model = artifact.load(path)
    calibration = samples.calibration if uses_calibration(step) else None
    if step.name == "prune":
        from onnxpress.pruning import prune

        assert isinstance(step.options, PruneOptions)  # noqa: S101 - Recipe built it from STEPS
        return prune(model, step.options, calibration, stage)
    if isinstance(step.options, DistillOptions):
        return _distill(step.options, model, baseline, calibration, journal.with_suffix(".checkpoint"))
    from onnxpress.quantization.quantize import quantize

    assert isinstance(step.options, QuantizeOptions)  # noqa: S101
    if not judges(step):
        return quantize(model, step.options, calibration, statistics=statistics)
    return quantize(
        model,
        step.options,
        calibration,
        statistics=statistics,
        evaluation=samples.evaluation,
        metric=samples.metric,
        journal=journal,
    )


def _distill(options: DistillOptions, model: ir.Model, baseline: Path, data: Dataset | None, checkpoint: Path) -> Edit:
    from onnxpress.export.sources import import_torch

    import_torch()
    from onnxpress.distillation.distill import distill

    assert data is not None  # noqa: S101 - `needs_calibration`
    return distill(model, artifact.load(baseline), options, data, checkpoint=checkpoint, resume=True)


def measure(
    recipe: Recipe,
    folder: Path,
    variants: Mapping[str, list[Done]],
    progress: Progress,
    *,
    limits: Collection[float] | None,
    created: datetime,
) -> Report:
    """Measure every variant and gather the report; the measured documents are written as they come."""
    from onnxpress.bench.bench import bench
    from onnxpress.cost.cost import cost
    from onnxpress.evaluation.evaluate import evaluate

    paths = {name: folder / name / MODEL_FILE for name in variants}
    descriptions = [describe(name, paths[name], done, folder, recipe.model.shape) for name, done in variants.items()]
    evaluation = timings = costs = None
    samples, calibration = recipe.data.evaluation_data(), recipe.data.calibration_data()
    if samples is not None:
        with progress.task("evaluate", samples.count) as advance:
            evaluation = evaluate(paths, baseline=BASELINE, data=samples, metric=recipe.data.metric, advance=advance)
        if calibration is not None:
            shared = shared_samples(calibration, samples)
            evaluation["data"]["shared_with_calibration"] = shared
        write_text(folder / "evaluation.json", dumps(evaluation), force=True)
    if recipe.bench is not None:
        with progress.task("bench") as advance:
            timings = bench(
                paths,
                baseline=BASELINE,
                options=recipe.bench,
                inputs=samples or calibration,
                limits=limits,
                advance=advance,
            ).to_json()
        write_text(folder / "bench.json", dumps(timings), force=True)
    if recipe.cost is not None and timings is not None:
        costs = cost(timings, recipe.cost)
        write_text(folder / "cost.json", dumps(costs), force=True)
    exported = variants[BASELINE][0]
    return Report(
        recipe={"path": recipe.path.name, "sha256": recipe.sha256, "name": recipe.path.stem},
        versions=versions(),
        created=created.isoformat(timespec="seconds"),
        baseline=BASELINE,
        variants=tuple(descriptions),
        export=_verification(recipe, exported),
        evaluation=None if evaluation is None else {k: v for k, v in evaluation.items() if k != "per_sample"},
        bench=timings,
        cost=costs,
    )


def describe(name: str, path: Path, done: list[Done], folder: Path, shape: Mapping[str, int]) -> dict[str, Any]:
    """Describe one variant's artifact for the report: size, steps, what runs as int8, lineage."""
    from onnxpress import description

    skipped = [Skip(**skip) for each in done for skip in each.record["skipped"]]
    facts, model = description.describe(path, skipped), artifact.load(_float_model(done).artifact.path)
    return facts | {
        "id": name,
        "path": str(path.relative_to(folder)),
        "steps": [
            {key: each.record[key] for key in ("step", "options", "facts", "skipped")} | {"cached": each.cached}
            for each in done[1:]
        ],
        "macs": macs.total(model, macs.sizes(model, shape)),
        "free_axes": macs.stated(model, shape),
    }


def _float_model(done: list[Done]) -> Done:
    """Return the last step whose model still has float shapes: quantization changes no count of MACs."""
    return next(each for each in reversed(done) if each.record["step"] != "quantize")


def _verification(recipe: Recipe, exported: Done) -> dict[str, Any]:
    found = exported.record.get("verification")
    source = recipe.model.source
    shown = source if source.startswith("zoo:") else Path(source).name
    return {
        "source": shown,
        "notes": [skip["reason"] for skip in exported.record["skipped"]],
        "against": found["against"] if found else None,
        "max_abs_error": found["max_abs_error"] if found else None,
        "max_rel_error": found["max_rel_error"] if found else None,
        "shapes_checked": found["shapes"] if found else [],
    }


@contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create the run folder, or continue one; a new one in which no step was finished goes when the run fails.

    What else lies in a folder must not be written over.
    """
    existed = folder.exists()
    with explained(f"run folder {folder}"):
        if (
            folder.is_dir()
            and not (folder / LOCK_FILE).exists()
            and {file.name for file in folder.iterdir()} - {"steps"}
        ):
            raise OutputError(f"run folder {folder}: holds something else than a run. Choose another with -o.")
        (folder / "steps").mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):  # finished steps keep it
                (folder / "steps").rmdir()
                (folder / LOCK_FILE).unlink()
                folder.rmdir()
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; a killed process gives the lock back."""
    with explained(f"run folder {folder}"):
        lock = (folder / LOCK_FILE).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"run folder {folder}: another run is using it. Wait, or choose another with -o."
            ) from error
        yield


def _now() -> datetime:
    return datetime.now(UTC)
