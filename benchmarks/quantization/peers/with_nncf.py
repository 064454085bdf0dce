"""NNCF's post-training quantization of ONNX models."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import common
import nncf
import onnx

asked = common.request()


def work() -> None:
    """Quantize."""
    samples = common.feeds(asked["samples"])
    preset = nncf.QuantizationPreset.MIXED if asked["mode"] == "mixed" else nncf.QuantizationPreset.PERFORMANCE
    kind = nncf.ModelType.TRANSFORMER if asked["mode"] == "transformer" else None
    quantized = nncf.quantize(
        onnx.load(asked["model"]),
        nncf.Dataset(samples),
        preset=None if kind else preset,
        model_type=kind,
        subset_size=len(samples),
    )
    onnx.save(quantized, asked["output"])


common.report(work)
