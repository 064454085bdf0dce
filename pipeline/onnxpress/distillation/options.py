"""What can be asked of distillation, in a recipe (``distill: {epochs: 100}``) and on the command line alike."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from onnxpress import units
from onnxpress.errors import did_you_mean

AUGMENTATIONS = ("crop", "flip", "mixup", "none")


def _share(value: object) -> object:
    return units.parse_fraction(value)


class DistillOptions(BaseModel):
    """Options of the distill step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int | None = Field(default=None, ge=1)
    """How often each sample is seen; 100 when neither steps nor budget are given."""
    steps: int | None = Field(default=None, ge=1)
    """Updates of the weights, in place of epochs."""
    budget: Annotated[timedelta | None, BeforeValidator(units.parse_duration)] = None
    """Time to train, ``10m``, in place of epochs. What comes out then depends on the machine."""
    batch_size: int = Field(default=64, ge=1)
    """Samples in an update, all processes together."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Of Adam, as a share of each tensor's root mean square: 0.003 moves weights by about 0.3 % in an update. It rises
    over the first updates and falls to zero along a cosine."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW (decoupled)."""
    loss: Literal["auto", "kl", "mse", "cosine"] = "auto"
    """How outputs are compared: the Kullback-Leibler divergence of classes, squared error relative to the teacher's
    variance, or the angle. ``auto``: kl for ``[samples, classes]``, else mse."""
    temperature: float = Field(default=4.0, gt=0)
    """Softens the classes of kl."""
    features: float = Field(default=1.0, ge=0)
    """Weight of matching intermediate tensors, those of equal name and shape in both models; 0 leaves them alone."""
    labels: float = Field(default=0.0, ge=0)
    """Weight of the cross entropy with the labels ``y`` of the data; 0 needs no labels."""
    augment: tuple[str, ...] | None = None
    """Changes of the inputs before both models see them: ``flip``, ``crop`` and ``mixup`` of images, or your own
    ``module:fn`` or ``file.py:fn``; ``none`` for none. By default all three for a model of images."""
    held_out: Annotated[float, BeforeValidator(_share)] = Field(default=0.1, lt=1)
    """Share of the samples that judge and do not train. The best weights are kept, or later ones that these few samples
    cannot tell from them; those at the start if none are better."""
    patience: int = Field(default=15, ge=1)
    """Stop when so many of the twenty judgements in a row bring nothing better."""
    samples: int | None = Field(default=None, ge=2)
    """Use only the first so many samples."""
    seed: int = Field(default=0, ge=0)
    """Of the order of samples and the augmentation; the held-out samples are always the same."""

    @field_validator("augment", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("augment")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [word for word in value or () if word not in AUGMENTATIONS and ":" not in word]
        if unknown:
            raise ValueError(f"unknown augmentation {unknown[0]!r}.{did_you_mean(unknown[0], AUGMENTATIONS)}")
        if value is not None and "none" in value and len(value) > 1:
            raise ValueError("none stands alone, without other augmentations")
        return value

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = [name for name in ("epochs", "steps", "budget") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} both say how long: give one of epochs, steps and budget")
        return self
