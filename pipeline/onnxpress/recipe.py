"""The recipe: one YAML file that says what goes in, which variants come out, and how they are judged.

A recipe is validated whole before any work starts: an unknown key, a wrong value or a missing file costs a second, not
the hour of work before it. The schema is DESIGN's ``onnxpress.recipe/1``; see ``docs/recipe.md``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onnxpress.bench.options import BenchOptions
from onnxpress.cost.options import CostOptions
from onnxpress.data import dataset, resolve
from onnxpress.distillation.options import DistillOptions
from onnxpress.errors import DataError, UsageError, did_you_mean
from onnxpress.export.options import ExportOptions
from onnxpress.pruning.options import PruneOptions
from onnxpress.quantization.options import QuantizeOptions
from onnxpress.validation import explain, keys, line_of, read_yaml
from onnxpress_calibration.dataset import Dataset
from onnxpress_calibration.preprocessing import Preprocessing

SCHEMA = "onnxpress.recipe/1"
LONGEST_NAME = 200
BASELINE = "float"
"""Name of the variant that is always there: the exported float model."""
StepOptions = PruneOptions | DistillOptions | QuantizeOptions
STEPS: dict[str, type[StepOptions]] = {"prune": PruneOptions, "distill": DistillOptions, "quantize": QuantizeOptions}


class Step(BaseModel):
    """One entry of a variant: ``{NAME: {options}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: StepOptions


class ModelSection(ExportOptions):
    """``model:`` of a recipe: the source and how it is exported."""

    source: str
    shape: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Sizes of free axes of the inputs, by name, with which MACs are counted; the others count as 1."""


class DataSection(BaseModel):
    """``data:`` of a recipe, in the grammar of DATA."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibration: str | None = None
    evaluation: str | None = None
    metric: str | None = None
    preprocessing: Preprocessing | None = None
    """How the images of a folder become arrays, in place of the file in it: keys and values, or a file."""

    def calibration_data(self) -> Dataset | None:
        """Return the calibration samples; None where the recipe gives none."""
        return self._opened(self.calibration)

    def evaluation_data(self) -> Dataset | None:
        """Return the evaluation samples; None where the recipe gives none."""
        return self._opened(self.evaluation)

    def _opened(self, text: str | None) -> Dataset | None:
        return None if text is None else dataset(text, preprocessing=self.preprocessing)


class Recipe(BaseModel):
    """A validated recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["onnxpress.recipe/1"] = Field(alias="schema")
    model: ModelSection
    data: DataSection = DataSection()
    variants: dict[str, Annotated[tuple[Step, ...], Field(min_length=1)]]
    bench: BenchOptions | None = None
    cost: CostOptions | None = None
    gate: str | None = None
    path: Path = Field(default=Path(), exclude=True)
    sha256: str = Field(default="", exclude=True)

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read and check a recipe; paths in it are relative to its folder.

        Raises:
            UsageError: no such file, not YAML, an unknown key or a wrong value (with its line).
        """
        found = read_yaml(path, "recipe")
        root, values = found.root, found.value
        if root is None or not isinstance(values, dict):
            what = "is empty" if root is None else "is no mapping (`name: value`)"
            raise UsageError(f"recipe {path}: {what}. It starts with `schema: {SCHEMA}`; see docs/recipe.md.")
        for own in values.keys() & {"path", "sha256", "schema_name"}:
            raise UsageError(f"recipe {path}: unknown key {own!r}.{did_you_mean(own, keys(cls))}")
        try:
            if "variants" in values:
                values["variants"] = _variants(values["variants"], root)
            values["data"] = _with_preprocessing(values.get("data", {}), path.parent, root)
            recipe = cls.model_validate(values | {"path": path, "sha256": found.sha256})
        except ValidationError as error:
            raise UsageError(f"recipe {path}{explain(error, cls, root)}") from error
        except UsageError as error:
            raise UsageError(f"recipe {path}{error}") from error
        return recipe._checked()

    def only(self, names: Collection[str]) -> Recipe:
        """Return the recipe with some of its variants, in its own order; none named are all.

        Raises:
            UsageError: there is no such variant.
        """
        wrong = next((name for name in names if name not in self.variants), None)
        if wrong is not None:
            raise UsageError(f"recipe {self.path}: no variant {wrong!r}.{did_you_mean(wrong, self.variants)}")
        if not names:
            return self
        kept = {name: steps for name, steps in self.variants.items() if name in names}
        cost = None if self.cost is None else self.cost.only([BASELINE, *kept])
        return self.model_copy(update={"variants": kept, "cost": cost})

    def _checked(self) -> Recipe:
        """Resolve paths, and check what needs more than one key."""
        for name in self.variants:
            usable = (
                name.replace("-", "").replace("_", "").replace(".", "").isalnum() and len(name.encode()) <= LONGEST_NAME
            )
            if name == BASELINE or not usable:
                letters = f"must be letters, digits, '-', '_' and '.', at most {LONGEST_NAME} bytes: it names a folder"
                why = "is always there" if name == BASELINE else letters
                raise UsageError(f"recipe {self.path}: variant {name!r}: the name {why}. Choose another one.")
        needs = [name for name, steps in self.variants.items() if any(needs_calibration(step) for step in steps)]
        if needs and self.data.calibration is None:
            raise UsageError(f"recipe {self.path}: variant {needs[0]!r} needs data.calibration, which is not given.")
        for name, steps in self.variants.items():
            if any(
                isinstance(step.options, QuantizeOptions) and step.options.backend == "neural-compressor"
                for step in steps
            ):
                raise UsageError(
                    f"recipe {self.path}: variant {name!r}: backend neural-compressor quantizes PyTorch models, "
                    "a recipe's steps what was exported. Use `compress quantize SOURCE --backend neural-compressor`."
                )
        if self.data.metric is not None and self.data.evaluation is None:
            raise UsageError(f"recipe {self.path}: data.metric needs data.evaluation, which is not given.")
        folder = self.path.parent
        places = {"calibration": self.data.calibration, "evaluation": self.data.evaluation}
        if self.data.metric is not None and ":" in self.data.metric:
            places["metric"] = self.data.metric
        try:
            source = resolve(self.model.source, folder)
            data = {key: resolve(value, folder) for key, value in places.items() if value is not None}
        except UsageError as error:
            raise UsageError(f"recipe {self.path}: {error}") from error
        return self.model_copy(
            update={
                "data": self.data.model_copy(update=data),
                "model": self.model.model_copy(update={"source": source}),
                "gate": self.gate and str(folder / self.gate),
                "variants": {
                    name: tuple(_weighed(step, self.model.shape) for step in steps)
                    for name, steps in self.variants.items()
                },
            }
        )


def needs_calibration(step: Step) -> bool:
    """Tell whether a step cannot do without calibration data."""
    if isinstance(step.options, QuantizeOptions):
        return step.options.mode in ("static", "auto")
    return isinstance(step.options, DistillOptions) or step.options.needs_data


def uses_calibration(step: Step) -> bool:
    """Tell whether a step reads calibration data where there is some: what needs it, or loses less with it."""
    options = step.options
    return needs_calibration(step) or (isinstance(options, QuantizeOptions) and options.mode in ("fp16", "weight-only"))


def judges(step: Step) -> bool:
    """Tell whether a step decides by the evaluation data; what others lose is in the report, for the gate to judge."""
    options = step.options
    return isinstance(options, QuantizeOptions) and (options.mode == "auto" or options.max_drop is not None)


def _variants(values: object, root: yaml.Node) -> object:
    """Validate the steps of every variant against their own options; what is no step is left to the recipe's model."""
    if not isinstance(values, Mapping):
        return values
    return {
        name: _judged_apart([_step(step, root, ["variants", str(name), i]) for i, step in enumerate(steps)])
        if isinstance(steps, list)
        else steps
        for name, steps in values.items()
    }


def _with_preprocessing(data: object, folder: Path, root: yaml.Node) -> object:
    """Read the preprocessing file that the data section names, if it does; anything else is left to the model."""
    if not isinstance(data, Mapping) or not isinstance(data.get("preprocessing"), str):
        return data
    try:
        return {**data, "preprocessing": Preprocessing.read(folder / data["preprocessing"])}
    except DataError as error:
        raise UsageError(f"{line_of(root, ['data', 'preprocessing'])}: {error}") from error


def _judged_apart(steps: list[Step]) -> list[Step]:
    """Let no prune step see the samples by which a later distill step judges: it would have fitted weights to them."""
    shares = [step.options.held_out for step in steps if isinstance(step.options, DistillOptions)]
    return [
        step.model_copy(update={"options": step.options.model_copy(update={"held_out": max(shares)})})
        if shares and isinstance(step.options, PruneOptions) and step.options.held_out is None
        else step
        for step in steps
    ]


def _weighed(step: Step, shape: Mapping[str, int]) -> Step:
    """Let a prune step count MACs as the report does, where it says nothing else."""
    if not isinstance(step.options, PruneOptions) or step.options.shape or not shape:
        return step
    return step.model_copy(update={"options": step.options.model_copy(update={"shape": dict(shape)})})


def _step(value: object, root: yaml.Node, at: list[str | int]) -> Step:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise UsageError(
            f": {'.'.join(map(str, at))}: a step is one name with its options, as in {{quantize: {{mode: static}}}}."
        )
    name, options = next(iter(value.items()))
    if name not in STEPS:
        raise UsageError(f"{line_of(root, [*at, name])}: unknown step {name!r}.{did_you_mean(str(name), STEPS)}")
    try:
        return Step(name=name, options=STEPS[name].model_validate({} if options is None else options))
    except ValidationError as error:
        raise UsageError(explain(error, STEPS[name], root, [*at, name])) from error
