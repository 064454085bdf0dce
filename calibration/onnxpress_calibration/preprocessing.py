"""How an image becomes the array that a model takes: ``preprocessing.yaml`` beside the images, or given apart.

::

    size: 224                    # height and width; or [224, 192]
    input: input                 # optional: the model's input, where it has several
    resize: 256                  # optional: shorter side first, then the centre crop of `size`; else plain resize
    color: RGB                   # RGB, BGR or L (gray)
    scale: 255                   # pixels are divided by this
    mean: [0.485, 0.456, 0.406]  # optional, after scaling: taken off; one number, or one per channel
    std: [0.229, 0.224, 0.225]   # optional: what is left is divided by it
    layout: NCHW                 # NCHW or NHWC
    labels: labels.csv           # optional: a file with the columns file,label
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from onnxpress_calibration.documents import YAML_BYTES, DocumentError, parse_yaml, read_bytes, shortened
from onnxpress_calibration.errors import DataError

FILE = "preprocessing.yaml"
EXAMPLE = "size: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]"
GRAY = frozenset({"GRAY", "GREY", "GRAYSCALE", "GREYSCALE"})

Array = np.ndarray[Any, np.dtype[Any]]


def _size(value: object) -> object:
    """Read ``224``, ``"224x192"`` or ``[224, 192]``."""
    if isinstance(value, str) and "x" in value.lower():
        value = value.lower().split("x")
    return [value, value] if isinstance(value, int | str) else value


def _numbers(value: object) -> object:
    return [value] if isinstance(value, int | float | str) else value


def _upper(value: object) -> object:
    if not isinstance(value, str):
        return value
    word = value.upper()
    return "L" if word in GRAY else {"CHW": "NCHW", "HWC": "NHWC"}.get(word, word)


Pixels = Annotated[int, Field(gt=0, le=16384)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Preprocessing(BaseModel):
    """What is done to every image of a folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[tuple[Pixels, Pixels], BeforeValidator(_size)]
    """Height and width, in pixels."""
    input: str | None = None
    resize: Pixels | None = None
    color: Annotated[Literal["RGB", "BGR", "L"], BeforeValidator(_upper)] = "RGB"
    scale: Positive = 255.0
    mean: Annotated[tuple[Number, ...], BeforeValidator(_numbers)] = (0.0,)
    std: Annotated[tuple[Positive, ...], BeforeValidator(_numbers)] = (1.0,)
    layout: Annotated[Literal["NCHW", "NHWC"], BeforeValidator(_upper)] = "NCHW"
    labels: str | None = None

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> Preprocessing:
        channels = 1 if self.color == "L" else 3
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, channels):
                raise ValueError(
                    f"{name}: has {len(numbers)} numbers; give one, or one for each of {channels} channels"
                )
        if self.resize is not None and self.resize < max(self.size):
            raise ValueError(f"resize: {self.resize} leaves less than the crop of {self.size[0]}x{self.size[1]} pixels")
        return self

    @classmethod
    def read(cls, path: Path) -> Preprocessing:
        """Read a ``preprocessing.yaml``.

        Raises:
            DataError: it cannot be read, or says what nobody can do.

        """
        try:
            content = read_bytes(path, YAML_BYTES)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}). Check the path, or write a file with `size: 224`."
            ) from error
        except DocumentError as error:
            raise DataError(f"{path}{error}") from error
        return cls.parse(content, str(path))

    @classmethod
    def given(cls, text: str) -> Preprocessing:
        """Read what a user wrote on the command line or in a recipe: a file, or ``size: 224, mean: 0.5``.

        Raises:
            DataError: see `read`.

        """
        if ":" in text and not Path(text).exists():
            return cls.parse(f"{{{text}}}".encode(), "preprocessing")
        return cls.read(Path(text))

    @classmethod
    def parse(cls, content: bytes, where: str) -> Preprocessing:
        """Read YAML; ``where`` names it in messages."""
        try:
            _, values = parse_yaml(content)
        except DocumentError as error:
            raise DataError(f"{where}{error} For example {EXAMPLE}") from error
        if not isinstance(values, Mapping):
            raise DataError(f"{where}: is no list of keys and values. For example {EXAMPLE}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise DataError(f"{where}: {_explained(error)}") from error

    def normalized(self, pixels: Array) -> Array:
        """Return the array of an image as the model takes it.

        Args:
            pixels: Shape [height, width, channels], in the order of RGB, from 0 to 255.

        """
        ordered = pixels[..., ::-1] if self.color == "BGR" else pixels
        scaled = ordered / np.float32(self.scale)
        scaled = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1) if self.layout == "NCHW" else scaled)


def _explained(error: ValidationError) -> str:
    """Say the first problem in a line."""
    problems = error.errors(include_url=False)
    problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where, Preprocessing.model_fields, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(Preprocessing.model_fields)}."
        return f"unknown key {shortened(where)}. {hint}"
    if problem["type"] == "missing":
        return f"{where!r} is missing. For example {EXAMPLE}"
    return f"{where + ': ' if where else ''}{problem['msg'].removeprefix('Value error, ')} (docs/data.md)."
