"""What can be asked of quantization, in a recipe (``quantize: {mode: static}``) and on the command line alike."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from onnxpress.errors import did_you_mean
from onnxpress_calibration import calibrators


class QuantizeOptions(BaseModel):
    """Options of the quantize step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["dynamic", "static"] = "static"
    """``static`` fixes activation ranges from calibration data; ``dynamic`` computes them in each run."""
    calibrator: str = "mse"
    """How a static range follows from the statistics: a file in ``onnxpress_calibration/calibrators``."""
    per_tensor: bool = False
    """One weight scale per tensor instead of one per output channel."""
    include: str | None = None
    """Regular expression: only nodes whose name matches are quantized."""
    exclude: str | None = None
    """Regular expression: nodes whose name matches stay float."""
    samples: int | None = Field(default=None, gt=0)
    """Use only the first so many calibration samples."""

    @field_validator("calibrator")
    @classmethod
    def _known_calibrator(cls, value: str) -> str:
        if value not in calibrators.names():
            raise ValueError(f"unknown calibrator {value!r}.{did_you_mean(value, calibrators.names())}")
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _regular_expression(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is no regular expression ({error})") from error
        return value

    def selects(self, name: str) -> bool:
        """Tell whether include and exclude let a node of this name be quantized."""
        if self.include is not None and not re.search(self.include, name):
            return False
        return self.exclude is None or not re.search(self.exclude, name)
