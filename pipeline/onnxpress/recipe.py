"""The recipe: one YAML file that says what goes in, which variants come out, and how they are judged.

A recipe is validated whole before any work starts: an unknown key, a wrong value or a missing file costs a second, not
the hour of work before it. The schema is DESIGN's ``onnxpress.recipe/1``; see ``docs/recipe.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from onnxpress.bench.options import BenchOptions
from onnxpress.cost.options import CostOptions
from onnxpress.data import resolve
from onnxpress.errors import UsageError, did_you_mean
from onnxpress.export.options import ExportOptions
from onnxpress.pruning.options import PruneOptions
from onnxpress.quantization.options import QuantizeOptions

SCHEMA = "onnxpress.recipe/1"
BASELINE = "float"
"""Name of the variant that is always there: the exported float model."""
STEPS = {"prune": PruneOptions, "quantize": QuantizeOptions}

StepOptions = PruneOptions | QuantizeOptions
Model = TypeVar("Model", bound=BaseModel)


class Step(BaseModel):
    """One entry of a variant: ``{NAME: {options}}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: StepOptions


def _step(value: object) -> object:
    if isinstance(value, Step):
        return value
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError("a step is one name with its options, for example {quantize: {mode: static}}")
    name, options = next(iter(value.items()))
    if name not in STEPS:
        raise ValueError(f"unknown step {name!r}.{did_you_mean(str(name), STEPS)}")
    return Step.model_construct(name=name, options=STEPS[name].model_validate(options or {}))


class ModelSection(ExportOptions):
    """``model:`` of a recipe: the source and how it is exported."""

    source: str


class DataSection(BaseModel):
    """``data:`` of a recipe, in the grammar of DATA."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibration: str | None = None
    evaluation: str | None = None
    metric: str | None = None


class Recipe(BaseModel):
    """A validated recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["onnxpress.recipe/1"] = Field(alias="schema")
    model: ModelSection
    data: DataSection = DataSection()
    variants: dict[str, Annotated[tuple[Annotated[Step, BeforeValidator(_step)], ...], Field(min_length=1)]]
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
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"recipe {path}: cannot be read ({error.strerror}). Check the path.") from error
        try:
            root = yaml.compose(content, Loader=yaml.SafeLoader)
            values = yaml.safe_load(content)
        except yaml.YAMLError as error:
            raise UsageError(f"recipe {path}: not YAML ({' '.join(str(error).split())}).") from error
        if not isinstance(values, dict):
            raise UsageError(f"recipe {path}: is empty. It starts with `schema: {SCHEMA}`; see docs/recipe.md.")
        for own in ("path", "sha256", "schema_name"):
            if own in values:
                raise UsageError(f"recipe {path}: unknown key {own!r}.{did_you_mean(own, _keys(cls))}")
        try:
            recipe = cls.model_validate(values | {"path": path, "sha256": hashlib.sha256(content).hexdigest()})
        except ValidationError as error:
            raise UsageError(f"recipe {path}{_explain(error, cls, root)}") from error
        return recipe._checked()

    def _checked(self) -> Recipe:
        """Resolve paths, and check what needs more than one key."""
        for name in self.variants:
            if name == BASELINE or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
                why = "is always there" if name == BASELINE else "must be letters, digits, '-', '_' and '.'"
                raise UsageError(f"recipe {self.path}: variant {name!r}: the name {why}. Choose another one.")
        needs = [name for name, steps in self.variants.items() if any(_needs_calibration(step) for step in steps)]
        if needs and self.data.calibration is None:
            raise UsageError(f"recipe {self.path}: variant {needs[0]!r} needs data.calibration, which is not given.")
        if self.data.metric is not None and self.data.evaluation is None:
            raise UsageError(f"recipe {self.path}: data.metric needs data.evaluation, which is not given.")
        folder = self.path.parent
        data = {
            key: value and resolve(value, folder) for key, value in self.data.model_dump().items() if key != "metric"
        }
        metric = self.data.metric
        data["metric"] = resolve(metric, folder) if metric is not None and ":" in metric else metric
        return self.model_copy(
            update={
                "data": DataSection(**data),
                "model": self.model.model_copy(update={"source": resolve(self.model.source, folder)}),
                "gate": self.gate and str(folder / self.gate),
            }
        )


def _needs_calibration(step: Step) -> bool:
    return isinstance(step.options, QuantizeOptions) and step.options.mode == "static"


def options(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Build the options of one step from the command line; None stands for an option that was not given.

    Raises:
        UsageError: a value is wrong.
    """
    try:
        return model.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise UsageError(_explain(error, model, None).removeprefix(": ")) from error


def _explain(error: ValidationError, model: type[BaseModel], root: yaml.Node | None) -> str:
    """Say the first problem in one line: where (key and line of the file), what, and what was meant."""
    problem = error.errors(include_url=False)[0]
    location = [part for part in problem["loc"] if part != "function-before[_step(), Step]"]
    line = _line(root, location)
    place = f", line {line}" if line else ""
    where = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _keys(_owner(model, location[:-1]))
        return f"{place}: unknown key {where!r}.{did_you_mean(str(location[-1]), known)}"
    if problem["type"] == "missing":
        return f"{place}: {where!r} is missing. Add it; see docs/recipe.md."
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] == "value_error" else f" (given: {problem['input']!r})"
    return f"{place}: {where or 'value'}: {message}{given}"


def _owner(model: type[BaseModel], location: list[Any]) -> type[BaseModel]:
    """Return the model that a location leads to."""
    for part in location:
        if part in STEPS:
            model = STEPS[part]
            continue
        field = model.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return model


def _keys(model: type[BaseModel]) -> list[str]:
    names = [field.alias or name for name, field in model.model_fields.items()]
    return [name for name in names if name not in ("path", "sha256")]


def _line(node: yaml.Node | None, location: list[Any]) -> int | None:
    """Return the line on which a location stands, or the deepest part of it that is there."""
    if node is None:
        return None
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return int(line)
