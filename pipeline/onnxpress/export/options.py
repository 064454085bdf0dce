"""What can be asked of an export, in a recipe (``model: {source: …, opset: 21}``) and on the command line alike."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, field_validator

from onnxpress.export.inputs import parse


class ExportOptions(BaseModel):
    """Options of the export; the source is named apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    opset: int | None = None
    """Operator set of the result. By default 21 for PyTorch; an ONNX file keeps its own if that is at least 13."""
    weights: str | None = None
    """File with the weights of a PyTorch model: safetensors, or .pt without pickle."""
    inputs: tuple[str, ...] = ()
    """``NAME:DTYPE:SHAPE`` of each input; in a recipe also ``{NAME: DTYPE:SHAPE}``."""
    atol: float | None = Field(default=None, ge=0)
    """Absolute tolerance of the verification; by default it follows from the dtype of the output."""
    rtol: float | None = Field(default=None, ge=0)
    """Relative tolerance of the verification."""
    verify: bool = True

    @field_validator("inputs", mode="before")
    @classmethod
    def _from_mapping(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return tuple(f"{name}:{described}" for name, described in value.items())
        return value

    @field_validator("inputs")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [parse(text).name for text in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"input {twice!r} is given twice")
        return value
