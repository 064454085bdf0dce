"""NVIDIA ModelOpt's ONNX quantization, calibrated on the CPU."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import common
import numpy as np
from modelopt.onnx.quantization import quantize

asked = common.request()


def work() -> None:
    """Quantize."""
    feeds = common.feeds(asked["samples"])
    joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    quantize(
        asked["model"],
        quantize_mode="int8",
        calibration_data=joined,
        calibration_method=asked["mode"],
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=asked["output"],
    )


common.report(work)
