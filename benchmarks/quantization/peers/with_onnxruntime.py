"""onnxruntime.quantization: static (its calibrators) and dynamic, after its own pre-processing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import common
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

asked = common.request()


class Reader(CalibrationDataReader):
    """Feeds in order."""

    def __init__(self) -> None:
        self.left = iter(common.feeds(asked["samples"]))

    def get_next(self) -> dict | None:
        """Return the next feeds."""
        return next(self.left, None)


def work() -> None:
    """Quantize."""
    prepared = asked["output"] + ".prepared.onnx"
    try:
        quant_pre_process(asked["model"], prepared, skip_symbolic_shape=False)
    except Exception:  # its symbolic shape inference fails on some models: without it, as its documentation says
        quant_pre_process(asked["model"], prepared, skip_symbolic_shape=True)
    if asked["mode"] == "dynamic":
        quantize_dynamic(prepared, asked["output"], per_channel=True)
    else:
        quantize_static(
            prepared,
            asked["output"],
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[asked["mode"]],
        )
    Path(prepared).unlink()


common.report(work)
