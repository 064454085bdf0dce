"""What can be asked of quantization, in a recipe (``quantize: {mode: static}``) and on the command line alike."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from onnxpress.errors import did_you_mean
from onnxpress.selection import NodeSelection
from onnxpress_calibration import calibrators


class QuantizeOptions(NodeSelection):
    """Options of the quantize step."""

    mode: Literal["dynamic", "static"] = "static"
    """``static`` fixes activation ranges from calibration data; ``dynamic`` computes them in each run."""
    calibrator: str = "mse"
    """How a static range follows from the statistics: a file in ``onnxpress_calibration/calibrators``."""
    per_tensor: bool = False
    """One weight scale per tensor instead of one per output channel."""
    samples: int | None = Field(default=None, gt=0)
    """Use only the first so many calibration samples."""

    @field_validator("calibrator")
    @classmethod
    def _known_calibrator(cls, value: str) -> str:
        if value not in calibrators.names():
            raise ValueError(f"unknown calibrator {value!r}.{did_you_mean(value, calibrators.names())}")
        return value
